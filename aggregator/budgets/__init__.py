"""Aggregates in motion: usage increments from Kafka become spend in windows, budget states and alerts.

The functions of `period`, `budget`, `ledger` and `health` are pure; Kafka, ClickHouse and the webhook are only
touched in `compacted`, `reconcile`, `delivery` and `app`. What it promises is in docs/budgets.md.
"""
