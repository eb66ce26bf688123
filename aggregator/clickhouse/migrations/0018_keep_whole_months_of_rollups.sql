-- Statistics of all time merged the groups of every day, user, key, model and status, most of them histograms of a few
-- requests. Months hold fewer, without what is seldom asked for together (catalogue.py); hours by status alone are for
-- questions by time. They lie in the parts, as days do (migration 12).

ALTER TABLE rollup_model ADD PROJECTION IF NOT EXISTS hourly
(
    SELECT
        status,
        toStartOfHour(bucket),
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
    GROUP BY status, toStartOfHour(bucket)
);
ALTER TABLE rollup_model MATERIALIZE PROJECTION hourly;

ALTER TABLE rollup_model ADD PROJECTION IF NOT EXISTS monthly
(
    SELECT
        provider, model_name, status,
        toDateTime(toStartOfMonth(bucket), 'UTC'),
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
    GROUP BY provider, model_name, status, toDateTime(toStartOfMonth(bucket), 'UTC')
);
ALTER TABLE rollup_model MATERIALIZE PROJECTION monthly;

ALTER TABLE rollup_user ADD PROJECTION IF NOT EXISTS monthly
(
    SELECT
        user_id, api_key_id,
        toDateTime(toStartOfMonth(bucket), 'UTC'),
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
    GROUP BY user_id, api_key_id, toDateTime(toStartOfMonth(bucket), 'UTC')
);
ALTER TABLE rollup_user MATERIALIZE PROJECTION monthly;
