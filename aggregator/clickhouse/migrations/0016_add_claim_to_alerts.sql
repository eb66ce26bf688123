-- Who writes an alert's row posts it to the webhook (aggregator/motion/delivery.py).
ALTER TABLE alerts ADD COLUMN IF NOT EXISTS claim String DEFAULT '';
