"""Reads the alerts that were raised, newest first."""

from datetime import timedelta
from typing import Any

from aggregator.budgets.alert import Alert
from aggregator.clickhouse.sql import Binder, all_of, time_range
from aggregator.times import EPOCH
from api.budgets.parameters import AlertParameters
from api.budgets.schemas import AlertList
from api.security.reader import Reader

ALERTS = """
SELECT alert_id, any(kind) AS kind, toUnixTimestamp64Milli(min(alerts.created_at)) AS created_at,
    any(scope_kind) AS scope_kind, any(scope_value) AS scope_value, any(budget_id) AS budget_id,
    any(threshold_percent) AS threshold_percent,
    any(value) AS value, any(alerts.limit) AS limit, toUnixTimestamp64Milli(any(alerts.period_start)) AS period_start,
    toUnixTimestamp64Milli(any(alerts.period_end)) AS period_end,
    any(message) AS message
FROM alerts WHERE {where} GROUP BY alert_id ORDER BY created_at DESC, alert_id LIMIT {limit}
"""
MILLISECOND = timedelta(milliseconds=1)


def list_alerts(reader: Reader, parameters: AlertParameters) -> AlertList:
    binder = Binder()
    equals = {"kind": parameters.kind and parameters.kind.value, "budget_id": parameters.budget_id}
    where = all_of(
        time_range("alerts.created_at", parameters.span),
        *(f"alerts.{column} = {binder.text(value)}" for column, value in equals.items() if value is not None),
    )
    sql = ALERTS.format(where=where, limit=parameters.limit + 1)
    alerts = [_alert(row) for row in reader.query(sql, binder.parameters)]
    return AlertList(alerts=alerts[: parameters.limit], truncated=len(alerts) > parameters.limit)


def _alert(row: dict[str, Any]) -> Alert:
    times = {name: EPOCH + int(row[name]) * MILLISECOND for name in ("created_at", "period_start", "period_end")}
    scope = {"kind": row["scope_kind"], "value": row["scope_value"]}
    names = ("kind", "budget_id", "threshold_percent", "value", "limit", "message")
    return Alert.model_validate({"id": row["alert_id"], "scope": scope, **times, **{n: row[n] for n in names}})
