"""What the endpoints of events answer with."""

from pydantic import BaseModel, Field


class AcceptedEvents(BaseModel):
    """How many events were taken."""

    accepted: int = Field(description="Events that are safe: in Kafka, or stored.", examples=[2])
