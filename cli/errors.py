"""What went wrong, in a sentence: only a fault of this program deserves a traceback."""

import re

from aiokafka.errors import KafkaError
from clickhouse_connect.driver.exceptions import ClickHouseError
from pydantic import ValidationError
from pydantic_settings import SettingsError

from aggregator.budgets.compacted_topic import TopicUnavailableError
from aggregator.clickhouse.client import DatabaseError, WarehouseUnavailableError
from aggregator.clickhouse.cluster import ClusterError
from aggregator.clickhouse.migrate import MigrationError
from aggregator.clickhouse.retention import RetentionError
from aggregator.tables.api_keys import KeyNameError
from cli.adapters.clickhouse import DatabaseUrlError
from cli.commands.budgets import BudgetError
from cli.commands.keys import KeyRequestError
from cli.commands.prices import PriceQuestionError
from cli.commands.services import ServiceError
from cli.demo.demo import DemoError
from cli.local_stack.broker import BrokerError
from cli.local_stack.data_dir import DataDirError
from cli.local_stack.process import ChildError
from cli.replay.trace import TraceError
from ingest.pricing import PriceFileError
from ingest.pricing.reprice import RepriceError
from ingest.topics.create import KafkaUnavailableError, TopicError
from ingest.topics.spec import TopicFileError

# ClickHouse's codes for a table and a database that are not there.
NOT_MIGRATED = (60, 81)

# Their messages are sentences already.
TOLD = (
    BrokerError,
    BudgetError,
    ChildError,
    ClusterError,
    DataDirError,
    DatabaseUrlError,
    DemoError,
    KafkaUnavailableError,
    KeyNameError,
    KeyRequestError,
    MigrationError,
    PriceFileError,
    PriceQuestionError,
    RepriceError,
    RetentionError,
    ServiceError,
    SettingsError,
    TopicError,
    TopicFileError,
    TopicUnavailableError,
    TraceError,
    WarehouseUnavailableError,
)


def sentence_for(error: Exception) -> str | None:
    """None for an error that nobody foresaw."""
    if isinstance(error, TOLD):
        return str(error)
    if isinstance(error, ValidationError):
        return _about_settings(error)
    if isinstance(error, ClickHouseError) and "chdb engine" in str(error):
        return _about_engine(str(error))
    if isinstance(error, DatabaseError) and error.code in NOT_MIGRATED:
        return f"the database lacks what this asks for: run insights migrate first ({_first_line(error)})"
    if isinstance(error, ClickHouseError):
        return f"ClickHouse refused: {_first_line(error)}"
    if isinstance(error, KafkaError):
        return f"Kafka refused: {str(error) or type(error).__name__}"
    return None


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


def _about_engine(message: str) -> str:
    """Of what the engine says, the cause: the rest is layers and a stack trace."""
    opening = message.split(":")[0]
    cause = re.search(r"filesystem error: (.*?), Stack trace", message)
    if cause:
        return f"{opening}: {cause[1]}"
    return f"{opening}: another process, perhaps an insights up, has it open; stop that one first"


def _about_settings(error: ValidationError) -> str | None:
    """Names the variable; its value may be a secret."""
    if not error.title.endswith("Settings"):
        return None
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    # What is wrong with several together has no place, and names them.
    return "; ".join(
        f"INSIGHTS_{'.'.join(map(str, item['loc'])).upper()}: ".removeprefix("INSIGHTS_: ")
        + item["msg"].removeprefix("Value error, ")
        for item in problems
    )
