"""What the endpoints of events answer with."""

from pydantic import BaseModel, Field


class Accepted(BaseModel):
    accepted: int = Field(description="Events that are safely in Kafka.", examples=[2])
