"""The settings of the read API: environment variables that start with `INSIGHTS_`."""

from limits import parse_many
from pydantic import Field, SecretStr, field_validator

from aggregator.settings import ClickHouseSettings


class ApiSettings(ClickHouseSettings):
    api_keys: SecretStr = Field(
        description="Comma-separated keys, each with full rights, sent as `Authorization: Bearer ak-...`; at least one."
    )
    host: str = Field("127.0.0.1", description="Address the API listens on.")
    port: int = Field(8080, ge=1, le=65535, description="Port the API listens on.")
    max_execution_time_seconds: float = Field(
        30, gt=0, description="A query that runs longer is stopped and answered with 504."
    )
    max_memory_bytes: int = Field(
        2 * 1024**3, gt=0, description="A query that needs more memory in ClickHouse is stopped and answered with 503."
    )

    request_limit: str = Field(
        "50/second",
        description="Requests of one key to each process, but for events; like `50/second;10000/hour`, empty for none.",
    )
    wrong_key_limit: str = Field(
        "20/minute", description="Wrong keys from one address; past it the address is answered with 429."
    )
    search_limit: str = Field(
        "10/minute",
        description="Searches of one key to each process; empty for none but the limit on all requests.",
    )
    suggestions_limit: str = Field("10/minute", description="Suggestions for one key, likewise.")
    max_requests: int = Field(
        64, ge=1, description="Requests that are answered from ClickHouse at a time; one more gets 503."
    )
    max_requests_of_key: int = Field(
        16, ge=1, description="How many of these one key may have; one more gets 429. Event requests do not count."
    )
    max_queries: int = Field(
        8,
        ge=1,
        description="Queries that run in ClickHouse at a time; keys take turns, and one alone has half of them.",
    )
    trusted_proxies: str = Field(
        "",
        description="Addresses or networks of proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed.",
    )
    cors_origins: str = Field(
        "", description="Web pages of these origins may ask, comma-separated, like `https://console.example`."
    )
    max_connections: int = Field(
        800,
        ge=1,
        description="Open connections to the API; one more closes the one that has waited longest for a whole request.",
    )
    head_timeout_seconds: float = Field(
        10, gt=0, description="A connection whose next request's head is not complete by then is closed."
    )
    request_timeout_seconds: float = Field(
        60, gt=0, description="A request that is not sent and answered by then is answered with 504."
    )

    @field_validator("request_limit", "wrong_key_limit", "search_limit", "suggestions_limit")
    @classmethod
    def _a_limit(cls, value: str) -> str:
        if value:
            parse_many(value)
        return value

    @field_validator("api_keys")
    @classmethod
    def _at_least_one_key(cls, value: SecretStr) -> SecretStr:
        if not _split(value):
            raise ValueError("must hold at least one key")
        return value

    @property
    def origins(self) -> list[str]:
        return [origin.strip().rstrip("/") for origin in self.cors_origins.split(",") if origin.strip()]

    @property
    def keys(self) -> list[str]:
        return _split(self.api_keys)


def _split(value: SecretStr) -> list[str]:
    return [key.strip() for key in value.get_secret_value().split(",") if key.strip()]
