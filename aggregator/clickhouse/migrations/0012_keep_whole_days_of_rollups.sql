-- Whole days of the rollups (catalogue.py), inside their parts: a batch that is written again cannot count in them twice.
-- Merges compute them anew from the merged rows, as rows of one group are summed then. Sorted by who and what before when:
-- few granules hold one user.

ALTER TABLE rollup_model MODIFY SETTING deduplicate_merge_projection_mode = 'rebuild';
ALTER TABLE rollup_model ADD PROJECTION IF NOT EXISTS daily
(
    SELECT
        provider, model_name, status,
        toStartOfDay(bucket),
        sum(requests),
        sum(errors),
        sum(unpriced),
        sum(input_tokens),
        sum(output_tokens),
        sum(cached_input_tokens),
        sum(cache_creation_input_tokens),
        sum(thinking_tokens),
        sum(cost),
        sum(cost_before_fee),
        sum(input_tokens_cost),
        sum(cached_input_tokens_cost),
        sum(cache_creation_input_tokens_cost),
        sum(output_tokens_cost),
        sum(duration_ms_sum),
        sum(duration_ms_count),
        quantilesExactWeightedMergeState(0.5, 0.95, 0.99)(duration_ms_histogram)
    GROUP BY provider, model_name, status, toStartOfDay(bucket)
);
ALTER TABLE rollup_model MATERIALIZE PROJECTION daily;

ALTER TABLE rollup_user MODIFY SETTING deduplicate_merge_projection_mode = 'rebuild';
ALTER TABLE rollup_user ADD PROJECTION IF NOT EXISTS daily
(
    SELECT
        user_id, api_key_id, model_name, status,
        toStartOfDay(bucket),
        sum(requests),
        sum(errors),
        sum(unpriced),
        sum(input_tokens),
        sum(output_tokens),
        sum(cached_input_tokens),
        sum(cache_creation_input_tokens),
        sum(thinking_tokens),
        sum(cost),
        sum(cost_before_fee),
        sum(input_tokens_cost),
        sum(cached_input_tokens_cost),
        sum(cache_creation_input_tokens_cost),
        sum(output_tokens_cost),
        sum(duration_ms_sum),
        sum(duration_ms_count),
        quantilesExactWeightedMergeState(0.5, 0.95, 0.99)(duration_ms_histogram)
    GROUP BY user_id, api_key_id, model_name, status, toStartOfDay(bucket)
);
ALTER TABLE rollup_user MATERIALIZE PROJECTION daily;
