"""Pieces of SQL that every query is put together from: conditions, moments, ranges of time, and bound values."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any
from urllib.parse import quote

from aggregator.times import Span, within_bounds

# ClickHouse bounds the length of one bound value, and of all of them in a URL, by default.
MAX_PARAMETER_BYTES = 60_000
MAX_PARAMETERS_BYTES = 900_000


class ValuesTooLargeError(ValueError):
    """The bound values are more than ClickHouse takes in one query."""


def ascii_lower(text: str) -> str:
    """As ClickHouse's lower(): ASCII letters only."""
    return text.encode().lower().decode()


def all_of(*conditions: str) -> str:
    """The conditions joined by AND. An empty text is no condition, and `1` is what is left of none."""
    return " AND ".join(condition for condition in conditions if condition) or "1"


def instant(moment: datetime) -> str:
    """A moment, to the microsecond. One that no stored time reaches is moved to the nearest that some may have.

    It is written into the SQL as a whole number, so it can stand where ClickHouse takes no bound values.
    """
    return f"fromUnixTimestamp64Micro(toInt64({within_bounds(moment)}), 'UTC')"


def instants(name: str) -> str:
    """A set of moments for IN, bound as `name`: an array of microseconds since 1970."""
    return f"(SELECT fromUnixTimestamp64Micro(arrayJoin({{{name}:Array(Int64)}}), 'UTC'))"


def time_range(column: str, span: Span) -> str:
    """Whether the column lies in the span; empty where the span is unbounded.

    These are bare comparisons, since only they let ClickHouse use the primary key.
    """
    terms = []
    if span.start is not None:
        terms.append(f"{column} >= {instant(span.start)}")
    if span.end is not None:
        terms.append(f"{column} < {instant(span.end)}")
    return " AND ".join(terms)


def text_of(value: str | int | float | bool) -> str:
    """A scalar of free-form JSON as ClickHouse writes it as text: 42, 42.0 and "42" are the same, so are true and
    "true". What ingest stores and what filters ask for both go through here."""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, float):
        return str(value)
    if value == 0:
        return "0"
    if 1e-6 <= abs(value) < 1e21:
        plain = f"{Decimal(repr(value)):f}"
        return plain.rstrip("0").rstrip(".") if "." in plain else plain
    digits, _, exponent = repr(value).partition("e")
    return f"{digits.removesuffix('.0')}e{int(exponent)}"


@dataclass
class Binder:
    """Collects the bound values of one statement, and names them `p0`, `p1`, ...

    A statement has one Binder, or continues that of a part which was compiled before (`Condition.binder`): then no two
    values have the same name. Statements that are constants name their values with words.
    """

    parameters: dict[str, Any] = field(default_factory=dict)
    size_bytes: int = 0

    def bind(self, value: Any, type_name: str) -> str:
        """The placeholder. Raises ValuesTooLargeError."""
        name = f"p{len(self.parameters)}"
        self.parameters[name] = value
        self.size_bytes += len(name) + 8 + _size_in_url(value)
        if self.size_bytes > MAX_PARAMETERS_BYTES:
            raise ValuesTooLargeError("the values are too many or too long together")
        return f"{{{name}:{type_name}}}"

    def text(self, value: str) -> str:
        return self.bind(value, "String")

    def texts(self, values: Sequence[str]) -> str:
        """One array, bound in pieces that ClickHouse takes."""
        pieces: list[list[str]] = [[]]
        room = MAX_PARAMETER_BYTES
        for value in values:
            size = len(value.encode()) + 3
            if size > room and pieces[-1]:
                pieces.append([])
                room = MAX_PARAMETER_BYTES
            pieces[-1].append(value)
            room -= size
        bound = [self.bind(piece, "Array(String)") for piece in pieces]
        return bound[0] if len(bound) == 1 else f"arrayConcat({', '.join(bound)})"


def _size_in_url(value: Any) -> int:
    if isinstance(value, list):
        return sum(_size_in_url(item) + 9 for item in value)
    return len(quote(value, safe="")) if isinstance(value, str) else 24
