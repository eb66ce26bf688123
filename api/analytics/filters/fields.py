"""The one table of fields to filter, group and measure by, and of how each is stored in request_logs.

The compiler, the OpenAPI page, `GET /v1/analytics/meta` and the table in docs/analytics.md all read this.
"""

from dataclasses import dataclass
from enum import StrEnum

from aggregator.rollups.measures import Dimension

# Stands in a nested field's `values` for the value under one key.
VALUE = "{value}"


class FieldKind(StrEnum):
    """What a field holds; it decides the operators."""

    IDENTIFIER = "identifier"
    STRING = "string"
    INTENT = "intent"
    TEXT = "text"
    NUMERIC = "numeric"
    DATETIME = "datetime"
    BOOLEAN = "boolean"
    ARRAY = "array"
    NESTED = "nested"


class ValueUnit(StrEnum):
    """What the values of a series are."""

    COUNT = "count"
    TOKENS = "tokens"
    CURRENCY = "currency"
    DURATION_SECONDS = "duration_seconds"
    NUMBER = "number"


OPERATORS: dict[FieldKind, tuple[str, ...]] = {
    FieldKind.IDENTIFIER: ("is", "is_not", "in", "not_in"),
    FieldKind.STRING: ("is", "is_not", "in", "not_in"),
    FieldKind.INTENT: ("is", "is_not", "in", "not_in"),
    FieldKind.TEXT: ("contains", "not_contains", "starts_with", "ends_with"),
    FieldKind.NUMERIC: ("eq", "neq", "gt", "gte", "lt", "lte", "between", "is_null", "is_not_null"),
    FieldKind.DATETIME: ("is", "before", "after", "between"),
    FieldKind.BOOLEAN: ("is_true", "is_false"),
    FieldKind.ARRAY: ("contains", "not_contains", "in", "not_in", "is_empty", "is_not_empty"),
    FieldKind.NESTED: ("key_equals", "key_not_equals", "key_contains", "in", "not_in", "is_empty", "is_not_empty"),
}
ALL_OPERATORS = tuple(dict.fromkeys(name for names in OPERATORS.values() for name in names))
INTENTS = {
    "user_intent": ("frustrated", "satisfied", "curious"),
    "agent_intent": ("apologetic", "refusal", "uncertain"),
}


@dataclass(frozen=True)
class Field:
    """One row of the table.

    `column` is a column of request_logs (of request_payloads for text), or an expression over it. `values` of a
    nested field turns what is under one key into an array of text. `unit` makes the field a metric's, `can_group` a
    chart's group. `ignores_case` compares ASCII letters alike. `dimension` names the same column in rollups.
    `is_content` marks what people and models wrote, which not every caller may see or filter by.
    """

    name: str
    kind: FieldKind
    column: str
    meaning: str
    can_group: bool = False
    unit: ValueUnit | None = None
    ignores_case: bool = False
    dimension: Dimension | None = None
    values: str = ""
    is_content: bool = False

    @property
    def text_column(self) -> str:
        """What filters compare, charts group by and suggestions name."""
        return f"lower({self.column})" if self.ignores_case else self.column

    @property
    def operators(self) -> tuple[str, ...]:
        return OPERATORS[self.kind]


# All values under a key, as an array of text, from the Dynamic value that is kept under its dotted path.
# `output` and `variables` are flattened at ingest: every path holds an array of its scalars as text.
_FLATTENED = f"dynamicElement({VALUE}, 'Array(Nullable(String))')"
# Of `metadata`, which is kept as it was sent (a scalar of any type, or a list), the different ones. Asking for the type
# of a value costs more than reading it, so only what looks like a list is checked.
_NATIVE = (
    f"multiIf(isNull({VALUE}), emptyArrayString(),"
    f" startsWith(ifNull(toString({VALUE}), ''), '[') AND startsWith(dynamicType({VALUE}), 'Array'),"
    " arrayDistinct(arrayMap(item -> if(startsWith(item, '\"'), JSONExtractString(item), item),"
    f" arrayFilter(item -> item != 'null', JSONExtractArrayRaw(ifNull(toJSONString({VALUE}), '[]'))))),"
    f" [ifNull(toString({VALUE}), '')])"
)

# Of any nested field, out of the JSON text of the value; slow, for the few keys that no subcolumn can be named by.
JSON_VALUES = (
    f"multiIf({VALUE} IN ('', 'null') OR startsWith({VALUE}, '{{'), emptyArrayString(), startsWith({VALUE}, '['),"
    " arrayDistinct(arrayMap(item -> if(startsWith(item, '\"'), JSONExtractString(item), item),"
    f" arrayFilter(item -> item != 'null', JSONExtractArrayRaw({VALUE})))),"
    f" [if(startsWith({VALUE}, '\"'), JSONExtractString({VALUE}), {VALUE})])"
)


