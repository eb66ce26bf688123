"""What the endpoints of request logs answer with."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypeAliasType

from aggregator.cost_explanation import Reason
from api.request_logs.examples import EXAMPLE_EXPLANATION, EXAMPLE_LOG
from api.wire_types import Dollars, JsonObject, Moment, PlainNumber, Rate


class RequestLog(BaseModel):
    """One request. Text is "" when absent; numbers, costs and objects are null when unknown."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_LOG]})

    id: str = Field(description="Unique per Kafka record: created_at in ms, partition and offset, each in hex.")
    request_id: str = Field(description="The gateway's id; a gateway that sends twice makes two logs of one id.")
    timestamp: Moment = Field(description="When the request started, UTC.")
    created_at: Moment = Field(description="When the row was made, UTC.")

    user_id: str = Field(description='Who asked; "" when the gateway named no user.')
    api_key_id: str = Field(description='Id of the gateway\'s key that was used; "" when it named none.')
    api_key_prefix: str = Field(description='The first characters of that key; "" when absent.')
    api_key_hash: str = Field(description='Hash of that key, as the gateway made it; "" when absent.')
    api_key_address: str = Field(
        description='Address that belongs to that key, as the gateway sent it; "" when absent.'
    )
    api_key_name: str = Field(description='Name of that key; "" when absent.')
    provider: str = Field(description='Who served the model, like `openai`; "" when the gateway named none.')
    model_name: str = Field(description="The model, as the gateway writes it.")

    status: str = Field(description="`success`, `error`, `timeout`, or the gateway's own word.")
    status_code: int | None = Field(description="HTTP status of the answer; null when unknown.")
    is_error: bool = Field(description="True: the request failed.")
    error_type: str = Field(description='The kind of the failure; "" when absent.')
    error_message: str = Field(description='What the failure said; "" when absent, or when the key may not see bodies.')

    input_tokens: int | None = Field(
        description="Tokens of the whole prompt, cache reads and cache writes included; null when unknown."
    )
    output_tokens: int | None = Field(description="Tokens of the answer, thinking included; null when unknown.")
    cached_input_tokens: int | None = Field(
        description="Of the input tokens, those read from the provider's cache; null when unknown."
    )
    cache_creation_input_tokens: int | None = Field(
        description="Of the input tokens, those written to the provider's cache; null when unknown."
    )
    thinking_tokens: int | None = Field(description="Of the output tokens, those spent on thinking; null when unknown.")
    usage: JsonObject = Field(
        description="Further quantities by unit: web searches, seconds of sound, one-hour cache writes; null when none."
    )
    usage_source: str = Field(description="`reported` by the gateway, `extracted` from the response, or `missing`.")
    service_tier: str = Field(description='The tier that served, like `batch` or `priority`; "" when absent.')

    duration_ms: int | None = Field(description="Milliseconds, as the caller saw it; null when unknown.")
    upstream_duration_ms: int | None = Field(
        description="Milliseconds, as the gateway saw the provider; null when unknown."
    )
    time_to_first_token_ms: int | None = Field(
        description="Milliseconds until the first token of the answer; null when unknown."
    )

    cost: Dollars | None = Field(description="Dollars, fee included; null when no price or no usage is known.")
    cost_before_fee: Dollars | None = Field(description="Dollars, the provider's price; null when `cost` is.")
    input_tokens_cost_microdollar: int | None = Field(
        description="Millionths of a dollar: `input_tokens_cost` x 10^6, half away from zero; null when `cost` is."
    )
    input_tokens_cost: Dollars | None = Field(
        description="Dollars for input that was neither read from nor written to a cache; null when `cost` is."
    )
    input_tokens_cost_before_fee: Dollars | None = Field(
        description="The same dollars without the fee; null when `cost` is."
    )
    cached_input_tokens_cost: Dollars | None = Field(
        description="Dollars for input that was read from a cache; null when `cost` is."
    )
    cached_input_tokens_cost_before_fee: Dollars | None = Field(
        description="The same dollars without the fee; null when `cost` is."
    )
    cache_creation_input_tokens_cost: Dollars | None = Field(
        description="Dollars for input that was written to a cache; null when `cost` is."
    )
    cache_creation_input_tokens_cost_before_fee: Dollars | None = Field(
        description="The same dollars without the fee; null when `cost` is."
    )
    output_tokens_cost_microdollar: int | None = Field(
        description="Millionths of a dollar: `output_tokens_cost` x 10^6, half away from zero; null when `cost` is."
    )
    output_tokens_cost: Dollars | None = Field(description="Dollars for the answer; null when `cost` is.")
    output_tokens_cost_before_fee: Dollars | None = Field(
        description="The same dollars without the fee; null when `cost` is."
    )
    other_cost: Dollars | None = Field(
        description="Dollars for what is neither input nor output: searches, requests, seconds; null when `cost` is."
    )
    other_cost_before_fee: Dollars | None = Field(description="The same dollars without the fee; null when `cost` is.")
    fee_rate: Rate = Field(description="What was added to the provider's price: 0.05 is five percent.")
    price_id: str = Field(description='The price that was used; "" when none was known.')
    price_version: str = Field(description='Version of the price list it is from; "" when none was known.')

    request_headers: JsonObject = Field(
        description="Headers of the request; credentials are masked. Null when absent, or when the key may not see"
        " them."
    )
    request_body: JsonObject = Field(
        description='What the client sent. Null when absent; `{"unreadable": text}` when it is no JSON object.'
    )
    response_headers: JsonObject = Field(
        description="Headers of the response; credentials are masked. Null when absent, or when the key may not see"
        " them."
    )
    response_body: JsonObject = Field(
        description='What the provider answered. Null when absent; `{"unreadable": text}` when it is no JSON object.'
    )
    response_body_raw: str = Field(description='The answer as text, exactly as stored, like a stream; "" when absent.')
    llm_parameters: JsonObject = Field(description="Parameters of the model, like `temperature`; null when absent.")
    input_variables: JsonObject = Field(description="Variables of the prompt template; null when absent.")

    tags: list[str] = Field(description="The gateway's tags; empty when there are none.")
    metadata: JsonObject = Field(
        description="What the gateway added, to filter and group by; {} when absent, never null."
    )
    prompt_id: str = Field(description='Id of the prompt template; "" when absent.')
    prompt_version_number: int | None = Field(description="Version of the prompt template; null when absent.")
    prompt_name: str = Field(description='Name of the prompt template; "" when absent.')
    tool_names: list[str] = Field(description="Names of the tools that the model called; empty when it called none.")
    turn_count: int | None = Field(description="Turns of the conversation; null when unknown.")
    tool_call_count: int | None = Field(description="Tool calls of the request; null when unknown.")
    session_id: str = Field(description='The session it belongs to; "" when absent.')
    trace_id: str = Field(description='The trace it belongs to; "" when absent.')

    storage_location: str = Field(description='Where bodies outside of ClickHouse are; "" while all are inside.')
    storage_row_index: int | None = Field(description="Row in that place; null while all bodies are in ClickHouse.")
    storage_batch_id: str = Field(description='Batch in that place; "" while all bodies are in ClickHouse.')
    use_object_storage: bool = Field(description="True: the bodies are in object storage, outside of ClickHouse.")


