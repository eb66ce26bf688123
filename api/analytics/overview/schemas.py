"""What `POST .../requests/analytics` is answered with. Latencies are seconds, costs dollars."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Dated = list[tuple[str, int]]
DatedSeconds = list[tuple[str, float | None]]

EXAMPLE: dict[str, Any] = {
    "success": True,
    "chartInterval": {"interval": "day", "bucketSizeMs": 86400000, "bucketMinutes": None},
    "averageLatency": 2.5,
    "totalRequests": 5,
    "totalCost": 0.301,
}


class Interval(BaseModel):
    interval: str = Field(description="`second`, `minute`, `hour`, `day`, `week`, `month` or `year`.")
    bucketSizeMs: int
    bucketMinutes: int | None = Field(description="Of buckets of minutes: how many.")


class OutputShapes(BaseModel):
    # The names are the contract's.
    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    json_: int = Field(alias="json")
    toolCall: int
    plainText: int


class NumberSummary(BaseModel):
    """The requests of one bucket of time."""

    date: str
    dateLabel: str
    requests: int
    tokens: int
    inputTokens: int
    outputTokens: int
    cost: float
    latency: float | None
    cachedTokens: int
    thinkingTokens: int
    traceShare: float | None = Field(description="Share of requests that belong to a trace, 0 to 1.")
    statusCounts: dict[str, int]
    outputShapeCounts: OutputShapes
    avgTurnCount: float | None
    avgToolCallCount: float | None
    toolCallCountP95: float | None


class Latency(BaseModel):
    average_latency: dict[str, float | None]
    p50_latency: dict[str, float | None]
    p90_latency: dict[str, float | None]
    p95_latency: dict[str, float | None]


class LatencyOfOne(BaseModel):
    average_latency: DatedSeconds
    p50_latency: DatedSeconds
    p90_latency: DatedSeconds
    p95_latency: DatedSeconds


class PromptUse(BaseModel):
    promptId: str
    requests: int
    promptName: str | None


class ErrorType(BaseModel):
    errorType: str
    requests: int


class Share(BaseModel):
    requests: int
    cost: float
    tokens: int
    inputTokens: int
    outputTokens: int


class ProviderShare(Share):
    provider: str


class PromptShare(Share):
    promptId: str
    promptName: str | None


class TagShare(Share):
    tag: str


class KeyCount(BaseModel):
    key: str
    requests: int


class ToolLatency(BaseModel):
    toolName: str
    requests: int
    avgLatencySeconds: float | None
    minLatencySeconds: float | None
    maxLatencySeconds: float | None


class ToolUse(BaseModel):
    name: str
    requests: int


class MetadataValue(BaseModel):
    key: str
    value: str
    label: str
    requests: int
    cost: float


class AnalyticsAnswer(BaseModel):
    """Lists are largest first and at most 25 long; `metadataValueBreakdown` is by cost and at most 50."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    success: Literal[True] = True
    chartInterval: Interval
    percentileMethod: Literal["interpolated", "sketch"]
    averageLatency: float | None
    totalCost: float
    totalTokens: int
    totalRequests: int
    totalCachedTokens: int
    totalThinkingTokens: int
    cacheTokenRatio: float | None = Field(description="Cached tokens to input tokens; null without input tokens.")
    stats: list[NumberSummary]
    mostUsedModels: list[tuple[str, int]]
    modelRequestsByDay: dict[str, Dated]
    promptTemplateRequestsByDay: dict[str, Dated]
    providerRequestsByDay: dict[str, Dated]
    mostUsedPromptTemplates: list[PromptUse]
    latency: Latency
    latencyByModelByDay: dict[str, LatencyOfOne]
    latencyByPromptTemplateByDay: dict[str, LatencyOfOne]
    latencyByProviderByDay: dict[str, LatencyOfOne]
    errorTypes: list[ErrorType]
    providerBreakdown: list[ProviderShare]
    promptBreakdown: list[PromptShare]
    tagsBreakdown: list[TagShare]
    metadataKeysTop: list[KeyCount]
    outputKeysTop: list[KeyCount]
    toolsLatency: list[ToolLatency]
    toolsUsageBars: list[ToolUse]
    metadataValueBreakdown: list[MetadataValue]
