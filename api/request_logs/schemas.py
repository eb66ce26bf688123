"""What the endpoints of request logs answer with."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.wire_types import Dollars, JsonObject, Moment, PlainNumber, Rate

EXAMPLE_LOG: dict[str, Any] = {
    "id": "19bfe4e7a4b-2-1c8",
    "request_id": "req-7f3a",
    "timestamp": "2026-01-31T12:00:00.123456Z",
    "created_at": "2026-01-31T12:00:01.355000Z",
    "user_id": "user-17",
    "api_key_id": "key-3",
    "api_key_prefix": "sk-abc",
    "api_key_hash": "",
    "api_key_address": "",
    "api_key_name": "batch jobs",
    "provider": "openai",
    "model_name": "gpt-5-mini",
    "status": "success",
    "status_code": 200,
    "is_error": False,
    "error_type": "",
    "error_message": "",
    "input_tokens": 1200,
    "output_tokens": 340,
    "cached_input_tokens": 1000,
    "cache_creation_input_tokens": None,
    "thinking_tokens": 64,
    "usage": None,
    "usage_source": "reported",
    "service_tier": "",
    "duration_ms": 2310,
    "upstream_duration_ms": 2290,
    "time_to_first_token_ms": 410,
    "cost": "0.000755000000",
    "cost_before_fee": "0.000755000000",
    "input_tokens_cost_microdollar": 50,
    "input_tokens_cost": "0.000050000000",
    "input_tokens_cost_before_fee": "0.000050000000",
    "cached_input_tokens_cost": "0.000025000000",
    "cached_input_tokens_cost_before_fee": "0.000025000000",
    "cache_creation_input_tokens_cost": "0.000000000000",
    "cache_creation_input_tokens_cost_before_fee": "0.000000000000",
    "output_tokens_cost_microdollar": 680,
    "output_tokens_cost": "0.000680000000",
    "output_tokens_cost_before_fee": "0.000680000000",
    "other_cost": "0.000000000000",
    "other_cost_before_fee": "0.000000000000",
    "fee_rate": "0.000000",
    "price_id": "openai/gpt-5-mini input=0.25 cached_input=0.025 cache_creation_input=0.25 output=2",
    "price_version": "genai-prices 0.2.3",
    "request_headers": {"content-type": "application/json", "authorization": "[redacted]"},
    "request_body": {"messages": [{"role": "user", "content": "Hello"}]},
    "response_headers": None,
    "response_body": {"choices": []},
    "response_body_raw": "",
    "llm_parameters": {"temperature": 0.2},
    "input_variables": None,
    "tags": ["nightly"],
    "metadata": {"team": "search"},
    "prompt_id": "",
    "prompt_version_number": None,
    "prompt_name": "",
    "tool_names": [],
    "turn_count": 1,
    "tool_call_count": 0,
    "session_id": "",
    "trace_id": "",
    "storage_location": "",
    "storage_row_index": None,
    "storage_batch_id": "",
    "use_object_storage": False,
}


class RequestLog(BaseModel):
    """One request. Text is "" when absent; numbers, costs and objects are null when unknown."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_LOG]})

    id: str = Field(description="Unique per Kafka record: created_at in ms, partition and offset, each in hex.")
    request_id: str = Field(description="The gateway's id; a gateway that sends twice makes two logs of one id.")
    timestamp: Moment = Field(description="When the request started, UTC.")
    created_at: Moment = Field(description="When the row was made, UTC.")

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

    input_tokens: int | None = Field(description="The whole prompt, cache reads and cache writes included.")
    output_tokens: int | None = Field(description="Thinking tokens included.")
    cached_input_tokens: int | None
    cache_creation_input_tokens: int | None
    thinking_tokens: int | None
    usage: JsonObject = Field(description="Further quantities by unit: web searches, sound, one-hour cache writes.")
    usage_source: str = Field(description="`reported` by the gateway, `extracted` from the response, or `missing`.")
    service_tier: str

    duration_ms: int | None
    upstream_duration_ms: int | None
    time_to_first_token_ms: int | None

    cost: Dollars | None = Field(description="Dollars, fee included; null when no price or no usage is known.")
    cost_before_fee: Dollars | None = Field(description="Dollars, the provider's price.")
    input_tokens_cost_microdollar: int | None = Field(description="input_tokens_cost x 10^6, half away from zero.")
    input_tokens_cost: Dollars | None = Field(description="Dollars for input that was neither cached nor written.")
    input_tokens_cost_before_fee: Dollars | None
    cached_input_tokens_cost: Dollars | None
    cached_input_tokens_cost_before_fee: Dollars | None
    cache_creation_input_tokens_cost: Dollars | None
    cache_creation_input_tokens_cost_before_fee: Dollars | None
    output_tokens_cost_microdollar: int | None = Field(description="output_tokens_cost x 10^6, half away from zero.")
    output_tokens_cost: Dollars | None
    output_tokens_cost_before_fee: Dollars | None
    other_cost: Dollars | None = Field(description="What is neither input nor output: searches, requests, seconds.")
    other_cost_before_fee: Dollars | None
    fee_rate: Rate = Field(description="What was added to the provider's price: 0.05 is five percent.")
    price_id: str = Field(description='The price that was used; "" when none was known.')
    price_version: str

    request_headers: JsonObject = Field(description="Values of secret headers are masked.")
    request_body: JsonObject = Field(
        description='What the client sent. Null when absent; `{"unreadable": text}` when it is no JSON object.'
    )
    response_headers: JsonObject
    response_body: JsonObject = Field(
        description='What the provider answered. Null when absent; `{"unreadable": text}` when it is no JSON object.'
    )
    response_body_raw: str = Field(description='The answer as text, exactly as stored, like a stream; "" when absent.')
    llm_parameters: JsonObject
    input_variables: JsonObject

    tags: list[str]
    metadata: JsonObject = Field(description="{} when absent.")
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


