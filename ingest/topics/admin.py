"""Reads and changes topics and rights (ACLs) of a Kafka."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, NoError, for_code
from aiokafka.protocol.admin import CreateAclsRequest, DescribeAclsRequest

from aggregator.topic_creation import TopicError, create_missing
from ingest.topics.spec import Acl, Found, FoundTopic, Resource, Wanted, deletes_records
from router_insights.errors import KafkaUnavailableError

TIMEOUT_SECONDS = 30.0
# A config's source when it was set on the topic itself.
OWN = 1
# aiokafka has no name for it: the brokers have no authorizer.
SECURITY_DISABLED = 54
ANY, LITERAL, ALLOW, ANY_HOST = 1, 3, 3, "*"


@asynccontextmanager
async def admin_of(bootstrap_servers: str, **client_options: Any) -> AsyncIterator[AIOKafkaAdminClient]:
    """A started admin client. Raises KafkaUnavailableError when Kafka does not answer in time, or refuses us."""
    admin = AIOKafkaAdminClient(
        bootstrap_servers=bootstrap_servers, request_timeout_ms=int(TIMEOUT_SECONDS * 1000), **client_options
    )
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await admin.start()
            yield admin
    except (KafkaError, OSError) as error:
        raise KafkaUnavailableError(f"Kafka at {bootstrap_servers}: {str(error) or type(error).__name__}") from error
    finally:
        await admin.close()


async def look(admin: AIOKafkaAdminClient, wanted: Wanted) -> Found:
    """Those of the wanted topics that exist, and all rights."""
    names = {topic.name for topic in wanted.topics} & set(await admin.list_topics())
    topics = {}
    for described in await admin.describe_topics(sorted(names)) if names else []:
        partitions, name = described["partitions"], described["topic"]
        configs, own = await _configs(admin, name)
        topics[name] = FoundTopic(len(partitions), len(partitions[0]["replicas"]), configs, own)
    return Found(topics, await _rights(admin))


async def _configs(admin: AIOKafkaAdminClient, topic: str) -> tuple[dict[str, str], dict[str, str]]:
    [response] = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    [(code, message, _, _, entries)] = response.resources
    _raise(code, message, f"configs of topic {topic}")
    every = {entry[0]: entry[1] for entry in entries}
    return every, {entry[0]: entry[1] for entry in entries if entry[3] == OWN}


async def _rights(admin: AIOKafkaAdminClient) -> set[Acl] | None:
    response = await admin._send_request(DescribeAclsRequest(ANY, None, ANY, None, None, ANY, ANY))
    if response.error_code == SECURITY_DISABLED:
        return None
    _raise(response.error_code, response.error_message, "rights")
    return {
        Acl(principal, Resource(kind), name, operation)
        for kind, name, pattern, acls in response.resources
        for principal, host, operation, permission in acls
        if kind in set(Resource) and pattern == LITERAL and host == ANY_HOST and permission == ALLOW
    }


async def apply(admin: AIOKafkaAdminClient, wanted: Wanted, found: Found) -> None:
    """Apply what `spec.differences` calls repairable. Raises TopicError for what Kafka refuses."""
    missing = [topic for topic in wanted.topics if topic.name not in found.topics]
    if missing:
        await create_missing(
            admin,
            [NewTopic(t.name, t.partitions, wanted.replication_factor, topic_configs=t.configs) for t in missing],
        )
    for topic in wanted.topics:
        there = found.topics.get(topic.name)
        if there is None:
            continue
        if there.partitions < topic.partitions:
            await admin.create_partitions({topic.name: NewPartitions(topic.partitions)})
        changed = {
            name: value for name, value in topic.configs.items()
            if there.configs.get(name) != value and not deletes_records(name, value, there.configs.get(name, "nothing"))
        }  # fmt: skip
        if changed:
            # Kafka sets every config that is not in the request back to its default: so with the topic's own.
            await _set_configs(admin, topic.name, {**there.own_configs, **changed})
    for right in sorted(wanted.rights - found.rights) if found.rights is not None else []:
        await _grant(admin, right)


async def _set_configs(admin: AIOKafkaAdminClient, topic: str, configs: dict[str, str]) -> None:
    responses = await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs)])
    for code, message, *_ in (resource for response in responses for resource in response.resources):
        _raise(code, message, f"configs of topic {topic}")


async def _grant(admin: AIOKafkaAdminClient, right: Acl) -> None:
    request = CreateAclsRequest(right.resource, right.name, LITERAL, right.principal, ANY_HOST, right.operation, ALLOW)
    for code, message in (await admin._send_to_controller(request)).creation_responses:
        _raise(code, message, str(right))


def _raise(code: int, message: str | None, what: str) -> None:
    error = for_code(code)
    if error is not NoError:
        raise TopicError(f"{what}: {message or error.__name__}")
