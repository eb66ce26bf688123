"""Connecting to a Kafka that may be the embedded broker."""

import logging

from aiokafka.errors import UnknownError

from ingest.emitter import EventEmitter
from ingest.topics import REQUEST_EVENTS_TOPIC, KafkaUnavailableError


async def connect(bootstrap_servers: str, topic: str = REQUEST_EVENTS_TOPIC) -> EventEmitter:
    """A started emitter, idempotent unless the broker knows no idempotent producers (the embedded one).

    Raises KafkaUnavailableError.
    """
    # It logs an error for what is tried here, and what it logs besides the emitter raises.
    logging.getLogger("aiokafka.producer.sender").setLevel(logging.CRITICAL)
    emitter = EventEmitter(bootstrap_servers, topic=topic)
    try:
        await emitter.start()
    except KafkaUnavailableError as error:
        if not isinstance(error.__cause__, UnknownError):
            raise
        emitter = EventEmitter(bootstrap_servers, topic=topic, enable_idempotence=False)
        await emitter.start()
    return emitter
