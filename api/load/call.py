"""One request, from its first byte to its answer."""

import time
import uuid

from api.errors import NOT_IN_TIME, ApiError


class CallOverError(ApiError):
    """Nobody waits for the answer any more: the request's time is over, or the client has gone."""

    def __init__(self) -> None:
        super().__init__(504, NOT_IN_TIME)


class ReadCall:
    """How long a request may still take, and whether anybody waits for its answer.

    Every query of a request, however many, has the same end. `id` marks them in ClickHouse (`log_comment`). It is ours:
    an `X-Request-ID` may be the same for the requests of two callers.
    """

    def __init__(self, seconds: float) -> None:
        self.id = uuid.uuid4().hex
        self.is_over = False
        self._ends_at = time.monotonic() + seconds

    def end_within(self, seconds: float) -> None:
        """The client waits no longer than that."""
        self._ends_at = min(self._ends_at, time.monotonic() + seconds)

    def remaining_seconds(self) -> float:
        """More than 0. Raises CallOverError when there is no time left."""
        left = self._ends_at - time.monotonic()
        if self.is_over or left <= 0:
            raise CallOverError
        return left
