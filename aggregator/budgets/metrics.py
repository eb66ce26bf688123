"""Every metric of `insights aggregate`."""

from prometheus_client import Counter, Gauge, Histogram

INCREMENTS = Counter("insights_increments_total", "Usage increments read, by what became of them", ["outcome"])
# There from the start, so that the rate of an aggregator that reads none is 0 (deploy/prometheus/alerts.yml).
INCREMENTS.labels("counted")
INCREMENT_AGE_SECONDS = Histogram(
    "insights_increment_age_seconds",
    "From an increment's record in Kafka to its being counted",
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 60),
)
RECONCILE_SECONDS = Histogram("insights_reconcile_seconds", "Time to take the bases of all accounts from ClickHouse")
RECONCILE_FAILURES = Counter(
    "insights_reconcile_failures_total", "Reconciles that failed; the next try is a second later"
)
DRIFT = Counter(
    "insights_reconcile_drift_total", "By how much accounts were off at reconciles, in units of their budgets"
)
BUDGETS = Gauge("insights_budgets", "Budgets of the partitions of this process")
ALERTS = Counter("insights_alerts_total", "Alerts given", ["kind"])
WEBHOOKS = Counter("insights_webhooks_total", "Calls of the webhook: sent or failed for good", ["outcome"])