CostBucket = TypeAliasType("CostBucket", Literal["input", "cached_input", "cache_creation_input", "output", "other"])
UnpricedReason = TypeAliasType("UnpricedReason", Reason)


class CostCharge(BaseModel):
    """quantity x usd / per = amount_usd, exactly."""

    model_config = ConfigDict(from_attributes=True)

    bucket: CostBucket = Field(description="The part of the cost that this is counted in.")
    unit: str = Field(description="`input_tokens` are those that were neither read from nor written to a cache.")
    quantity: PlainNumber = Field(description="How much of the unit was used.")
    usd: PlainNumber = Field(description="Price in dollars of `per` units.")
    per: int = Field(description="For how many units the price is: a million tokens, one search.")
    amount_usd: PlainNumber = Field(description="Dollars, not rounded, before the fee.")


class CostOfBucket(BaseModel):
    """The bucket's charges, rounded half up to twelve decimals, before and after the fee."""

    model_config = ConfigDict(from_attributes=True)

    bucket: CostBucket = Field(description="The part of the cost.")
    cost_before_fee: Dollars = Field(description="Dollars, the provider's price.")
    cost: Dollars = Field(description="Dollars, fee included.")


class CostExplanation(BaseModel):
    """How a cost came about."""

    model_config = ConfigDict(from_attributes=True)

    price: str = Field(
        description="The catalogue's provider/model, or `operator:` and the entry of the operator's file."
    )
    price_version: str = Field(description="Version of the price list it is from.")
    conditions: dict[str, str] = Field(
        description="Why this price of it: `since`, `until`, `utc`, `above` (input tokens), `service_tier`, `user_id`,"
        " `api_key_id`; empty when it has no conditions."
    )
    charges: list[CostCharge] = Field(description="Quantity times price, one for each unit that was used.")
    buckets: list[CostOfBucket] = Field(description="The five parts of the cost; those without a charge are left out.")
    rounding_usd: PlainNumber = Field(
        description="Dollars that rounding, or a minimum of the catalogue, adds to the charges."
    )
    fee_rate: Rate = Field(description="What was added to the provider's price: 0.05 is five percent.")
    cost_before_fee: Dollars = Field(description="Dollars, the provider's price.")
    cost: Dollars = Field(description="Dollars, fee included.")


