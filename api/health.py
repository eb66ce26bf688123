"""Whether the service is up and ready, and which version runs."""

from importlib.metadata import version
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from aggregator.clickhouse.client import DatabaseError, Warehouse, WarehouseUnavailableError
from aggregator.clickhouse.migrate import pending
from aggregator.clickhouse.migration_files import Migration, MigrationError, read_migrations
from api.errors import ApiError, documented
from api.load.single_flight import SingleFlight
from api.parameters import NoParameters

DISTRIBUTION = "router-insights"


# Probes wait no longer.
READY_SECONDS = 5.0


def installed_version() -> str:
    return version(DISTRIBUTION)


def readiness(warehouse: Warehouse) -> SingleFlight[list[Migration]]:
    """Finds out what the database lacks."""
    return SingleFlight("ready", lambda: pending(warehouse, read_migrations()))


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
async def check_readiness(request: Request, _: Annotated[NoParameters, Query()]) -> ServiceHealth:
    """ClickHouse answers and has the tables this version needs."""
    checks: SingleFlight[list[Migration]] = request.app.state.readiness
    try:
        missing = await checks.result(READY_SECONDS)
    except (WarehouseUnavailableError, DatabaseError, TimeoutError) as error:
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
