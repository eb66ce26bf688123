"""Connecting to a Kafka that may be the embedded broker."""

import logging
from typing import Any

from aiokafka.errors import UnknownError

from router_insights.emitter.contract import REQUEST_EVENTS_TOPIC
from router_insights.emitter.event_emitter import EventEmitter
from router_insights.errors import KafkaUnavailableError


async def connect(bootstrap_servers: str, topic: str = REQUEST_EVENTS_TOPIC, **client_options: Any) -> EventEmitter:
    """A started emitter, idempotent unless the broker knows no idempotent producers (the embedded one).

    `client_options` go to aiokafka (`KafkaSettings.client_options`). Raises KafkaUnavailableError.
    """
    # It logs an error for what is tried here, and what it logs besides the emitter raises.
    logging.getLogger("aiokafka.producer.sender").setLevel(logging.CRITICAL)
    emitter = EventEmitter(bootstrap_servers, topic=topic, **client_options)
    try:
        await emitter.start()
    except KafkaUnavailableError as error:
        if not isinstance(error.__cause__, UnknownError):
            raise
        emitter = EventEmitter(bootstrap_servers, topic=topic, enable_idempotence=False, **client_options)
        await emitter.start()
    return emitter
