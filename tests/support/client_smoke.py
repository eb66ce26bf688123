"""Uses the Python client as its users do, with nothing else of this repository, on whatever Python runs it:

python client_smoke.py URL KEY KAFKA TOPIC IDEMPOTENT

It prints what it found, for tests/integration/clients/python/test_pythons.py to compare.
"""

import asyncio
import sys
from datetime import datetime, timezone
from decimal import Decimal

from router_insights import (
    ApiConnectionError,
    AsyncClient,
    Client,
    EventEmitter,
    InvalidEventError,
    InvalidRequestError,
    KafkaUnavailableError,
    SyncEventEmitter,
)

URL, KEY, KAFKA, TOPIC, IDEMPOTENT = sys.argv[1:]
EVENT = {"timestamp": datetime.now(timezone.utc), "model_name": "gpt-5", "status": "success"}  # noqa: UP017 - 3.10
NOWHERE = "127.0.0.1:1"


def ask() -> None:
    with Client(URL, KEY) as client:
        logs = list(client.request_logs.iter_request_logs(page_size=100))
        print(len(logs), sum((log.cost for log in logs if log.cost is not None), Decimal(0)))
        print(client.request_logs.get_request_log_stats(group_by="model").total_cost)
        try:
            client.request_logs.query_request_logs(page_size=5000)
        except InvalidRequestError as error:
            print(error.details[0].field)
    try:
        Client(f"http://{NOWHERE}", KEY).live_usage.get_live_usage()
    except ApiConnectionError as error:
        print(str(error).split(":")[0:2])


async def ask_and_emit() -> None:
    async with AsyncClient(URL, KEY) as client:
        print(len([log async for log in client.request_logs.iter_request_logs(status="error")]))
    async with EventEmitter(KAFKA, topic=TOPIC, enable_idempotence=IDEMPOTENT == "True") as emitter:
        await emitter.emit({**EVENT, "request_id": "async"})
        try:
            await emitter.emit({**EVENT, "request_id": ""})
        except InvalidEventError as error:
            print(error.details[0].field)
    try:
        await EventEmitter(NOWHERE, delivery_timeout_seconds=2).start()
    except KafkaUnavailableError as error:
        print(str(error).split(":")[0])


def emit() -> None:
    with SyncEventEmitter(KAFKA, topic=TOPIC, enable_idempotence=IDEMPOTENT == "True") as emitter:
        emitter.emit({**EVENT, "request_id": "sync"})
        emitter.flush(60)


ask()
asyncio.run(ask_and_emit())
emit()
