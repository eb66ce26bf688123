"""Alerts are stored in ClickHouse, and the process that wrote the row posts the alert to the operator's webhook."""

import asyncio
import hashlib
import hmac
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import httpx2
import pyarrow as pa
import structlog
from pydantic import SecretStr
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from aggregator.budgets import metrics
from aggregator.budgets.alert import Alert
from aggregator.clickhouse.client import Warehouse

log = structlog.get_logger(__name__)

MAX_ATTEMPTS = 5
# Of a whole attempt: a timeout of the client's is for each read, and an answer may drip.
TIMEOUT_SECONDS = 5.0
RETRYABLE_STATUSES = frozenset({408, 425, 429})
_INSTANT, _AMOUNT = pa.timestamp("ms", "UTC"), pa.decimal128(38, 12)
ROW_SCHEMA = pa.schema(
    [
        ("created_at", _INSTANT),
        ("alert_id", pa.string()),
        ("kind", pa.string()),
        ("scope_kind", pa.string()),
        ("scope_value", pa.string()),
        ("budget_id", pa.string()),
        ("threshold_percent", pa.uint16()),
        ("value", _AMOUNT),
        ("limit", _AMOUNT),
        ("period_start", _INSTANT),
        ("period_end", _INSTANT),
        ("message", pa.string()),
        ("claim", pa.string()),
    ]
)
CLAIMS = "SELECT alert_id, claim FROM alerts WHERE alert_id IN {alert_ids:Array(String)}"


class AlertClaim(NamedTuple):
    """An alert to store. `id` is unique to this attempt: the row that ClickHouse keeps shows whose it is."""

    id: str
    alert: Alert


def _alert_row(claim: AlertClaim) -> dict[str, Any]:
    alert = claim.alert
    names = ("created_at", "kind", "budget_id", "threshold_percent", "value", "limit", "period_start", "period_end",
             "message")  # fmt: skip
    scope = {"alert_id": alert.id, "scope_kind": alert.scope.kind.value, "scope_value": alert.scope.value}
    return {**{name: getattr(alert, name) for name in names}, "kind": alert.kind.value, "claim": claim.id, **scope}


def _stored_claims(warehouse: Warehouse, claims: Sequence[AlertClaim]) -> dict[str, str]:
    rows = warehouse.query(CLAIMS, {"alert_ids": [claim.alert.id for claim in claims]})
    return {row["alert_id"]: row["claim"] for row in rows}


def store_alerts(warehouse: Warehouse, claims: Sequence[AlertClaim]) -> list[Alert]:
    """Insert the alerts that ClickHouse does not have yet. Returns those whose row has our claim: of two processes that
    insert at once ClickHouse keeps one row, so an alert is returned to one only. Blocks; raises what the warehouse
    raises."""
    before = _stored_claims(warehouse, claims)
    for claim in claims:
        if claim.alert.id not in before:
            warehouse.insert("alerts", pa.Table.from_pylist([_alert_row(claim)], ROW_SCHEMA), f"alert/{claim.alert.id}")
    # A replica may not show our own rows yet.
    stored = {claim.alert.id: claim.id for claim in reversed(claims)} | _stored_claims(warehouse, claims)
    return [claim.alert for claim in claims if stored[claim.alert.id] == claim.id]


def signature(secret: str, timestamp: int, body: bytes) -> str:
    """The header X-Insights-Signature: HMAC-SHA256 of `timestamp.body`, in hex."""
    signed = hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256)
    return f"sha256={signed.hexdigest()}"


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, httpx2.HTTPStatusError):
        status = error.response.status_code
        return status >= 500 or status in RETRYABLE_STATUSES
    return isinstance(error, httpx2.TransportError | TimeoutError)


def _reason(error: Exception) -> str:
    """Without the URL, which is a secret of its own with many services."""
    if isinstance(error, httpx2.HTTPStatusError):
        return f"answered with status {error.response.status_code}"
    return type(error).__name__


class Webhook:
    """Posts alerts to `url`, signed with `secret`. Without a URL it does nothing."""

    def __init__(self, url: str, secret: SecretStr, waits: Sequence[float] = (0.5, 8.0)) -> None:
        self._url = url
        self._secret = secret
        self._wait = wait_exponential_jitter(multiplier=waits[0], max=waits[1])

    async def post(self, alert: Alert) -> bool:
        """Try up to MAX_ATTEMPTS times. Returns False, with a log line and a metric, when none succeeded."""
        if not self._url:
            return False
        retrying = AsyncRetrying(
            retry=retry_if_exception(_is_transient),
            stop=stop_after_attempt(MAX_ATTEMPTS),
            wait=self._wait,
            reraise=True,
        )
        try:
            async with httpx2.AsyncClient(timeout=TIMEOUT_SECONDS) as client:
                await retrying(self._post, client, alert)
        except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError) as error:
            metrics.WEBHOOKS.labels("failed").inc()
            log.error("webhook_failed", alert=alert.id, reason=_reason(error))
            return False
        metrics.WEBHOOKS.labels("sent").inc()
        return True

    async def _post(self, client: httpx2.AsyncClient, alert: Alert) -> None:
        body, timestamp = alert.model_dump_json().encode(), int(time.time())
        headers = {
            "content-type": "application/json",
            "x-insights-alert-id": alert.id,
            "x-insights-timestamp": str(timestamp),
            "x-insights-signature": signature(self._secret.get_secret_value(), timestamp, body),
        }
        # Of the answer nothing but the status counts, so its body is not read.
        async with asyncio.timeout(TIMEOUT_SECONDS):
            async with client.stream("POST", self._url, content=body, headers=headers) as response:
                response.raise_for_status()
