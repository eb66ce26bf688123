"""Rate limits of keys, and of addresses that send wrong keys. Counted in memory, by each process of the API."""

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from limits import RateLimitItem, parse_many
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter

from api import metrics
from api.errors import ApiError

# Each asks ClickHouse every two seconds, for as long as it is open.
MAX_STREAMS = 20


class RateLimits:
    """Limits are in the notation of the library, such as `600/minute` or `50/second;10000/hour`; empty for none.

    `endpoints` are further limits, by the name of the endpoint.
    """

    def __init__(self, requests: str, wrong_keys: str, endpoints: Mapping[str, str]) -> None:
        self._limiter = FixedWindowRateLimiter(MemoryStorage())
        self._requests = parse_many(requests) if requests else []
        self._wrong_keys = parse_many(wrong_keys) if wrong_keys else []
        self._streams: Counter[str] = Counter()
        self._endpoints = {name: parse_many(limit) if limit else [] for name, limit in endpoints.items()}

    def check_address(self, address: str) -> None:
        """Raises ApiError 429 for an address that has sent too many wrong keys."""
        for limit in self._wrong_keys:
            if not self._limiter.test(limit, "wrong-key", address):
                metrics.RATE_LIMITED.labels("wrong_keys").inc()
                raise self._refused(limit, "Too many wrong keys from this address", "wrong-key", address)

    def count_wrong_key(self, address: str) -> None:
        metrics.WRONG_KEYS.inc()
        for limit in self._wrong_keys:
            self._limiter.hit(limit, "wrong-key", address)

    def count_request(self, caller: str) -> None:
        """Raises ApiError 429 when the caller has used up its requests."""
        for limit in self._requests:
            if not self._limiter.hit(limit, "key", caller):
                metrics.RATE_LIMITED.labels("requests").inc()
                raise self._refused(limit, f"This key may send {limit}", "key", caller)

    def count_endpoint(self, endpoint: str, caller: str) -> None:
        """Raises ApiError 429 when the caller has used up its requests to this endpoint."""
        for limit in self._endpoints[endpoint]:
            if not self._limiter.hit(limit, endpoint, caller):
                metrics.RATE_LIMITED.labels(endpoint).inc()
                # What clients of this API know: the wait is in Retry-After.
                raise ApiError(
                    429,
                    "Rate limit exceeded. Please retry later.",
                    headers={"Retry-After": str(self._wait_seconds(limit, endpoint, caller))},
                )

    @contextmanager
    def open_stream(self, caller: str) -> Iterator[None]:
        """Counts a stream while it is open; called on the event loop only. Raises ApiError 429 for one too many."""
        if self._streams[caller] >= MAX_STREAMS:
            metrics.RATE_LIMITED.labels("streams").inc()
            message = f"This key has {MAX_STREAMS} streams open, which is the most it may have; close one first."
            raise ApiError(429, message, headers={"Retry-After": "1"})
        self._streams[caller] += 1
        try:
            yield
        finally:
            self._streams[caller] -= 1

    def _wait_seconds(self, limit: RateLimitItem, *identifiers: str) -> int:
        reset_at = self._limiter.get_window_stats(limit, *identifiers).reset_time
        return max(1, math.ceil(reset_at - time.time()))

    def _refused(self, limit: RateLimitItem, message: str, *identifiers: str) -> ApiError:
        seconds = str(self._wait_seconds(limit, *identifiers))
        return ApiError(429, f"{message}; try again in {seconds} s.", headers={"Retry-After": seconds})
