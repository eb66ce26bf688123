"""The answer to events that were sent over HTTP."""

import msgspec


class Accepted(msgspec.Struct, frozen=True):
    """How many events are safe, in Kafka or stored: all that were sent."""

    accepted: int
