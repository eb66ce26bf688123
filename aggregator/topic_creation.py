"""Creating Kafka's topics: the one place that does, for every layer."""

from collections.abc import Sequence

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import NoError, TopicAlreadyExistsError, for_code

from aggregator.errors import InsightsError


class TopicError(InsightsError):
    """Kafka refused to create or change a topic; the message says which and why."""


async def create_missing(admin: AIOKafkaAdminClient, topics: Sequence[NewTopic]) -> None:
    """Create those of `topics` that are not there yet; one that is there keeps its partitions and configs.

    Raises TopicError when Kafka refuses one, KafkaError when it does not answer.
    """
    response = await admin.create_topics(list(topics))
    for name, code, *message in response.topic_errors:
        error = for_code(code)
        if error not in {NoError, TopicAlreadyExistsError}:
            raise TopicError(f"topic {name}: {next(filter(None, message), error.__name__)}")