class ExplainedLog(RequestLog):
    """One request, and why it costs what it costs."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [EXAMPLE_LOG | {"cost_explanation": EXAMPLE_EXPLANATION, "unpriced_reason": None}]
        }
    )

    cost_explanation: CostExplanation | None = Field(description="How the cost came about; null when there is none.")
    unpriced_reason: UnpricedReason | None = Field(
        description="Why there is no cost: no price is known for this model, time and usage; it succeeded and no usage"
        " was reported; or it failed without usage. null when there is a cost."
    )


class LogPage(BaseModel):
    """Logs of one page, and how to ask for the next."""

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

    logs: list[RequestLog] = Field(description="In the order that was asked for.")
    next_page_token: str = Field(description='The `page_token` of the next page; "" on the last page.')
    total_count: int = Field(description="Logs that match the filters, counted when the first page was asked for.")
    total_count_is_approximate: bool = Field(description="True: there are at least total_count logs.")


Unpriced = Annotated[int, Field(description="Requests with usage and no known price.")]
MissingUsage = Annotated[int, Field(description="Requests that succeeded and reported no usage.")]
FailedWithoutUsage = Annotated[int, Field(description="Requests that failed and reported no usage.")]


class StatsGroup(BaseModel):
    """Sums leave unknown values out: cost is that of requests with a cost. Three counts say how many have none, why."""

    group: str = Field(description="The key; for hour and day the start of it in UTC, RFC 3339.")
    count: int = Field(description="Requests.")
    error_count: int = Field(description="Requests that failed.")
    unpriced_count: Unpriced
    missing_usage_count: MissingUsage
    failed_without_usage_count: FailedWithoutUsage
    input_tokens: int = Field(description="Tokens of the prompts, cache reads and cache writes included.")
    output_tokens: int = Field(description="Tokens of the answers, thinking included.")
    cached_input_tokens: int = Field(description="Of the input tokens, those read from a cache.")
    cost: Dollars = Field(description="Dollars, fee included, of the requests that have a cost.")
    avg_duration_ms: float | None = Field(description="Milliseconds, the average; null when no duration is known.")
    p50_duration_ms: float | None = Field(
        description="Milliseconds that half of the requests stay below, within 1 %; null when no duration is known."
    )
    p95_duration_ms: float | None = Field(
        description="Milliseconds that 95 % of the requests stay below, within 1 %; null when no duration is known."
    )
    p99_duration_ms: float | None = Field(
        description="Milliseconds that 99 % of the requests stay below, within 1 %; null when no duration is known."
    )
    value: int | float | str | None = Field(
        description="The metric asked for: requests, tokens, milliseconds or, as decimal text, dollars; null when no"
        " duration is known."
    )


class StatsAnswer(BaseModel):
    """Groups in order, and totals over all that matches, whatever `limit` is."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "stats": [
                        {
                            "group": "gpt-5-mini",
                            "count": 120,
                            "error_count": 2,
                            "unpriced_count": 0,
                            "missing_usage_count": 1,
                            "failed_without_usage_count": 2,
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
                    "unpriced_count": 0,
                    "missing_usage_count": 1,
                    "failed_without_usage_count": 2,
                }
            ]
        }
    )

    stats: list[StatsGroup] = Field(description="One for each group, at most `limit`.")
    truncated: bool = Field(description="True: there are more groups than `limit`.")
    total_count: int = Field(description="Requests.")
    total_input_tokens: int = Field(description="Tokens of the prompts.")
    total_output_tokens: int = Field(description="Tokens of the answers.")
    total_cost: Dollars = Field(description="Dollars, fee included, of the requests that have a cost.")
    avg_duration_ms: float | None = Field(description="Milliseconds, the average; null when no duration is known.")
    error_count: int = Field(description="Requests that failed.")
    unpriced_count: Unpriced
    missing_usage_count: MissingUsage
    failed_without_usage_count: FailedWithoutUsage
