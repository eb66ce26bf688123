"""When a question is asked again: only after 429 and 503, a few times, with growing pauses."""

from collections.abc import Callable
from typing import Any

from tenacity import RetryCallState, stop_after_attempt, wait_random_exponential
from tenacity import retry_if_exception as retry_if

from router_insights.errors import RateLimitedError, UnavailableError

# The API names at most a minute; whoever names more is not waited for.
MAX_WAIT_SECONDS = 60.0
FIRST_PAUSES = wait_random_exponential(multiplier=0.5, max=8.0)


def policy(max_retries: int, may_repeat: bool) -> dict[str, Any]:
    """What tenacity is to do, as its arguments. With `may_repeat` False only a 429 is asked again."""
    return {
        "stop": stop_after_attempt(max_retries + 1),
        "wait": _pause_seconds,
        "retry": retry_if(_is_worth_it(may_repeat)),
        "reraise": True,
    }


def _is_worth_it(may_repeat: bool) -> Callable[[BaseException], bool]:
    def judge(error: BaseException) -> bool:
        if not isinstance(error, RateLimitedError | UnavailableError):
            return False
        if isinstance(error, UnavailableError) and (not may_repeat or error.code == "resource_exhausted"):
            return False
        return error.retry_after is None or error.retry_after <= MAX_WAIT_SECONDS

    return judge


def _pause_seconds(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome is not None else None
    retry_after = error.retry_after if isinstance(error, RateLimitedError | UnavailableError) else None
    return FIRST_PAUSES(state) if retry_after is None else retry_after
