"""The subject of a budget: all requests, or those of one model, user, api key or tag. On the wire it is `scope`."""

from enum import StrEnum
from hashlib import md5
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

MAX_VALUE_CHARACTERS = 512


class SubjectKind(StrEnum):
    TOTAL = "total"
    MODEL = "model"
    USER = "user"
    API_KEY = "api_key"
    TAG = "tag"


class Subject(BaseModel):
    """Whom a budget, an alert or live usage is about. `value` names the model, user, api key or tag; the total has
    none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: SubjectKind = Field(description="What the scope is one of.", examples=["user"])
    value: str = Field("", max_length=MAX_VALUE_CHARACTERS, description='Its name; "" for the total.', examples=["ada"])

    @model_validator(mode="after")
    def _has_a_name(self) -> Self:
        if (self.kind is SubjectKind.TOTAL) == bool(self.value):
            raise PydanticCustomError("scope", "value must be empty for the total, and name one of any other kind")
        return self

    def __str__(self) -> str:
        return self.kind.value if self.kind is SubjectKind.TOTAL else f"{self.kind.value} {self.value}"


def partition_of(kind: str, value: str, partitions: int) -> int:
    """The partition of the topic of increments that holds a subject."""
    digest = md5(f"{kind}/{value}".encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest[8:], "little") % partitions
