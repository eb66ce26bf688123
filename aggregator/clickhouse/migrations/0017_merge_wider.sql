-- Ten parts at a time instead of five: each row is written half as often in the background, which is what ClickHouse
-- spent most of its time on while small batches arrived (docs/performance.md). There are about twice as many parts.
ALTER TABLE request_logs MODIFY SETTING merge_selector_base = 10;
ALTER TABLE request_payloads MODIFY SETTING merge_selector_base = 10;
ALTER TABLE rollup_model MODIFY SETTING merge_selector_base = 10;
ALTER TABLE rollup_user MODIFY SETTING merge_selector_base = 10;
