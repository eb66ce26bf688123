-- The id that Kafka gave the topic when it was created. A topic that was deleted and created again begins at offset 0
-- again under the same name; with the id, partition and offset name one record for ever. Empty in rows of before, and
-- where a broker knows no ids (ingest/consumer/stored_records.py).
ALTER TABLE request_logs ADD COLUMN IF NOT EXISTS source_topic_id LowCardinality(String) AFTER source_topic;
ALTER TABLE request_payloads ADD COLUMN IF NOT EXISTS source_topic_id LowCardinality(String) AFTER created_at;
ALTER TABLE dead_letters ADD COLUMN IF NOT EXISTS source_topic_id LowCardinality(String) AFTER source_topic;
