"""Price rows: a price and where it holds, compiled from the catalogue and the operator's entries to whole numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import ROUND_HALF_UP, Decimal
from functools import cached_property
from itertools import pairwise

from aggregator.cost_explanation import TOKEN_BUCKETS
from aggregator.times import END_OF_TIME, EPOCH
from ingest.pricing import catalogue
from ingest.pricing.catalogue import Listing
from ingest.pricing.operator_prices import FeeEntry, PriceEntry
from ingest.pricing.rate_card import Tier

# The event contract takes no timestamps outside of these.
FIRST_DATE = EPOCH.date()
LAST_DATE = END_OF_TIME.date()
MIDNIGHT = time(0)
DAY_US = 86_400_000_000
MILLION = 10**6
BOUNDS = ("since_us", "until_us", "day_from_us", "day_until_us", "above", "up_to")
# The fee is 1 + rate in millionths, the price of a request is in picodollars, a truth is 0 or 1. The price of a
# token is the sum of three whole numbers: of 10^-12, 10^-18 and 10^-24 dollars.
COLUMNS = (
    *BOUNDS,
    "fee_factor",
    "charges_reasoning",
    "per_request",
    *(f"{bucket}_{unit}" for bucket in TOKEN_BUCKETS for unit in ("pico", "atto", "yocto")),
)


@dataclass(frozen=True)
class PriceRow:
    """A price and where it holds: from `since_us` to before `until_us` (epoch microseconds), each day from
    `day_from_us` to before `day_until_us` (UTC), and for the input tokens that `tier` says."""

    since_us: int
    until_us: int
    day_from_us: int
    day_until_us: int
    tier: Tier
    fee_rate: Decimal

    @cached_property
    def numbers(self) -> tuple[int, ...]:
        """The values of `COLUMNS`."""
        rates = self.tier.rates
        return (
            *(self.since_us, self.until_us, self.day_from_us, self.day_until_us),
            *(self.tier.above, self.tier.up_to),
            fee_factor(self.fee_rate),
            int(self.tier.charges_reasoning),
            whole(rates.per_request, 12),
            *(number for bucket in TOKEN_BUCKETS for number in _per_token(getattr(rates, bucket))),
        )


def fee_factor(rate: Decimal) -> int:
    """1 + rate in millionths."""
    return MILLION + whole(rate, 6)


def whole(number: Decimal, places: int) -> int:
    """In units of the last of `places` decimal places, rounded half up."""
    return int(number.scaleb(places).to_integral_value(ROUND_HALF_UP))


def _per_token(per_million: Decimal) -> tuple[int, int, int]:
    """Exact up to 18 decimals, which is what the catalogue has at most."""
    pico, rest = divmod(whole(per_million, 18), MILLION**2)
    return pico, *divmod(rest, MILLION)


def compile_rows(
    listing: Listing | None, entries: Sequence[PriceEntry], fees: Sequence[FeeEntry], service_tier: str
) -> tuple[PriceRow, ...]:
    """Every price of a model, from the operator's entries (the one that counts most last) and the catalogue.

    Within a row nothing changes, so the price at its first moment is the price of all of it.
    """
    days = {day for entry in (*entries, *fees) for day in entry.dates}
    times: set[time] = set()
    if listing:
        days |= catalogue.change_dates(listing.model)
        times |= catalogue.change_times(listing.model)
    return tuple(
        PriceRow(_date_us(since), _date_us(until), _time_us(begin), end_us, tier, fee_rate_on(fees, since))
        for since, until in _periods(days)
        for begin, end_us in _spans(times)
        for tier in _tiers_at(entries, listing, datetime.combine(since, begin, UTC), service_tier)
    )


def _tiers_at(
    entries: Sequence[PriceEntry], listing: Listing | None, moment: datetime, service_tier: str
) -> tuple[Tier, ...]:
    entry = next((entry for entry in reversed(entries) if entry.holds_on(moment.date())), None)
    if entry:
        return entry.rate_card
    return catalogue.price_at(listing, moment, service_tier) if listing else ()


def fee_rate_on(fees: Sequence[FeeEntry], day: date) -> Decimal:
    """The fee of the entry that counts most of those that hold on `day`; 0 without one."""
    return next((fee.rate for fee in reversed(fees) if fee.holds_on(day)), Decimal(0))


def _periods(days: set[date]) -> list[tuple[date, date]]:
    between = sorted(day for day in days if FIRST_DATE < day < LAST_DATE)
    return list(pairwise([FIRST_DATE, *between, LAST_DATE]))


def _spans(times: set[time]) -> list[tuple[time, int]]:
    """The day cut at `times`: where each part begins and the microsecond of the day before which it ends."""
    begins = sorted(times | {MIDNIGHT})
    return list(zip(begins, [*(_time_us(begin) for begin in begins[1:]), DAY_US], strict=True))


def _date_us(day: date) -> int:
    return (day - FIRST_DATE).days * DAY_US


def _time_us(moment: time) -> int:
    since_midnight = datetime.combine(date.min, moment) - datetime.combine(date.min, MIDNIGHT)
    return since_midnight // timedelta(microseconds=1)
