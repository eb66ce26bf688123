"""Budgets and alerts: usage increments from Kafka become spend per window, budget statuses and alerts.

`period`, `budget`, `subject`, `accounts` and `model_health` are pure. `state` holds the ledgers of one process; only
`compacted_topic`, `snapshot`, `notifications`, `topics` and `app` reach Kafka, ClickHouse or the webhook. What users
are promised is in docs/budgets.md.
"""
