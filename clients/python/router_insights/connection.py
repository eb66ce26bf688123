"""Sending questions to the API over HTTP, once or again."""

import os
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tenacity import AsyncRetrying, Retrying

from router_insights import __version__
from router_insights.call import Answer, Call, decode, error_of
from router_insights.errors import ApiConnectionError, ApiTimeoutError, RouterInsightsError
from router_insights.http_library import httpx
from router_insights.retries import policy


@dataclass(frozen=True)
class Endpoint:
    """Where the API is and how it is asked. Raises ValueError that names the argument which is wrong."""

    base_url: str
    api_key: str = field(repr=False)
    timeout_seconds: float
    max_retries: int

    def __post_init__(self) -> None:
        if not self.base_url:
            raise ValueError("base_url: give the address of the API, or set INSIGHTS_API_URL")
        if not self.base_url.startswith(("http://", "https://")) or not _host(self.base_url):
            raise ValueError(f"base_url: must be like https://insights.example.com, not {self.base_url!r}")
        if not self.api_key:
            raise ValueError("api_key: give a key of the API, or set INSIGHTS_API_KEY")
        if not self.api_key.isascii() or not self.api_key.isprintable() or " " in self.api_key:
            raise ValueError("api_key: must be printable ASCII without spaces")
        if self.timeout_seconds <= 0:
            raise ValueError("timeout_seconds: must be above 0")
        if self.max_retries < 0:
            raise ValueError("max_retries: must not be below 0")

    @classmethod
    def of(cls, base_url: str | None, api_key: str | None, timeout_seconds: float, max_retries: int) -> "Endpoint":
        """What is None comes from the environment."""
        url = os.environ.get("INSIGHTS_API_URL", "") if base_url is None else base_url
        key = os.environ.get("INSIGHTS_API_KEY", "") if api_key is None else api_key
        return cls(url.rstrip("/"), key, timeout_seconds, max_retries)

    @property
    def options(self) -> dict[str, Any]:
        """Of the HTTP library's clients."""
        headers = {"Authorization": f"Bearer {self.api_key}", "User-Agent": f"router-insights-client/{__version__}"}
        return {"base_url": self.base_url, "headers": headers, "timeout": self.timeout_seconds}

    def failure(self, error: Exception) -> RouterInsightsError:
        """For people, of an error of the HTTP library."""
        if isinstance(error, httpx.TimeoutException):
            return ApiTimeoutError(f"{self.base_url} did not answer within {self.timeout_seconds:g} s")
        reason = str(error) or type(error).__name__
        if isinstance(error, httpx.ConnectError):
            return ApiConnectionError(f"{self.base_url} cannot be reached: {reason}")
        return ApiConnectionError(f"The connection to {self.base_url} broke: {reason}")


def _host(url: str) -> str:
    try:
        return str(httpx.URL(url).host)
    except httpx.InvalidURL:
        return ""


def _request(call: Call[Any]) -> dict[str, Any]:
    headers = {"Content-Type": call.content_type} if call.body is not None else {}
    return {
        "method": call.method,
        "url": call.path,
        "params": dict(call.parameters),
        "content": call.body,
        "headers": headers,
    }


class Connection:
    """A pool of connections, for any number of threads."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._http = httpx.Client(**endpoint.options)

    def send(self, call: Call[Answer]) -> Answer:
        """Raises ApiError, ApiConnectionError and UnexpectedAnswerError."""
        retrying = Retrying(**policy(self._endpoint.max_retries, call.may_repeat))
        answer: Answer = retrying(self._send_once, call)
        return answer

    def _send_once(self, call: Call[Answer]) -> Answer:
        try:
            response = self._http.request(**_request(call))
        except httpx.HTTPError as error:
            raise self._endpoint.failure(error) from error
        return call.read(response.status_code, response.headers, response.content)

    def stream(self, call: Call[Answer]) -> Iterator[Answer]:
        """The server-sent events of an answer, until the API ends it. Raises as `send` does, but asks only once."""
        try:
            with self._http.stream(**_request(call)) as response:
                if response.status_code != 200:
                    raise error_of(response.status_code, response.headers, response.read())
                for line in response.iter_lines():
                    yield from _event(line, call)
        except httpx.HTTPError as error:
            raise self._endpoint.failure(error) from error

    def close(self) -> None:
        self._http.close()


class AsyncConnection:
    """A pool of connections of one event loop."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._http = httpx.AsyncClient(**endpoint.options)

    async def send(self, call: Call[Answer]) -> Answer:
        """Raises ApiError, ApiConnectionError and UnexpectedAnswerError."""
        retrying = AsyncRetrying(**policy(self._endpoint.max_retries, call.may_repeat))
        answer: Answer = await retrying(self._send_once, call)
        return answer

    async def _send_once(self, call: Call[Answer]) -> Answer:
        try:
            response = await self._http.request(**_request(call))
        except httpx.HTTPError as error:
            raise self._endpoint.failure(error) from error
        return call.read(response.status_code, response.headers, response.content)

    async def stream(self, call: Call[Answer]) -> AsyncIterator[Answer]:
        """The server-sent events of an answer, until the API ends it. Raises as `send` does, but asks only once."""
        try:
            async with self._http.stream(**_request(call)) as response:
                if response.status_code != 200:
                    raise error_of(response.status_code, response.headers, await response.aread())
                async for line in response.aiter_lines():
                    for answer in _event(line, call):
                        yield answer
        except httpx.HTTPError as error:
            raise self._endpoint.failure(error) from error

    async def close(self) -> None:
        await self._http.aclose()


def _event(line: str, call: Call[Answer]) -> Iterable[Answer]:
    """What a line of a stream holds: the API writes each event on one line."""
    return [decode(line[len("data:") :], call.answer, call.path)] if line.startswith("data:") else []