FIELDS = (
    Field("pl_id", FieldKind.IDENTIFIER, "request_id", "id of the request, as the gateway gave it"),
    Field("prompt_id", FieldKind.IDENTIFIER, "prompt_id", "id of the prompt template", can_group=True),
    Field("engine", FieldKind.STRING, "model_name", "model", can_group=True, dimension=Dimension.MODEL),
    Field("provider_type", FieldKind.STRING, "provider", "provider", can_group=True, dimension=Dimension.PROVIDER),
    Field(
        "status",
        FieldKind.STRING,
        "status",
        "`success`, `error`, or the gateway's own word; upper or lower case",
        can_group=True,
        ignores_case=True,
        dimension=Dimension.STATUS,
    ),
    Field("is_error", FieldKind.BOOLEAN, "is_error", "it failed: by its status, its status code or its error type"),
    Field("error_type", FieldKind.STRING, "error_type", "why it failed", can_group=True),
    Field("user_id", FieldKind.STRING, "user_id", "who asked", can_group=True, dimension=Dimension.USER),
    Field("api_key_id", FieldKind.STRING, "api_key_id", "with which key", can_group=True, dimension=Dimension.API_KEY),
    Field("session_id", FieldKind.STRING, "session_id", "session", can_group=True),
    Field(
        "input_text",
        FieldKind.TEXT,
        "input_text",
        "what the model was asked: all messages but the last answer",
        is_content=True,
    ),
    Field("output_text", FieldKind.TEXT, "output_text", "what the model answered", is_content=True),
    Field(
        "prompt_version_number",
        FieldKind.NUMERIC,
        "prompt_version_number",
        "version of the prompt template",
        can_group=True,
        unit=ValueUnit.NUMBER,
    ),
    Field("input_tokens", FieldKind.NUMERIC, "input_tokens", "tokens of the whole prompt", unit=ValueUnit.TOKENS),
    Field("output_tokens", FieldKind.NUMERIC, "output_tokens", "tokens of the answer", unit=ValueUnit.TOKENS),
    Field(
        "cached_tokens",
        FieldKind.NUMERIC,
        "cached_input_tokens",
        "input tokens read from a cache",
        unit=ValueUnit.TOKENS,
    ),
    Field(
        "thinking_tokens",
        FieldKind.NUMERIC,
        "thinking_tokens",
        "output tokens spent on thinking",
        unit=ValueUnit.TOKENS,
    ),
    Field("cost", FieldKind.NUMERIC, "cost", "dollars, fee included", unit=ValueUnit.CURRENCY),
    Field(
        "latency_ms",
        FieldKind.NUMERIC,
        "duration_ms",
        "milliseconds; as a metric, seconds",
        unit=ValueUnit.DURATION_SECONDS,
    ),
    Field("turn_count", FieldKind.NUMERIC, "turn_count", "turns of the conversation", unit=ValueUnit.NUMBER),
    Field("tool_call_count", FieldKind.NUMERIC, "tool_call_count", "tool calls", unit=ValueUnit.NUMBER),
    Field("request_start_time", FieldKind.DATETIME, "timestamp", "when it started"),
    Field(
        "request_end_time",
        FieldKind.DATETIME,
        "timestamp + toIntervalMillisecond(duration_ms)",
        "when it ended; absent if its duration is",
    ),
    Field("is_json", FieldKind.BOOLEAN, "is_json", "the answer is a JSON object"),
    Field("is_tool_call", FieldKind.BOOLEAN, "is_tool_call", "the answer has tool calls"),
    Field("is_plain_text", FieldKind.BOOLEAN, "is_plain_text", "the answer is neither"),
    Field("has_trace", FieldKind.BOOLEAN, "trace_id != ''", "it belongs to a trace"),
    Field("tags", FieldKind.ARRAY, "tags", "tags", can_group=True),
    Field("metadata_keys", FieldKind.ARRAY, "metadata_keys", "dotted keys of the metadata", can_group=True),
    Field(
        "output_keys",
        FieldKind.ARRAY,
        "output_keys",
        "dotted keys of a structured answer",
        can_group=True,
        is_content=True,
    ),
    Field(
        "input_variable_keys",
        FieldKind.ARRAY,
        "input_variable_keys",
        "dotted keys of the variables",
        can_group=True,
        is_content=True,
    ),
    Field("tool_names", FieldKind.ARRAY, "tool_names", "names of the called tools", can_group=True),
    Field("metadata", FieldKind.NESTED, "metadata", "value of a metadata key", values=_NATIVE),
    Field(
        "output",
        FieldKind.NESTED,
        "output",
        "value of a key of a structured answer",
        values=_FLATTENED,
        is_content=True,
    ),
    Field(
        "input_variables",
        FieldKind.NESTED,
        "variables",
        "value of a prompt variable",
        values=_FLATTENED,
        is_content=True,
    ),
    *(
        Field(name, FieldKind.INTENT, name, ", ".join(f"`{word}`" for word in words), is_content=True)
        for name, words in INTENTS.items()
    ),
)
BY_NAME = {field.name: field for field in FIELDS}
GROUP_FIELDS = tuple(field.name for field in FIELDS if field.can_group)
METRIC_FIELDS = tuple(field.name for field in FIELDS if field.unit)
