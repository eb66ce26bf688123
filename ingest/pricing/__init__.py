"""What a request costs, exactly: the catalogue's prices and the operator's own, joined with a batch of events."""

from ingest.pricing.bill import PRICED_SCHEMA, price_events
from ingest.pricing.book import PriceBook, PriceKey
from ingest.pricing.explanation import Charge, Explanation, explain
from ingest.pricing.pricefile import PriceFileError, load
from ingest.pricing.watch import PriceWatch

__all__ = [
    "PRICED_SCHEMA",
    "Charge",
    "Explanation",
    "PriceBook",
    "PriceFileError",
    "PriceKey",
    "PriceWatch",
    "explain",
    "load",
    "price_events",
]
