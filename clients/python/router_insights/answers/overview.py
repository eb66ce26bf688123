"""The answer of the overview. Latencies are seconds, costs dollars as Decimal. Lists are largest first."""

from decimal import Decimal

import msgspec

DatedCount = tuple[str, int]
DatedSeconds = tuple[str, float | None]


class OverviewPart(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What all parts of the overview have in common: names as Python writes them."""


class ChartInterval(OverviewPart, frozen=True, kw_only=True):
    """The width of a bucket of time."""

    interval: str
    bucket_size_ms: int
    bucket_minutes: int | None


class OutputShapeCounts(OverviewPart, frozen=True, kw_only=True):
    """Requests by the shape of their answer."""

    json: int
    tool_call: int
    plain_text: int


class BucketOfTime(OverviewPart, frozen=True, kw_only=True):
    """The requests of one bucket of time."""

    date: str
    date_label: str
    requests: int
    tokens: int
    input_tokens: int
    output_tokens: int
    cost: Decimal
    latency: float | None
    cached_tokens: int
    thinking_tokens: int
    trace_share: float | None
    status_counts: dict[str, int]
    output_shape_counts: OutputShapeCounts
    avg_turn_count: float | None
    avg_tool_call_count: float | None
    tool_call_count_p95: float | None = msgspec.field(name="toolCallCountP95")


class LatencyByDate(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds by bucket of time."""

    average_latency: dict[str, float | None]
    p50_latency: dict[str, float | None]
    p90_latency: dict[str, float | None]
    p95_latency: dict[str, float | None]


class LatencyOfOne(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds of one model, prompt or provider by bucket of time."""

    average_latency: list[DatedSeconds]
    p50_latency: list[DatedSeconds]
    p90_latency: list[DatedSeconds]
    p95_latency: list[DatedSeconds]


class PromptUse(OverviewPart, frozen=True, kw_only=True):
    prompt_id: str
    requests: int
    prompt_name: str | None


class ErrorTypeCount(OverviewPart, frozen=True, kw_only=True):
    error_type: str
    requests: int


class Share(OverviewPart, frozen=True, kw_only=True):
    """Requests, dollars and tokens of one provider, prompt or tag."""

    requests: int
    cost: Decimal
    tokens: int
    input_tokens: int
    output_tokens: int


class ProviderShare(Share, frozen=True, kw_only=True):
    provider: str


class PromptShare(Share, frozen=True, kw_only=True):
    prompt_id: str
    prompt_name: str | None


class TagShare(Share, frozen=True, kw_only=True):
    tag: str


class KeyCount(OverviewPart, frozen=True, kw_only=True):
    key: str
    requests: int


class ToolLatency(OverviewPart, frozen=True, kw_only=True):
    tool_name: str
    requests: int
    avg_latency_seconds: float | None
    min_latency_seconds: float | None
    max_latency_seconds: float | None


class ToolUse(OverviewPart, frozen=True, kw_only=True):
    name: str
    requests: int


class MetadataValue(OverviewPart, frozen=True, kw_only=True):
    key: str
    value: str
    label: str
    requests: int
    cost: Decimal


class Overview(OverviewPart, frozen=True, kw_only=True):
    """Totals, and the same over time, by model, provider, prompt and more; docs/analytics.md."""

    chart_interval: ChartInterval
    percentile_method: str
    average_latency: float | None
    total_cost: Decimal
    total_tokens: int
    total_requests: int
    total_cached_tokens: int
    total_thinking_tokens: int
    cache_token_ratio: float | None
    stats: list[BucketOfTime]
    most_used_models: list[tuple[str, int]]
    model_requests_by_day: dict[str, list[DatedCount]]
    prompt_template_requests_by_day: dict[str, list[DatedCount]]
    provider_requests_by_day: dict[str, list[DatedCount]]
    most_used_prompt_templates: list[PromptUse]
    latency: LatencyByDate
    latency_by_model_by_day: dict[str, LatencyOfOne]
    latency_by_prompt_template_by_day: dict[str, LatencyOfOne]
    latency_by_provider_by_day: dict[str, LatencyOfOne]
    error_types: list[ErrorTypeCount]
    provider_breakdown: list[ProviderShare]
    prompt_breakdown: list[PromptShare]
    tags_breakdown: list[TagShare]
    metadata_keys_top: list[KeyCount]
    output_keys_top: list[KeyCount]
    tools_latency: list[ToolLatency]
    tools_usage_bars: list[ToolUse]
    metadata_value_breakdown: list[MetadataValue]
