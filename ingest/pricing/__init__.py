"""What a request costs, exactly: the catalogue's prices and the operator's own, joined with a batch of events."""

from ingest.pricing.operator_file import PriceFileError, load
from ingest.pricing.price_book import PriceBook, PriceKey
from ingest.pricing.rating import PRICED_SCHEMA, price_events
from ingest.pricing.reload import ReloadingPriceBook

__all__ = [
    "PRICED_SCHEMA",
    "PriceBook",
    "PriceFileError",
    "PriceKey",
    "ReloadingPriceBook",
    "load",
    "price_events",
]
