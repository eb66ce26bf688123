"""Alerts that were given, newest first."""

from datetime import timedelta
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from aggregator.budgets.alert import Alert, AlertKind
from aggregator.times import EPOCH, micros
from api.parameters import TimeRange
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
CONDITIONS = {
    "start": "alerts.created_at >= fromUnixTimestamp64Micro({start:Int64}, 'UTC')",
    "end": "alerts.created_at < fromUnixTimestamp64Micro({end:Int64}, 'UTC')",
    "kind": "alerts.kind = {kind:String}",
    "budget_id": "alerts.budget_id = {budget_id:String}",
}
EXAMPLE: dict[str, Any] = {
    "id": "5e0c2a7be1f04d2f9a6a2f3c8d1b7e90",
    "kind": "budget",
    "created_at": "2026-11-24T12:00:00Z",
    "scope": {"kind": "user", "value": "ada"},
    "budget_id": "ada-monthly",
    "threshold_percent": 80,
    "value": "201.5",
    "limit": "250",
    "period_start": "2026-10-31T23:00:00Z",
    "period_end": "2026-11-30T23:00:00Z",
    "message": "user ada has used 201.5 of 250 dollars in its month: the 80 % of budget ada-monthly are reached",
}


class AlertParameters(TimeRange):
    kind: AlertKind | None = Field(None, description="Only alerts of this kind.")
    budget_id: str | None = Field(None, description="Only alerts of this budget.", examples=["ada-monthly"])
    limit: int = Field(100, ge=1, le=1000, description="At most this many, the newest.")


class AlertList(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"alerts": [EXAMPLE], "truncated": False}]})

    alerts: list[Alert] = Field(description="Newest first.")
    truncated: bool = Field(description="True: there are more than `limit`.")


def list_alerts(reader: Reader, parameters: AlertParameters) -> AlertList:
    values: dict[str, Any] = {"kind": parameters.kind and parameters.kind.value, "budget_id": parameters.budget_id}
    values |= {"start": parameters.start_time and micros(parameters.start_time)}
    values |= {"end": parameters.end_time and micros(parameters.end_time)}
    given = {name: value for name, value in values.items() if value is not None}
    where = " AND ".join(CONDITIONS[name] for name in given) or "1"
    sql = ALERTS.replace("{where}", where).replace("{limit}", str(parameters.limit + 1))
    alerts = [_alert(row) for row in reader.query(sql, given)]
    return AlertList(alerts=alerts[: parameters.limit], truncated=len(alerts) > parameters.limit)


def _alert(row: dict[str, Any]) -> Alert:
    times = {name: EPOCH + int(row[name]) * MILLISECOND for name in ("created_at", "period_start", "period_end")}
    scope = {"kind": row["scope_kind"], "value": row["scope_value"]}
    names = ("kind", "budget_id", "threshold_percent", "value", "limit", "message")
    return Alert.model_validate({"id": row["alert_id"], "scope": scope, **times, **{n: row[n] for n in names}})
