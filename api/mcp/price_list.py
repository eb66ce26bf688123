"""The port to the prices of models. The API does not know the price book; `cli` passes an adapter to `create_app`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Protocol


class PricesUnavailableError(Exception):
    """The operator's file of prices cannot be read; the message says why."""


@dataclass(frozen=True)
class ModelPrice:
    """What one model costs for prompts of more than `above` input tokens (-1 for any), at one moment.

    `rates` are dollars per million tokens, by bucket. `fee_rate` is added to them: 0.05 is five percent.
    """

    price: str
    price_version: str
    above: int
    rates: dict[str, Decimal]
    usd_per_request: Decimal
    fee_rate: Decimal


class PriceList(Protocol):
    def prices_of(self, model: str, at: datetime, user_id: str, api_key_id: str) -> Sequence[ModelPrice]:
        """The prices of a model, as `provider/model` or as the gateway writes it, for requests of this user and key
        ("" for anybody); none where no price per token is known. Raises PricesUnavailableError."""
        ...
