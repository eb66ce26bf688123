"""The metadata of a worker's commits: which topic the offset is of, and which batch is about to be written."""

from pydantic import BaseModel, ConfigDict, Field, ValidationError


class WriteIntent(BaseModel):
    """What a worker is about to write: the batch that begins at the committed offset.

    A worker that finds an intent writes exactly that batch again, down to `created_at_ms` (epoch milliseconds) and
    `generation` (of the rollups), so that ClickHouse sees the same insert twice and counts it once.
    """

    model_config = ConfigDict(frozen=True)

    last: int
    created_at_ms: int
    generation: int
    digest: str


class CommitMetadata(BaseModel):
    """The metadata of a commit: which topic the offset counts in, and the intent if a batch follows.

    An offset means nothing in another topic of the same name, so the commit names the topic's id.

    Where somebody has set the offset back: records below `stored_before` may be stored though no intent says so, and
    those below `reread_before` may have been, under a token that a table still remembers.
    """

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    topic_id: str
    # Kafka holds it as `plan`: a worker of any version reads what one of another has committed.
    intent: WriteIntent | None = Field(None, alias="plan")
    stored_before: int = 0
    reread_before: int = 0

    def to_metadata(self) -> str:
        unset = {name for name in ("stored_before", "reread_before") if not getattr(self, name)}
        return self.model_dump_json(by_alias=True, exclude=unset)

    @classmethod
    def from_metadata(cls, metadata: str | None) -> "CommitMetadata | None":
        """None for an offset that another tool has set."""
        try:
            return cls.model_validate_json(metadata or "")
        except ValidationError:
            return None
