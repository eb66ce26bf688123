"""The audit log: a row for each action that changes what others see. Rows are never changed."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from aggregator.clickhouse.client import Warehouse


class Action(StrEnum):
    CREATE_KEY = "key.create"
    REVOKE_KEY = "key.revoke"
    PUT_BUDGET = "budget.put"
    DELETE_BUDGET = "budget.delete"
    REPRICE = "reprice"
    REBUILD_ROLLUPS = "rollups.rebuild"
    REPLAY_DEAD_LETTERS = "dead-letters.replay"
    DROP_DEAD_LETTERS = "dead-letters.drop"
    SET_RETENTION = "retention.set"


WRITE = """
INSERT INTO audit_log (actor, action, target, details) SETTINGS async_insert = 0
VALUES ({actor:String}, {action:String}, {target:String}, {details:String})
"""
READ = "SELECT at, actor, action, target, details FROM audit_log ORDER BY at DESC LIMIT {limit:UInt32}"


@dataclass(frozen=True)
class AuditEntry:
    at: datetime
    actor: str
    action: str
    target: str
    details: str


def record(
    warehouse: Warehouse, actor: str, action: Action, target: str, details: Mapping[str, Any] | None = None
) -> None:
    """Write one entry before the action, since an action that fails half way must be in the log, too. `actor` is
    `user@host` on the command line and `key <name>` over the API; `details` is stored as JSON.

    Raises WarehouseUnavailableError: an action that cannot be recorded must not be done.
    """
    text = json.dumps(details or {}, default=str, ensure_ascii=False, sort_keys=True)
    warehouse.command(WRITE, {"actor": actor, "action": action.value, "target": target, "details": text})


def newest(warehouse: Warehouse, limit: int) -> list[AuditEntry]:
    return [AuditEntry(**row) for row in warehouse.query(READ, {"limit": limit})]
