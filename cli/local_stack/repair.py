"""Repairing the rollups after a kill.

With a Kafka that lasts, the worker does it: it finds the write intent of the batch that was cut off and writes the
batch again. The embedded broker forgets intents with everything else, so a kill between the raw rows and a rollup would
leave the two different for good.
"""

import structlog

from aggregator.clickhouse.client import Warehouse
from aggregator.clickhouse.migrate import migrate
from aggregator.rollups import rebuild
from aggregator.times import EVERYTHING

log = structlog.get_logger(__name__)


def repair_rollups(clickhouse_url: str) -> None:
    """Compare the rollups with the raw rows, and rebuild them where they differ; seconds for a million rows."""
    warehouse = Warehouse(clickhouse_url)
    try:
        migrate(warehouse)
        log.info("comparing_rollups_after_a_kill")
        if all(drift.is_zero for drift in rebuild.verify(warehouse)):
            return
        left = rebuild.rebuild(warehouse, EVERYTHING, reason="killed")
        log.warning("rollups_mended_after_a_kill", is_complete=all(drift.is_zero for drift in left))
    finally:
        warehouse.close()
