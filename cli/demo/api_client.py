"""A client for the endpoint of the read API that the demo uses."""

from decimal import Decimal
from types import TracebackType

import httpx2
from pydantic import BaseModel


class StatsRow(BaseModel):
    """One group of `GET /v1/request-logs/stats`; `cost` is dollars, of the requests whose price is known."""

    group: str
    count: int
    error_count: int
    unpriced_count: int
    missing_usage_count: int
    failed_without_usage_count: int
    input_tokens: int
    output_tokens: int
    cached_input_tokens: int
    cost: Decimal
    p50_duration_ms: float | None
    p95_duration_ms: float | None
    p99_duration_ms: float | None

    @property
    def without_cost(self) -> int:
        return self.unpriced_count + self.missing_usage_count + self.failed_without_usage_count


class Stats(BaseModel):
    """An answer of `GET /v1/request-logs/stats`."""

    stats: list[StatsRow]
    total_count: int
    total_input_tokens: int
    total_output_tokens: int
    total_cost: Decimal
    error_count: int
    unpriced_count: int
    missing_usage_count: int
    failed_without_usage_count: int


class ApiClient:
    """A client of the API at `url` with a bearer key; raises httpx2.HTTPError when it refuses or does not answer."""

    def __init__(self, url: str, api_key: str) -> None:
        # The address is on this machine, so a proxy of the environment must not be used.
        self._http = httpx2.Client(
            # An empty bearer is not a valid header; the health checks need no key.
            base_url=url,
            headers={"authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=30,
            trust_env=False,
        )

    def __enter__(self) -> "ApiClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def stats(self, group_by: str, metric: str = "count") -> Stats:
        answer = self._http.get("/v1/request-logs/stats", params={"group_by": group_by, "metric": metric})
        return Stats.model_validate_json(answer.raise_for_status().content)
