"""What `POST .../requests/analytics` is answered with. Latencies are seconds, costs dollars."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from api.analytics.charts.schemas import PERCENTILE_METHOD, PercentileMethod

Dated = list[tuple[str, int]]
DatedSeconds = list[tuple[str, float | None]]

LATENCIES = ("average_latency", "p50_latency", "p90_latency", "p95_latency")
EXAMPLE: dict[str, Any] = {
    "success": True,
    "chartInterval": {"interval": "day", "bucketSizeMs": 86400000, "bucketMinutes": None},
    "percentileMethod": "interpolated",
    "averageLatency": 2.5,
    "totalCost": 0.15,
    "totalTokens": 600,
    "totalRequests": 1,
    "totalCachedTokens": 0,
    "totalThinkingTokens": 0,
    "cacheTokenRatio": 0.0,
    "stats": [
        {
            "date": "2026-01-31",
            "dateLabel": "2026-01-31",
            "requests": 1,
            "tokens": 600,
            "inputTokens": 400,
            "outputTokens": 200,
            "cost": 0.15,
            "latency": 2.5,
            "cachedTokens": 0,
            "thinkingTokens": 0,
            "traceShare": 0.0,
            "statusCounts": {"success": 1},
            "outputShapeCounts": {"json": 0, "toolCall": 0, "plainText": 1},
            "avgTurnCount": 1.0,
            "avgToolCallCount": None,
            "toolCallCountP95": None,
        }
    ],
    "mostUsedModels": [["gpt-5-mini", 1]],
    "modelRequestsByDay": {"gpt-5-mini": [["2026-01-31", 1]]},
    "promptTemplateRequestsByDay": {},
    "providerRequestsByDay": {"openai": [["2026-01-31", 1]]},
    "mostUsedPromptTemplates": [],
    "latency": {name: {"2026-01-31": 2.5} for name in LATENCIES},
    "latencyByModelByDay": {"gpt-5-mini": {name: [["2026-01-31", 2.5]] for name in LATENCIES}},
    "latencyByPromptTemplateByDay": {},
    "latencyByProviderByDay": {"openai": {name: [["2026-01-31", 2.5]] for name in LATENCIES}},
    "errorTypes": [],
    "providerBreakdown": [
        {"provider": "openai", "requests": 1, "cost": 0.15, "tokens": 600, "inputTokens": 400, "outputTokens": 200}
    ],
    "promptBreakdown": [],
    "tagsBreakdown": [],
    "metadataKeysTop": [{"key": "team", "requests": 1}],
    "outputKeysTop": [],
    "toolsLatency": [],
    "toolsUsageBars": [],
    "metadataValueBreakdown": [
        {"key": "team", "value": "search", "label": "team = search", "requests": 1, "cost": 0.15}
    ],
}


class ChartInterval(BaseModel):
    """How wide the buckets of time are."""

    interval: str = Field(
        description="Unit of a bucket of time: `second`, `minute`, `hour`, `day`, `week`, `month` or `year`."
    )
    bucketSizeMs: int = Field(description="Milliseconds of a bucket; of a month or a year, about.")
    bucketMinutes: int | None = Field(description="Minutes of a bucket; null unless the unit is the minute.")


class OutputShapes(BaseModel):
    """Requests by the shape of their answer."""

    # The names are the contract's.
    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    json_: int = Field(alias="json", description="Requests whose answer is a JSON object.")
    toolCall: int = Field(description="Requests whose answer has tool calls.")
    plainText: int = Field(description="Requests whose answer is neither.")


class BucketSummary(BaseModel):
    """The requests of one bucket of time."""

    date: str = Field(description="When the bucket begins: `YYYY-MM-DD` for days and longer, else RFC 3339 in UTC.")
    dateLabel: str = Field(description="The same for people.")
    requests: int = Field(description="Requests.")
    tokens: int = Field(description="Input plus output tokens.")
    inputTokens: int = Field(description="Tokens of the prompts.")
    outputTokens: int = Field(description="Tokens of the answers.")
    cost: float = Field(description="Dollars, fee included.")
    latency: float | None = Field(description="Seconds, the average; null when no duration is known.")
    cachedTokens: int = Field(description="Input tokens read from a cache.")
    thinkingTokens: int = Field(description="Output tokens spent on thinking.")
    traceShare: float | None = Field(
        description="Share of requests that belong to a trace, 0 to 1; null without requests."
    )
    statusCounts: dict[str, int] = Field(description="Requests by status.")
    outputShapeCounts: OutputShapes = Field(description="Requests by what their answer is.")
    avgTurnCount: float | None = Field(description="Turns of a conversation, the average; null when none is known.")
    avgToolCallCount: float | None = Field(description="Tool calls of a request, the average; null when none is known.")
    toolCallCountP95: float | None = Field(
        description="Tool calls that 95 % of the requests stay below; null when none is known."
    )


class LatencyOverTime(BaseModel):
    """Seconds by the date of a bucket, over all requests."""

    average_latency: dict[str, float | None] = Field(
        description="Seconds, the average; null in a bucket where no duration is known."
    )
    p50_latency: dict[str, float | None] = Field(
        description="Seconds that half of the requests stay below; null likewise."
    )
    p90_latency: dict[str, float | None] = Field(
        description="Seconds that 90 % of the requests stay below; null likewise."
    )
    p95_latency: dict[str, float | None] = Field(
        description="Seconds that 95 % of the requests stay below; null likewise."
    )


class LatencyOfGroup(BaseModel):
    """Seconds of one model, prompt or provider, as pairs of a bucket's date and seconds."""

    average_latency: DatedSeconds = Field(
        description="Seconds, the average; null in a bucket where no duration is known."
    )
    p50_latency: DatedSeconds = Field(description="Seconds that half of the requests stay below; null likewise.")
    p90_latency: DatedSeconds = Field(description="Seconds that 90 % of the requests stay below; null likewise.")
    p95_latency: DatedSeconds = Field(description="Seconds that 95 % of the requests stay below; null likewise.")


