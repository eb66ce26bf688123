"""A price and where it holds, also as the whole numbers that the join and the arithmetic need."""

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from functools import cached_property

from aggregator.costs import TOKEN_BUCKETS
from ingest.pricing.rate_card import Tier

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
