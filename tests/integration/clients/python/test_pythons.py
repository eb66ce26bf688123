"""The client asks and emits on this Python, and on others: INSIGHTS_TEST_PYTHONS names interpreters, separated like a
path, that have the wheel of the client with its extra `kafka`."""

import asyncio
import os
import subprocess
import sys
from decimal import Decimal

import pytest

from tests.integration.clients.python.conftest import Running
from tests.support.api import KEY
from tests.support.checkout import ROOT
from tests.support.kafka import has_idempotence, read_topic

OTHERS = list(filter(None, os.environ.get("INSIGHTS_TEST_PYTHONS", "").split(os.pathsep)))


@pytest.mark.parametrize("python", [sys.executable, *OTHERS])
def test_the_client_asks_and_emits(running: Running, broker: str, topic: str, python: str) -> None:
    environment = dict(os.environ)
    if python in OTHERS:
        # Their own client, not the one of this checkout.
        del environment["PYTHONPATH"]
    script = ROOT / "tests/support/client_smoke.py"
    done = subprocess.run(
        [python, "-W", "error", script, running.url, KEY, broker, topic, str(has_idempotence())],
        env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    cost = sum((row["cost"] for row in running.rows if row["cost"] is not None), Decimal(0))
    failed = sum(row["status"] == "error" for row in running.rows)
    assert done.stdout.splitlines() == [
        f"{len(running.rows)} {cost}",
        f"{cost}",
        "page_size",
        "['http', '//127.0.0.1']",
        f"{failed}",
        "request_id",
        "Kafka at 127.0.0.1",
    ], done.stderr
    assert done.returncode == 0
    assert sorted(record.key for record in asyncio.run(read_topic(broker, topic))) == [b"async", b"sync"]
