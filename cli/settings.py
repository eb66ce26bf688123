"""Settings of the commands whose settings are in no other package, from `INSIGHTS_*` environment variables."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from aggregator.settings import ClickHouseSettings, KafkaSettings, Settings, kafka_addresses
from api.settings import ApiSettings


class AdminSettings(ClickHouseSettings):
    """The database that the commands for administrators work on."""

    clickhouse_cluster: str = Field(
        "", description="name of the cluster in the servers' remote_servers that is migrated; none for a single server"
    )


AckedBy = Literal["kafka", "clickhouse"]


class UpSettings(Settings):
    """`insights up`: what of its parts has another default than where they run alone."""

    events_acked_by: AckedBy = Field(
        "clickhouse",
        description="what has to have events before POST /v1/events answers 202; kafka is sooner and no promise here,"
        " since the embedded broker keeps records in memory",
    )


class ApiCommandSettings(ApiSettings, KafkaSettings):
    """`insights api`: the read API, and the Kafka that it publishes events to."""

    kafka_bootstrap_servers: Annotated[str, AfterValidator(lambda text: text and kafka_addresses(text))] = Field(
        "", description="Kafka brokers that POST /v1/events writes to, host:port; events are refused without"
    )
    kafka_topic: str = Field("request-events", description="topic that POST /v1/events writes to")
    events_acked_by: Literal["kafka"] = Field(
        "kafka",
        description="what has to have events before POST /v1/events answers 202: kafka, with all its replicas;"
        " only insights up, whose worker is in the same process, knows clickhouse",
    )
    prices_file: Path | None = Field(
        None,
        description="YAML with prices and fees of your own (pricing.md): the workers' file, for whoever asks by MCP",
    )
    api_metrics_port: int = Field(9465, ge=0, le=65535, description="port of the Prometheus metrics, 0 for none")
