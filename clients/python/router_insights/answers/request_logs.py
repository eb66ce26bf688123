"""Answers about request logs. Money is dollars as Decimal, times are aware and in UTC."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec

from router_insights.table import Table


class RequestLog(msgspec.Struct, frozen=True, kw_only=True):
    """One request. Text is "" when absent; numbers, costs and objects are None when unknown.

    docs/api.md, "The fields of a log", says what each means.
    """

    id: str
    request_id: str
    timestamp: datetime
    created_at: datetime

    user_id: str
    api_key_id: str
    api_key_prefix: str
    api_key_hash: str
    api_key_address: str
    api_key_name: str
    provider: str
    model_name: str

    status: str
    status_code: int | None
    is_error: bool
    error_type: str
    error_message: str

    input_tokens: int | None
    output_tokens: int | None
    cached_input_tokens: int | None
    cache_creation_input_tokens: int | None
    thinking_tokens: int | None
    usage: dict[str, Any] | None
    usage_source: str
    service_tier: str

    duration_ms: int | None
    upstream_duration_ms: int | None
    time_to_first_token_ms: int | None

    cost: Decimal | None
    cost_before_fee: Decimal | None
    input_tokens_cost_microdollar: int | None
    input_tokens_cost: Decimal | None
    input_tokens_cost_before_fee: Decimal | None
    cached_input_tokens_cost: Decimal | None
    cached_input_tokens_cost_before_fee: Decimal | None
    cache_creation_input_tokens_cost: Decimal | None
    cache_creation_input_tokens_cost_before_fee: Decimal | None
    output_tokens_cost_microdollar: int | None
    output_tokens_cost: Decimal | None
    output_tokens_cost_before_fee: Decimal | None
    other_cost: Decimal | None
    other_cost_before_fee: Decimal | None
    fee_rate: Decimal
    price_id: str
    price_version: str

    request_headers: dict[str, Any] | None
    request_body: dict[str, Any] | None
    response_headers: dict[str, Any] | None
    response_body: dict[str, Any] | None
    response_body_raw: str
    llm_parameters: dict[str, Any] | None
    input_variables: dict[str, Any] | None

    tags: list[str]
    metadata: dict[str, Any] | None
    prompt_id: str
    prompt_version_number: int | None
    prompt_name: str
    tool_names: list[str]
    turn_count: int | None
    tool_call_count: int | None
    session_id: str
    trace_id: str

    storage_location: str
    storage_row_index: int | None
    storage_batch_id: str
    use_object_storage: bool


class CostCharge(msgspec.Struct, frozen=True, kw_only=True):
    """quantity x usd / per = amount_usd, exactly."""

    bucket: str
    unit: str
    quantity: Decimal
    usd: Decimal
    per: int
    amount_usd: Decimal


class CostOfBucket(msgspec.Struct, frozen=True, kw_only=True):
    """The charges of a bucket, rounded to twelve decimals, before and after the fee."""

    bucket: str
    cost_before_fee: Decimal
    cost: Decimal


class CostExplanation(msgspec.Struct, frozen=True, kw_only=True):
    """How a cost came about; docs/pricing.md."""

    price: str
    price_version: str
    conditions: dict[str, str]
    charges: list[CostCharge]
    buckets: list[CostOfBucket]
    rounding_usd: Decimal
    fee_rate: Decimal
    cost_before_fee: Decimal
    cost: Decimal


class ExplainedLog(RequestLog, frozen=True, kw_only=True):
    """One request, and why it costs what it costs, or why it has no cost (`no_price`, `no_usage`,
    `failed_without_usage`)."""

    cost_explanation: CostExplanation | None
    unpriced_reason: str | None


class RequestLogPage(Table, frozen=True, kw_only=True):
    """A page of logs. `next_page_token` is "" on the last one."""

    logs: list[RequestLog]
    next_page_token: str
    total_count: int
    total_count_is_approximate: bool

    @property
    def rows(self) -> Sequence[RequestLog]:
        return self.logs

    @property
    def row_type(self) -> type[RequestLog]:
        return RequestLog


class RequestLogStat(msgspec.Struct, frozen=True, kw_only=True):
    """The requests of one group. Sums leave unknown values out; the three counts after `error_count` say how many
    requests `cost` lacks, and why.

    `value` is the metric that was asked for: dollars as Decimal for `cost`, else a number.
    """

    group: str
    count: int
    error_count: int
    unpriced_count: int
    missing_usage_count: int
    failed_without_usage_count: int
    input_tokens: int
    output_tokens: int
    cached_input_tokens: int
    cost: Decimal
    avg_duration_ms: float | None
    p50_duration_ms: float | None
    p95_duration_ms: float | None
    p99_duration_ms: float | None
    value: int | float | Decimal | None


class RequestLogStats(Table, frozen=True, kw_only=True):
    """Counts, tokens, cost and latency per group, and of all. `truncated`: there are more groups than `limit`."""

    stats: list[RequestLogStat]
    truncated: bool
    total_count: int
    total_input_tokens: int
    total_output_tokens: int
    total_cost: Decimal
    avg_duration_ms: float | None
    error_count: int
    unpriced_count: int
    missing_usage_count: int
    failed_without_usage_count: int

    @property
    def rows(self) -> Sequence[RequestLogStat]:
        return self.stats

    @property
    def row_type(self) -> type[RequestLogStat]:
        return RequestLogStat
