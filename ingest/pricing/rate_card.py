"""A rate card: dollars per million tokens, by the size of the prompt."""

from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from urllib.parse import quote

# Dollars per million tokens, and per request. What 10^9 tokens cost at this rate and fee fits 64 bits of
# picodollars; the dearest model of the catalogue costs 600.
MAX_RATE = Decimal(1000)
MAX_FEE_RATE = Decimal(3)
# Above every token count of the event contract.
NO_LIMIT = 2**62
# The base tier holds above this many input tokens: from zero on.
BASE = -1


@dataclass(frozen=True)
class Rates:
    """Dollars per million tokens of each bucket, and dollars per request."""

    input: Decimal
    cached_input: Decimal
    cache_creation_input: Decimal
    output: Decimal
    per_request: Decimal = Decimal(0)


@dataclass(frozen=True)
class Tier:
    """The rates that hold when a request has more than `above` and at most `up_to` input tokens, cache
    reads and writes included. `price_id` says where they come from and what they are. `charges_reasoning`: thinking
    tokens have a price of their own, which is not among the rates (units.py)."""

    above: int
    up_to: int
    rates: Rates
    price_id: str
    charges_reasoning: bool = False


def word(text: str) -> str:
    """`text` without blanks, so that a price id can be taken apart again."""
    return quote(text, safe="/:*?@+,()[]")


def plain(number: Decimal) -> str:
    """2.50 -> 2.5, 1E+1 -> 10: one spelling for one number."""
    return f"{number.normalize():f}"


def _price_id(label: str, above: int, rates: Rates) -> str:
    parts = [label]
    if above != BASE:
        parts.append(f"above={above}")
    parts.append(f"input={plain(rates.input)}")
    parts.append(f"cached_input={plain(rates.cached_input)}")
    parts.append(f"cache_creation_input={plain(rates.cache_creation_input)}")
    parts.append(f"output={plain(rates.output)}")
    if rates.per_request:
        parts.append(f"per_request={plain(rates.per_request)}")
    return " ".join(parts)


def tiers(label: str, rates_above: dict[int, Rates], charges_reasoning: bool = False) -> tuple[Tier, ...]:
    """The whole range of input tokens, cut at the thresholds that `rates_above` names (`BASE` among them).

    The id of a tier holds its label and its rates, so that a row can be explained long after the price is
    gone from the catalogue or the operator's file.
    """
    borders = [*sorted(rates_above), NO_LIMIT]
    return tuple(
        Tier(above, up_to, rates_above[above], _price_id(label, above, rates_above[above]), charges_reasoning)
        for above, up_to in pairwise(borders)
    )
