"""Whether the service is up and ready, and which version runs."""

from importlib.metadata import version
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from aggregator.clickhouse.client import DatabaseError, WarehouseUnavailableError
from aggregator.clickhouse.migrate import MigrationError, pending, read_migrations
from api.errors import ApiError, documented
from api.parameters import NoParameters

DISTRIBUTION = "router-insights"


def installed_version() -> str:
    return version(DISTRIBUTION)


class ServiceHealth(BaseModel):
    """That the service is well."""

    status: str = Field(description="Always `ok`; what is not ok is an error.", examples=["ok"])


class ServiceVersion(BaseModel):
    """What is running."""

    name: str = Field(description="The distribution that runs.", examples=["router-insights"])
    version: str = Field(description="Its version.", examples=["0.1.0"])


router = APIRouter(tags=["health"], responses=documented(400, 500))


@router.get("/healthz")
async def check_health(_: Annotated[NoParameters, Query()]) -> ServiceHealth:
    """The process is up."""
    return ServiceHealth(status="ok")


@router.get("/readyz", responses=documented(503))
def check_readiness(request: Request, _: Annotated[NoParameters, Query()]) -> ServiceHealth:
    """ClickHouse answers and has the tables this version needs."""
    try:
        missing = pending(request.app.state.warehouse, read_migrations())
    except (WarehouseUnavailableError, DatabaseError) as error:
        raise ApiError(503, "ClickHouse does not answer.") from error
    except MigrationError as error:
        raise ApiError(503, str(error)) from error
    if missing:
        raise ApiError(503, f"{len(missing)} migrations are missing: run `insights migrate`.")
    return ServiceHealth(status="ok")


@router.get("/version")
async def get_version(_: Annotated[NoParameters, Query()]) -> ServiceVersion:
    """What is running."""
    return ServiceVersion(name=DISTRIBUTION, version=installed_version())
