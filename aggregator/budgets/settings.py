"""Settings of `insights aggregate`, from `INSIGHTS_*` environment variables."""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr

from aggregator.settings import ClickHouseSettings, KafkaSettings


def _check_webhook_url(url: str) -> str:
    parts = urlsplit(url)
    if url and (parts.scheme not in {"http", "https"} or not parts.hostname):
        # Without the value, which is a secret with many services.
        raise ValueError("must be an address such as https://example.org/hook, or empty for none")
    return url


class AggregateSettings(ClickHouseSettings, KafkaSettings):
    kafka_topic: str = Field("request-events", description="topic whose usage is counted")
    aggregate_group: str = Field("router-insights-aggregate", description="consumer group of the aggregators")
    kafka_session_timeout_ms: int = Field(
        10_000, ge=100, description="after this long without a heartbeat an aggregator has lost its partitions"
    )
    reconcile_seconds: float = Field(60.0, ge=1, description="how often windows are set to what ClickHouse holds")
    webhook_url: Annotated[str, AfterValidator(_check_webhook_url)] = Field(
        "", description="where each alert is posted; none without"
    )
    webhook_secret: SecretStr = Field(SecretStr(""), description="signs what is posted to the webhook (HMAC-SHA256)")
    metrics_port: int = Field(9464, ge=0, le=65535, description="port of the Prometheus metrics, 0 for none")
