"""The sentence that the command line prints for an error."""

import re

from aiokafka.errors import KafkaError
from clickhouse_connect.driver.exceptions import ClickHouseError
from pydantic import ValidationError
from pydantic_settings import SettingsError

from aggregator.clickhouse.client import NOT_MIGRATED_CODES, DatabaseError
from aggregator.errors import InsightsError
from router_insights.errors import (
    ApiConnectionError,
    AuthenticationError,
    DeadlineExceededError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    RouterInsightsError,
    UnavailableError,
)

# What a script can tell apart; docs/clients.md has the list. 2 is also what a wrong option ends with.
EXIT_CODES: dict[type[Exception], int] = {
    InvalidRequestError: 2,
    AuthenticationError: 3,
    PermissionDeniedError: 3,
    NotFoundError: 4,
    RateLimitedError: 5,
    UnavailableError: 5,
    DeadlineExceededError: 5,
    ApiConnectionError: 5,
}


def exit_code_for(error: Exception) -> int:
    """2 wrong question, 3 not allowed, 4 not found, 5 try again later, else 1."""
    return next((code for kind, code in EXIT_CODES.items() if isinstance(error, kind)), 1)


def sentence_for(error: Exception) -> str | None:
    """None for an error that the program did not expect: a fault, which deserves its traceback."""
    if isinstance(error, InsightsError | SettingsError | RouterInsightsError):
        return str(error)
    if isinstance(error, ValidationError):
        return _about_settings(error)
    if isinstance(error, ClickHouseError) and "chdb engine" in str(error):
        return _about_engine(str(error))
    if isinstance(error, DatabaseError) and error.code in NOT_MIGRATED_CODES:
        return f"the database lacks what this asks for: run insights migrate first ({_first_line(error)})"
    if isinstance(error, ClickHouseError):
        return f"ClickHouse refused: {_first_line(error)}"
    if isinstance(error, KafkaError):
        return f"Kafka refused: {str(error) or type(error).__name__}"
    return None


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


def _about_engine(message: str) -> str:
    """The cause out of the engine's message; the rest of it is layers and a stack trace."""
    opening = message.split(":")[0]
    cause = re.search(r"filesystem error: (.*?), Stack trace", message)
    if cause:
        return f"{opening}: {cause[1]}"
    return (
        f"{opening}: another process, perhaps an insights up, has it open; where it runs, INSIGHTS_DATA_DIR leads to it"
    )


def _about_settings(error: ValidationError) -> str | None:
    """Names the variables, but not their values, which may be secrets."""
    if not error.title.endswith("Settings"):
        return None
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    # A problem of several variables together has no location; its message names them.
    return "; ".join(
        f"INSIGHTS_{'.'.join(map(str, item['loc'])).upper()}: ".removeprefix("INSIGHTS_: ")
        + item["msg"].removeprefix("Value error, ")
        for item in problems
    )
