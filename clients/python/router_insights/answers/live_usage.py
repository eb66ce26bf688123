"""Answers about the last hour, minute by minute."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

import msgspec

from router_insights.table import Table


class MinuteUsage(msgspec.Struct, frozen=True, kw_only=True):
    """The requests of the minute that began at `minute`. `cost` is dollars, without the requests of the three counts
    that have none: `unpriced` (no known price), `missing_usage` (succeeded, no usage), `failed_without_usage`."""

    minute: datetime
    requests: int
    errors: int
    unpriced: int
    missing_usage: int
    failed_without_usage: int
    input_tokens: int
    output_tokens: int
    cost: Decimal
    avg_duration_ms: float | None


class LiveUsage(Table, frozen=True, kw_only=True):
    """The minute that is not over yet, and the sixty before it, newest first."""

    as_of: datetime
    current: MinuteUsage
    minutes: list[MinuteUsage]

    @property
    def rows(self) -> Sequence[MinuteUsage]:
        return [self.current, *self.minutes]

    @property
    def row_type(self) -> type[MinuteUsage]:
        return MinuteUsage
