"""The aggregator makes its topics itself where nobody has applied the file of topics: both must say the same. And what
the file says is what Kafka takes, which a Kafka is asked about in tests/integration/ingest/test_topics.py."""

import re
from typing import Any

import pytest
import yaml

from aggregator.budgets.topics import TOPICS, BudgetTopic
from api.events.routes import MAX_BODY_BYTES
from ingest.settings import IngestSettings
from ingest.topics.spec import WantedTopic, read_wanted
from tests.support.checkout import ROOT

FILE = ROOT / "deploy/kafka/topics.yaml"


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_a_topic_of_the_aggregator_is_the_same_in_the_file(topic: BudgetTopic) -> None:
    by_name: dict[str, Any] = {each["name"]: each for each in yaml.safe_load(FILE.read_text())["topics"]}
    found = by_name[topic.name]
    assert found["partitions"] == topic.partitions
    assert topic.configs.items() <= found["configs"].items()


NUMBER = r"[1-9][0-9]*"
# Those of Kafka's settings of a topic that are used here; one that is new needs its line.
CONFIGS = {
    "cleanup.policy": "delete|compact",
    "retention.ms": NUMBER,
    "min.insync.replicas": NUMBER,
    "max.message.bytes": NUMBER,
}
WANTED = read_wanted(FILE)


@pytest.mark.parametrize("topic", WANTED.topics, ids=lambda topic: topic.name)
def test_what_is_set_is_what_kafka_knows(topic: WantedTopic) -> None:
    for name, value in topic.configs.items():
        assert re.fullmatch(CONFIGS[name], value), name
    assert "cleanup.policy" in topic.configs
    # One broker may be away, or be restarted.
    assert int(topic.configs["min.insync.replicas"]) < WANTED.replication_factor
    # What is compacted is kept; of all else it is said how long.
    assert ("retention.ms" in topic.configs) == (topic.configs["cleanup.policy"] == "delete")


def test_the_largest_event_fits_into_a_record() -> None:
    [events] = [topic for topic in WANTED.topics if topic.name == IngestSettings().kafka_topic]
    assert int(events.configs["max.message.bytes"]) >= MAX_BODY_BYTES
