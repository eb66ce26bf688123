"""Settings of the ingest worker, from `INSIGHTS_*` environment variables."""

from pathlib import Path

from pydantic import Field, SecretStr

from aggregator.settings import ClickHouseSettings, KafkaSettings


class IngestSettings(ClickHouseSettings, KafkaSettings):
    kafka_topic: str = Field("request-events", description="topic the gateway writes its events to")
    kafka_group: str = Field("router-insights", description="consumer group of the ingest workers")
    kafka_session_timeout_ms: int = Field(
        10_000, ge=100, description="after this long without a heartbeat a worker has lost its partitions"
    )
    clickhouse_shard_urls: SecretStr = Field(
        SecretStr(""),
        description="on a cluster: one URL for each shard, comma-separated, in its order, with the shard's database",
    )
    prices_file: Path | None = Field(
        None, description="YAML with prices and fees of your own (pricing.md); read again when it changes"
    )
    flush_rows: int = Field(50_000, ge=1, le=500_000, description="a batch has at most this many records")
    flush_bytes: int = Field(32 * 1024 * 1024, ge=1, description="a batch ends with the record that passes this size")
    buffer_bytes: int = Field(
        256 * 1024 * 1024,
        ge=1024 * 1024,
        description="records that a worker holds, waiting or being written; its partitions share it",
    )
    flush_seconds: float = Field(
        1.0, gt=0, description="a smaller batch is written when its first record has waited this long"
    )
    insert_threads: int = Field(2, ge=1, description="batches of different partitions written at the same time")
    insert_retry_seconds: float = Field(
        600.0, gt=0, description="the worker stops when ClickHouse has refused a batch for this long"
    )
    dead_letters_in_a_row: int = Field(
        50_000, ge=1, description="the worker stops when more records of a partition in a row are no valid events"
    )
    dead_letter_share: float = Field(
        0.9, gt=0, le=1, description="the worker stops when a larger share of the last records are no valid events"
    )
    dead_letter_window_records: int = Field(50_000, ge=1, description="how many records that share is judged on")
    stop_seconds: float = Field(8.0, gt=0, description="how long a stop or a rebalance waits for batches in hand")
    metrics_port: int = Field(9464, ge=0, le=65535, description="port of the Prometheus metrics, 0 for none")
