"""All prices in force: the catalogue's and, before them, the operator's own, compiled to rows to join with."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from ingest.pricing import catalogue
from ingest.pricing.offer import Tier

FIRST_DATE = date(1970, 1, 1)
LAST_DATE = date(2100, 1, 1)
MIDNIGHT = time(0)
DAY_US = 86_400_000_000
# Names come from outside, so what is remembered about them is bounded.
MAX_REMEMBERED_KEYS = 65_536


class PriceKey(NamedTuple):
    """What prices depend on besides time and size. `user_id` and `api_key_id` are "" unless the operator's
    file names them."""

    provider: str
    model_name: str
    user_id: str = ""
    api_key_id: str = ""


@dataclass(frozen=True)
class Cell:
    """One price and where it holds: from `since_us` to before `until_us` (epoch microseconds), each day from
    `day_from_us` to before `day_until_us` (UTC), above `tier.above` up to `tier.up_to` input tokens."""

    since_us: int
    until_us: int
    day_from_us: int
    day_until_us: int
    tier: Tier
    fee_rate: Decimal


def _date_us(day: date) -> int:
    return (day - FIRST_DATE).days * DAY_US


def _time_us(moment: time) -> int:
    return (
        timedelta(hours=moment.hour, minutes=moment.minute, seconds=moment.second) // timedelta(microseconds=1)
        + moment.microsecond
    )


class PriceBook:
    """The prices in force. Immutable: a change of prices is a new book.

    `version` names the prices: the catalogue's version and the digest of the operator's file.
    """

    def __init__(self) -> None:
        self.version = catalogue.VERSION
        self.user_ids: frozenset[str] = frozenset()
        self.api_key_ids: frozenset[str] = frozenset()
        self.cells = lru_cache(MAX_REMEMBERED_KEYS)(self._cells)

    def _cells(self, key: PriceKey) -> tuple[Cell, ...]:
        listing = catalogue.find(key.provider, key.model_name)
        if listing is None:
            return ()
        dates = sorted({FIRST_DATE, LAST_DATE, *catalogue.change_dates(listing.model)})
        times = sorted({MIDNIGHT, *catalogue.change_times(listing.model)})
        spans = list(pairwise([*(_time_us(moment) for moment in times), DAY_US]))
        return tuple(
            Cell(_date_us(since), _date_us(until), *span, tier, Decimal(0))
            for since, until in pairwise(dates)
            for moment, span in zip(times, spans, strict=True)
            for tier in catalogue.price_at(listing, datetime.combine(since, moment, UTC))
        )
