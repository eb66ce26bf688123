"""The aggregator makes its topics itself where nobody has applied the file of topics: both must say the same."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from aggregator.motion.topics import TOPICS, MotionTopic

FILE = Path(__file__).parents[2] / "deploy/kafka/topics.yaml"


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_a_topic_of_the_aggregator_is_the_same_in_the_file(topic: MotionTopic) -> None:
    by_name: dict[str, Any] = {each["name"]: each for each in yaml.safe_load(FILE.read_text())["topics"]}
    found = by_name[topic.name]
    assert found["partitions"] == topic.partitions
    assert topic.configs.items() <= found["configs"].items()
