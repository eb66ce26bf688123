"""Settings of the commands whose settings are in no other package, from `INSIGHTS_*` environment variables."""

from typing import Annotated

from pydantic import AfterValidator, Field

from aggregator.settings import ClickHouseSettings, KafkaSettings, kafka_addresses
from api.settings import ApiSettings


class AdminSettings(ClickHouseSettings):
    """The database that the commands for administrators work on."""

    clickhouse_cluster: str = Field(
        "", description="name of the cluster in the servers' remote_servers that is migrated; none for a single server"
    )


class ApiCommandSettings(ApiSettings, KafkaSettings):
    """`insights api`: the read API, and the Kafka that it publishes events to."""

    kafka_bootstrap_servers: Annotated[str, AfterValidator(lambda text: text and kafka_addresses(text))] = Field(
        "", description="Kafka brokers that POST /v1/events writes to, host:port; events are refused without"
    )
    kafka_topic: str = Field("request-events", description="topic that POST /v1/events writes to")
    api_metrics_port: int = Field(9465, ge=0, le=65535, description="port of the Prometheus metrics, 0 for none")
