"""A client for the endpoint of the read API that the demo uses."""

from types import TracebackType

import httpx2
import msgspec

from router_insights import RequestLogStats


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

    def stats(self, group_by: str, metric: str = "count") -> RequestLogStats:
        answer = self._http.get("/v1/request-logs/stats", params={"group_by": group_by, "metric": metric})
        return msgspec.json.decode(answer.raise_for_status().content, type=RequestLogStats)
