"""Every metric of the ingest worker."""

from prometheus_client import Counter, Gauge, Histogram

RECORDS = Counter("insights_records_total", "Kafka records stored, as rows or as dead letters", ["partition"])
ALREADY_STORED = Counter(
    "insights_already_stored_records_total", "Records read again that were stored before, after offsets were set back"
)
ROWS = Counter("insights_rows_total", "Rows written to request_logs")
UNPRICED = Counter(
    "insights_unpriced_rows_total",
    "Rows without a cost: no_price is known, no_usage was reported by one that succeeded, or failed_without_usage",
    ["reason"],
)
USAGE_NOT_EXTRACTED = Counter(
    "insights_usage_not_extracted_total", "Events without token counts whose response has none either", ["reason"]
)
PRICE_FILE_LOADS = Counter("insights_price_file_loads_total", "Changed price files that are in force now")
PRICE_FILE_ERRORS = Counter(
    "insights_price_file_errors_total", "Changed price files that cannot be used; the earlier prices stay in force"
)
DEAD_LETTERS = Counter("insights_dead_letters_total", "Records that are not valid events", ["reason"])
UNKNOWN_FIELDS = Counter("insights_unknown_fields_total", "Fields of events that the contract does not know")
BATCH_RECORDS = Histogram(
    "insights_batch_records", "Records per batch", buckets=(1, 10, 100, 1_000, 5_000, 10_000, 20_000, 50_000, 100_000)
)
DECODE_SECONDS = Histogram("insights_decode_seconds", "Time to decode and price a batch")
INSERT_SECONDS = Histogram("insights_insert_seconds", "Time to insert a batch into ClickHouse, views included")
RETRIES = Counter("insights_insert_retries_total", "Inserts that ClickHouse refused and that are retried")
REPLAYS = Counter(
    "insights_replayed_batches_total", "Batches of an earlier worker's intent, found on assignment and written again"
)
LOST_PARTITIONS = Counter("insights_lost_partitions_total", "Batches dropped because another worker has the partition")
SKIPPED_RECORDS = Counter(
    "insights_truncated_records_total", "Records that Kafka deleted before they could be read", ["partition"]
)
RECREATED_TOPICS = Counter(
    "insights_recreated_topics_total",
    "Partitions read from their beginning because their topic was created again",
    ["partition"],
)
COMMITTED_OFFSET = Gauge("insights_committed_offset", "Committed offset, by partition", ["partition"])
LAG = Gauge("insights_lag_records", "Records that can be read and are not stored yet, by partition", ["partition"])
INCREMENTS_DROPPED = Counter(
    "insights_increments_dropped_total",
    "Batches whose usage increments Kafka did not take; aggregators get them from ClickHouse",
)