class PromptUse(BaseModel):
    """How often a prompt template was used."""

    promptId: str = Field(description="Id of the prompt template.")
    requests: int = Field(description="Requests.")
    promptName: str | None = Field(description="Its name; null when it has none.")


class ErrorTypeCount(BaseModel):
    """How many requests failed in one way."""

    errorType: str = Field(description="The kind of the failure.")
    requests: int = Field(description="Requests.")


class Share(BaseModel):
    requests: int = Field(description="Requests.")
    cost: float = Field(description="Dollars, fee included.")
    tokens: int = Field(description="Input plus output tokens.")
    inputTokens: int = Field(description="Tokens of the prompts.")
    outputTokens: int = Field(description="Tokens of the answers.")


class ProviderShare(Share):
    """What one provider was used for."""

    provider: str = Field(description='The provider; "" where the gateway named none.')


class PromptShare(Share):
    """What one prompt template was used for."""

    promptId: str = Field(description="Id of the prompt template.")
    promptName: str | None = Field(description="Its name; null when it has none.")


class TagShare(Share):
    """What the requests with one tag used."""

    tag: str = Field(description="The tag.")


class KeyCount(BaseModel):
    """How many requests have a key."""

    key: str = Field(description="The key, dotted.")
    requests: int = Field(description="Requests that have it.")


class ToolLatency(BaseModel):
    """How long requests took that called a tool."""

    toolName: str = Field(description="Name of the tool.")
    requests: int = Field(description="Requests that called it.")
    avgLatencySeconds: float | None = Field(description="Seconds, the average; null when no duration is known.")
    minLatencySeconds: float | None = Field(description="Seconds, the shortest; null when no duration is known.")
    maxLatencySeconds: float | None = Field(description="Seconds, the longest; null when no duration is known.")


class ToolUse(BaseModel):
    """How often a tool was called."""

    name: str = Field(description="Name of the tool.")
    requests: int = Field(description="Requests that called it.")


class MetadataValue(BaseModel):
    """What the requests with one value of a metadata key cost."""

    key: str = Field(description="The metadata key.")
    value: str = Field(description="The value, as text.")
    label: str = Field(description="The value alone where one key was asked for, else `key = value`.")
    requests: int = Field(description="Requests that have it.")
    cost: float = Field(description="Dollars, fee included.")


class AnalyticsAnswer(BaseModel):
    """Lists are largest first and at most 25 long; `metadataValueBreakdown` is by cost and at most 50."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    success: bool = Field(description="Always true.")
    chartInterval: ChartInterval = Field(description="Width of the buckets of time in all that follows.")
    percentileMethod: PercentileMethod = Field(description=PERCENTILE_METHOD)
    averageLatency: float | None = Field(description="Seconds, the average; null when no duration is known.")
    totalCost: float = Field(description="Dollars, fee included.")
    totalTokens: int = Field(description="Input plus output tokens.")
    totalRequests: int = Field(description="Requests.")
    totalCachedTokens: int = Field(description="Input tokens read from a cache.")
    totalThinkingTokens: int = Field(description="Output tokens spent on thinking.")
    cacheTokenRatio: float | None = Field(description="Cached tokens to input tokens; null without input tokens.")
    stats: list[BucketSummary] = Field(description="One for each bucket of time.")
    mostUsedModels: list[tuple[str, int]] = Field(description="Pairs of a model and its requests.")
    modelRequestsByDay: dict[str, Dated] = Field(description="By model: pairs of a bucket's date and requests.")
    promptTemplateRequestsByDay: dict[str, Dated] = Field(
        description="By id of the prompt template: pairs of a bucket's date and requests."
    )
    providerRequestsByDay: dict[str, Dated] = Field(description="By provider: pairs of a bucket's date and requests.")
    mostUsedPromptTemplates: list[PromptUse] = Field(description="Prompt templates by requests.")
    latency: LatencyOverTime = Field(description="Seconds over time.")
    latencyByModelByDay: dict[str, LatencyOfGroup] = Field(description="Seconds over time, by model.")
    latencyByPromptTemplateByDay: dict[str, LatencyOfGroup] = Field(
        description="Seconds over time, by id of the prompt template."
    )
    latencyByProviderByDay: dict[str, LatencyOfGroup] = Field(description="Seconds over time, by provider.")
    errorTypes: list[ErrorTypeCount] = Field(description="Failures by kind.")
    providerBreakdown: list[ProviderShare] = Field(description="Usage by provider.")
    promptBreakdown: list[PromptShare] = Field(description="Usage by prompt template.")
    tagsBreakdown: list[TagShare] = Field(description="Usage by tag; a request counts in each of its tags.")
    metadataKeysTop: list[KeyCount] = Field(description="Metadata keys by requests.")
    outputKeysTop: list[KeyCount] = Field(
        description="Keys of structured answers by requests; empty when the key may not see bodies."
    )
    toolsLatency: list[ToolLatency] = Field(description="Durations of requests by tool.")
    toolsUsageBars: list[ToolUse] = Field(description="Tools by requests.")
    metadataValueBreakdown: list[MetadataValue] = Field(
        description="Cost by value of metadata: of `metadata_cost_breakdown_key`, or of all keys."
    )
