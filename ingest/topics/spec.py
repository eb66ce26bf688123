"""The wanted topics and rights (ACLs), and how a Kafka differs from them. Pure: nothing is read or changed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from aggregator.errors import InsightsError


class TopicFileError(InsightsError):
    """The file with the topics is wrong; the message names it and every mistake."""


class Resource(IntEnum):
    """Kafka's numbers for what a right is about."""

    TOPIC = 2
    GROUP = 3


class Operation(IntEnum):
    """Kafka's numbers for what may be done."""

    ALL = 2
    READ = 3
    WRITE = 4
    CREATE = 5
    DELETE = 6
    ALTER = 7
    DESCRIBE = 8
    DESCRIBE_CONFIGS = 10
    ALTER_CONFIGS = 11


def _operation(name: object) -> object:
    if isinstance(name, str) and name in Operation.__members__:
        return Operation[name]
    raise ValueError(f"must be one of {', '.join(Operation.__members__)}")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class WantedTopic(_Part):
    name: str = Field(pattern=r"^[a-zA-Z0-9._-]{1,249}$")
    partitions: int = Field(ge=1)
    configs: dict[str, str] = Field(default_factory=dict)


class WantedAcl(_Part):
    """Rights on one topic or one consumer group, from any host."""

    principal: str = Field(pattern=r"^User:.+$")
    topic: str = ""
    group: str = ""
    operations: list[Annotated[Operation, BeforeValidator(_operation)]] = Field(min_length=1)

    @model_validator(mode="after")
    def _is_about_one_thing(self) -> Self:
        if bool(self.topic) == bool(self.group):
            raise ValueError("needs either a topic or a group")
        return self

    @property
    def rights(self) -> Iterator["Acl"]:
        resource, name = (Resource.TOPIC, self.topic) if self.topic else (Resource.GROUP, self.group)
        for operation in self.operations:
            yield Acl(self.principal, resource, name, operation)


class Wanted(_Part):
    replication_factor: int = Field(ge=1)
    topics: list[WantedTopic]
    acls: list[WantedAcl] = Field(default_factory=list)

    @model_validator(mode="after")
    def _names_each_topic_once(self) -> Self:
        names = [topic.name for topic in self.topics]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"topics named more than once: {', '.join(repeated)}")
        return self

    def for_replicas(self, replication_factor: int) -> "Wanted":
        """For so many brokers: no topic can have more replicas, or wait for more."""
        topics = [
            topic.model_copy(
                update={"configs": {
                    name: str(min(int(value), replication_factor)) if name == "min.insync.replicas" else value
                    for name, value in topic.configs.items()
                }}
            )
            for topic in self.topics
        ]  # fmt: skip
        return self.model_copy(update={"replication_factor": replication_factor, "topics": topics})

    @property
    def rights(self) -> set["Acl"]:
        return {right for acl in self.acls for right in acl.rights}


@dataclass(frozen=True, order=True)
class Acl:
    """One principal may do one thing; `operation` is Kafka's number, as there may be some that we do not know."""

    principal: str
    resource: Resource
    name: str
    operation: int

    def __str__(self) -> str:
        known = Operation(self.operation).name if self.operation in set(Operation) else str(self.operation)
        return f"{self.principal} may {known} {self.resource.name.lower()} {self.name}"


@dataclass(frozen=True)
class FoundTopic:
    """`configs` are all that hold for the topic, its own and the brokers' defaults; `own_configs` its own."""

    partitions: int
    replication_factor: int
    configs: Mapping[str, str]
    own_configs: Mapping[str, str]


@dataclass(frozen=True)
class Found:
    """`rights` is None where the brokers have no authorizer: everybody may do everything."""

    topics: Mapping[str, FoundTopic]
    rights: set[Acl] | None


@dataclass(frozen=True)
class Difference:
    """`what` differs, and its `remedy`; `apply` repairs it if it `is_repairable`."""

    what: str
    remedy: str
    is_repairable: bool


def read_wanted(path: Path) -> Wanted:
    """Raises TopicFileError."""
    try:
        return Wanted.model_validate(yaml.safe_load(path.read_text()))
    except yaml.YAMLError as error:
        raise TopicFileError(f"{path}: {error}") from error
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False, include_context=False)
        reasons = "; ".join(f"{'.'.join(map(str, each['loc'])) or 'file'}: {each['msg']}" for each in problems)
        raise TopicFileError(f"{path}: {reasons}") from error


def differences(wanted: Wanted, found: Found) -> list[Difference]:
    """All differences of a Kafka from what is wanted. Topics and configs that `wanted` does not name do not count."""
    all_differences = [each for topic in wanted.topics for each in _about(topic, wanted.replication_factor, found)]
    if found.rights is None:
        return all_differences
    for right in sorted(wanted.rights - found.rights):
        all_differences.append(Difference(f"missing right: {right}", "apply grants it", True))
    ours = {right.principal for right in wanted.rights}
    for right in sorted(right for right in found.rights - wanted.rights if right.principal in ours):
        all_differences.append(
            Difference(f"right that nobody asked for: {right}", "revoke it by hand, or add it to the file", False)
        )
    return all_differences


def _about(topic: WantedTopic, replication_factor: int, found: Found) -> Iterator[Difference]:
    there = found.topics.get(topic.name)
    if there is None:
        yield Difference(f"topic {topic.name} is missing", "apply creates it", True)
        return
    if there.partitions < topic.partitions:
        yield Difference(
            f"topic {topic.name} has {there.partitions} partitions instead of {topic.partitions}",
            "apply adds them",
            True,
        )
    if there.partitions > topic.partitions:
        yield Difference(
            f"topic {topic.name} has {there.partitions} partitions instead of {topic.partitions}",
            "partitions cannot be taken away: correct the file",
            False,
        )
    if there.replication_factor != replication_factor:
        yield Difference(
            f"topic {topic.name} has {there.replication_factor} replicas instead of {replication_factor}",
            "move it with Kafka's own kafka-reassign-partitions, or correct the file",
            False,
        )
    for name, value in topic.configs.items():
        if there.configs.get(name) != value:
            yield _about_config(topic.name, name, value, there.configs.get(name, "nothing"))


def _about_config(topic: str, name: str, value: str, there: str) -> Difference:
    what = f"topic {topic} has {name}={there} instead of {value}"
    if deletes_records(name, value, there):
        return Difference(
            what, "apply does not set it, as records would be deleted: set it by hand, or correct the file", False
        )
    return Difference(what, "apply sets it", True)


def deletes_records(name: str, value: str, there: str) -> bool:
    """Whether a config, set from `there` to `value`, would delete records that are kept now."""
    if name == "cleanup.policy":
        return "delete" in value and "delete" not in there
    if name not in {"retention.ms", "retention.bytes"} or there == "nothing":
        return False
    unlimited = 2**63
    wanted, kept = (unlimited if int(text) < 0 else int(text) for text in (value, there))
    return wanted < kept
