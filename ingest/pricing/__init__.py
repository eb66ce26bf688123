"""What a request costs, exactly: the catalogue's prices and the operator's own, joined with a batch of events."""

from ingest.pricing.bill import PRICED_SCHEMA, price_events
from ingest.pricing.book import PriceBook, PriceKey
from ingest.pricing.pricefile import PriceFileError, load
from ingest.pricing.watch import PriceWatch

__all__ = [
    "PRICED_SCHEMA",
    "PriceBook",
    "PriceFileError",
    "PriceKey",
    "PriceWatch",
    "load",
    "price_events",
]
