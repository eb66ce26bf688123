"""All prices in force: the catalogue's and, before them, the operator's own, compiled to price rows."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import date, datetime
from decimal import Decimal
from functools import lru_cache
from itertools import product
from typing import NamedTuple, TypeVar

from ingest.pricing import catalogue
from ingest.pricing.catalogue import Listing
from ingest.pricing.operator_prices import FeeEntry, PriceEntry, PriceFile
from ingest.pricing.price_row import PriceRow, compile_rows, fee_rate_on
from ingest.pricing.units import UnitCost, UnitQuantities, unit_cost

# Names come from outside, so what is remembered about them is bounded.
MAX_REMEMBERED_KEYS = 16_384
NO_FILE = PriceFile()

AnyEntry = TypeVar("AnyEntry", PriceEntry, FeeEntry)
Scoped = dict[tuple[str | None, str | None], list[AnyEntry]]


class PriceKey(NamedTuple):
    """What a price depends on besides time and size. `user_id` and `api_key_id` are "" unless the operator
    has prices or fees for them, `service_tier` unless some model of the catalogue has prices for it."""

    provider: str
    model_name: str
    user_id: str = ""
    api_key_id: str = ""
    service_tier: str = ""


class PriceBook:
    """The prices in force. Immutable: a change of prices is a new book.

    `version` names them: the catalogue's version and the digest of the operator's file. `user_ids` and
    `api_key_ids` are those that the file names.
    """

    def __init__(self, operator: PriceFile = NO_FILE, version: str = catalogue.VERSION) -> None:
        self.version = version
        self.user_ids = operator.user_ids
        self.api_key_ids = operator.api_key_ids
        self._prices = _by_scope(operator.prices)
        self._fees = _by_scope(operator.fees)
        self._remembered = lru_cache(MAX_REMEMBERED_KEYS)(self._compile)

    def current(self) -> "PriceBook":
        """Itself. A `ReloadingPriceBook` returns the newest book here."""
        return self

    def price_rows(self, key: PriceKey) -> tuple[PriceRow, ...]:
        """Every price of a key. No two rows overlap, and where there is none the price is not known."""
        return self._remembered(key)

    def _compile(self, key: PriceKey) -> tuple[PriceRow, ...]:
        listing = catalogue.find(key.provider, key.model_name)
        return compile_rows(listing, self._entries_for(key, listing), _in_scope(self._fees, key), key.service_tier)

    def unit_cost(self, key: PriceKey, moment: datetime, usage: UnitQuantities) -> UnitCost | None:
        """The catalogue's cost of usage that tokens alone do not price; None if it has none. An operator's own price
        comes before it, and the caller looks at that."""
        listing = catalogue.find(key.provider, key.model_name)
        return unit_cost(listing, moment, key.service_tier, usage) if listing else None

    def fee_rate(self, key: PriceKey, day: date) -> Decimal:
        return fee_rate_on(_in_scope(self._fees, key), day)

    def _entries_for(self, key: PriceKey, listing: Listing | None) -> list[PriceEntry]:
        """The operator's entries about a key, the one that counts most last."""
        named = list(catalogue.spellings(key.provider, key.model_name))
        if listing:
            named.append((listing.provider, listing.model.id.lower()))
        providers, models = {provider for provider, _ in named}, {model for _, model in named}
        return [entry for entry in _in_scope(self._prices, key) if entry.is_about(providers, models)]


def _by_scope(entries: Iterable[AnyEntry]) -> Scoped[AnyEntry]:
    scoped: Scoped[AnyEntry] = defaultdict(list)
    for entry in entries:
        scoped[entry.user_id, entry.api_key_id].append(entry)
    return scoped


def _in_scope(scoped: Scoped[AnyEntry], key: PriceKey) -> list[AnyEntry]:
    """The entries for a key's user and api key, for each and for everybody; the one that counts most last."""
    scopes = product((None, key.user_id), (None, key.api_key_id))
    entries = (entry for scope in scopes for entry in scoped.get(scope, ()))
    return sorted(entries, key=lambda entry: entry.rank)
