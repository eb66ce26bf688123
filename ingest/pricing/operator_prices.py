"""The operator's own prices and fees, entry by entry."""

from datetime import date
from decimal import Decimal
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from ingest.pricing.rate_card import BASE, MAX_FEE_RATE, MAX_RATE, Rates, Tier, tiers, word

Rate = Annotated[Decimal, Field(ge=0, le=MAX_RATE, decimal_places=12)]
FeeRate = Annotated[Decimal, Field(ge=-1, le=MAX_FEE_RATE, decimal_places=6)]
Id = Annotated[str, StringConstraints(min_length=1)]
Pattern = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True, to_lower=True)]


def _exactness(pattern: str | None) -> int:
    if pattern is None:
        return 0
    return 1 if {"*", "?"} & set(pattern) else 2


def _matches(pattern: str, text: str) -> bool:
    # Square brackets are part of a name (claude-sonnet-4-5[1m]), not a pattern.
    return fnmatchcase(text, pattern.replace("[", "[[]"))


class Entry(BaseModel):
    """Since when, until when (days in UTC, the last one excluded) and for whom something holds: by default
    always and for everybody."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    since: date | None = None
    until: date | None = None
    user_id: Id | None = None
    api_key_id: Id | None = None

    @model_validator(mode="after")
    def _ends_after_it_starts(self) -> Self:
        if self.since and self.until and self.until <= self.since:
            raise ValueError(f"until ({self.until}) must be later than since ({self.since})")
        return self

    def holds_on(self, day: date) -> bool:
        return (self.since or date.min) <= day < (self.until or date.max)

    @property
    def dates(self) -> set[date]:
        return {day for day in (self.since, self.until) if day}

    @property
    def rank(self) -> tuple[Any, ...]:
        """Of several that hold the greatest counts: an api key's before a user's before everybody's, then the
        one that started last."""
        return self.api_key_id is not None, self.user_id is not None, self.since or date.min


class TokenRates(BaseModel):
    """Dollars per million tokens. Cache reads and writes cost what other input costs unless they are given."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: Rate
    output: Rate
    cached_input: Rate | None = None
    cache_creation_input: Rate | None = None

    def rates(self, per_request: Decimal) -> Rates:
        return Rates(
            input=self.input,
            cached_input=self.input if self.cached_input is None else self.cached_input,
            cache_creation_input=self.input if self.cache_creation_input is None else self.cache_creation_input,
            output=self.output,
            per_request=per_request,
        )


class TierEntry(TokenRates):
    """The rates of all tokens of a request that has more input tokens than this, cached ones included."""

    above_input_tokens: Annotated[int, Field(ge=0)]


class PriceEntry(Entry, TokenRates):
    """What a model costs. `provider` and `model` are names or, with `*` and `?`, patterns; case does not count.
    A price of 0 is free."""

    provider: Pattern | None = None
    model: Pattern
    per_request: Rate = Decimal(0)
    tiers: list[TierEntry] = []

    @field_validator("tiers")
    @classmethod
    def _thresholds_differ(cls, value: list[TierEntry]) -> list[TierEntry]:
        if len({tier.above_input_tokens for tier in value}) < len(value):
            raise ValueError("two tiers have the same above_input_tokens")
        return value

    @property
    def rank(self) -> tuple[Any, ...]:
        """As of Entry; between scope and start, a name before a pattern: the model's, then the provider's."""
        *scope, since = super().rank
        return *scope, _exactness(self.model), _exactness(self.provider), since

    def is_about(self, providers: set[str], models: set[str]) -> bool:
        """Whether it means one of these models of one of these providers."""
        return any(_matches(self.model, model) for model in models) and (
            self.provider is None or any(_matches(self.provider, provider) for provider in providers)
        )

    @cached_property
    def rate_card(self) -> tuple[Tier, ...]:
        rates_above = {tier.above_input_tokens: tier.rates(self.per_request) for tier in self.tiers}
        return tiers(self._label(), rates_above | {BASE: self.rates(self.per_request)})

    def _label(self) -> str:
        conditions = {name: getattr(self, name) for name in Entry.model_fields}
        name = f"operator:{word(self.provider or '*')}/{word(self.model)}"
        return " ".join([name, *(f"{key}={word(str(value))}" for key, value in conditions.items() if value)])


class FeeEntry(Entry):
    """What is added to the provider's price: 0.05 is five percent. Negative is a discount."""

    rate: FeeRate


class PriceFile(BaseModel):
    """The whole file. Where two entries have the same rank the later one counts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prices: list[PriceEntry] = []
    fees: list[FeeEntry] = []

    @property
    def user_ids(self) -> frozenset[str]:
        return frozenset(entry.user_id for entry in (*self.prices, *self.fees) if entry.user_id)

    @property
    def api_key_ids(self) -> frozenset[str]:
        return frozenset(entry.api_key_id for entry in (*self.prices, *self.fees) if entry.api_key_id)