class CostCharge(BaseModel):
    """quantity x usd / per = amount_usd, exactly."""

    model_config = ConfigDict(from_attributes=True)

    bucket: Literal["input", "cached_input", "cache_creation_input", "output", "other"]
    unit: str = Field(description="`input_tokens` are those that were neither read from nor written to a cache.")
    quantity: PlainNumber
    usd: PlainNumber
    per: int
    amount_usd: PlainNumber


class CostOfBucket(BaseModel):
    """The bucket's charges, rounded half up to twelve decimals, before and after the fee."""

    model_config = ConfigDict(from_attributes=True)

    bucket: Literal["input", "cached_input", "cache_creation_input", "output", "other"]
    cost_before_fee: Dollars
    cost: Dollars


class CostExplanation(BaseModel):
    """How a cost came about."""

    model_config = ConfigDict(from_attributes=True)

    price: str = Field(description="The catalogue's provider/model, or `operator:` and the entry of his file.")
    price_version: str
    conditions: dict[str, str] = Field(
        description="Why this price of it: `since`, `until`, `utc`, `above` (input tokens), `service_tier`, `user_id`,"
        " `api_key_id`."
    )
    charges: list[CostCharge]
    buckets: list[CostOfBucket]
    rounding_usd: PlainNumber = Field(description="What rounding, or a minimum of the catalogue, adds to the charges.")
    fee_rate: Rate
    cost_before_fee: Dollars
    cost: Dollars


EXAMPLE_EXPLANATION: dict[str, Any] = {
    "price": "openai/gpt-5-mini",
    "price_version": "genai-prices 0.2.3",
    "conditions": {},
    "charges": [
        {"bucket": "input", "unit": "input_tokens", "quantity": "200", "usd": "0.25", "per": 1000000,
         "amount_usd": "0.00005"},
        {"bucket": "cached_input", "unit": "cached_input_tokens", "quantity": "1000", "usd": "0.025", "per": 1000000,
         "amount_usd": "0.000025"},
        {"bucket": "output", "unit": "output_tokens", "quantity": "340", "usd": "2", "per": 1000000,
         "amount_usd": "0.00068"},
    ],
    "buckets": [
        {"bucket": "input", "cost_before_fee": "0.000050000000", "cost": "0.000050000000"},
        {"bucket": "cached_input", "cost_before_fee": "0.000025000000", "cost": "0.000025000000"},
        {"bucket": "output", "cost_before_fee": "0.000680000000", "cost": "0.000680000000"},
    ],
    "rounding_usd": "0",
    "fee_rate": "0.000000",
    "cost_before_fee": "0.000755000000",
    "cost": "0.000755000000",
}  # fmt: skip


class ExplainedLog(RequestLog):
    """One request, and why it costs what it costs."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [EXAMPLE_LOG | {"cost_explanation": EXAMPLE_EXPLANATION, "unpriced_reason": None}]
        }
    )

    cost_explanation: CostExplanation | None = Field(description="null when there is no cost.")
    unpriced_reason: Literal["no_usage", "no_price"] | None = Field(
        description="Why there is no cost: no usage was reported, or no price is known for this model, time and usage."
    )


class LogPage(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "logs": [EXAMPLE_LOG],
                    "next_page_token": "WzEsW251bGwsMTc2OTg2MDgwMDEyMzQ1Nl0...",
                    "total_count": 120,
                    "total_count_is_approximate": False,
                }
            ]
        }
    )

    logs: list[RequestLog]
    next_page_token: str = Field(description='"" on the last page.')
    total_count: int = Field(description="Logs that match the filters, counted when the first page was asked for.")
    total_count_is_approximate: bool = Field(description="True: there are at least total_count logs.")


class StatsGroup(BaseModel):
    """Sums leave unknown values out: cost is that of priced requests, unpriced_count says how many are not."""

    group: str = Field(description="The key; for hour and day the start of it in UTC, RFC 3339.")
    count: int
    error_count: int
    unpriced_count: int
    input_tokens: int
    output_tokens: int
    cached_input_tokens: int
    cost: Dollars
    avg_duration_ms: float | None
    p50_duration_ms: float | None = Field(description="Percentiles are within 1 % of the true ones.")
    p95_duration_ms: float | None
    p99_duration_ms: float | None
    value: int | float | str | None = Field(description="The metric asked for; a decimal string when it is cost.")


class StatsAnswer(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "stats": [
                        {
                            "group": "gpt-5-mini",
                            "count": 120,
                            "error_count": 2,
                            "unpriced_count": 2,
                            "input_tokens": 144000,
                            "output_tokens": 40800,
                            "cached_input_tokens": 120000,
                            "cost": "0.090600000000",
                            "avg_duration_ms": 2310.5,
                            "p50_duration_ms": 2200.1,
                            "p95_duration_ms": 5105.3,
                            "p99_duration_ms": 7020.9,
                            "value": "0.090600000000",
                        }
                    ],
                    "truncated": False,
                    "total_count": 120,
                    "total_input_tokens": 144000,
                    "total_output_tokens": 40800,
                    "total_cost": "0.090600000000",
                    "avg_duration_ms": 2310.5,
                    "error_count": 2,
                    "unpriced_count": 2,
                }
            ]
        }
    )

    stats: list[StatsGroup]
    truncated: bool = Field(description="True: there are more groups than `limit`.")
    total_count: int
    total_input_tokens: int
    total_output_tokens: int
    total_cost: Dollars
    avg_duration_ms: float | None
    error_count: int
    unpriced_count: int
