"""Every error of the source either ends a command with a sentence, or is caught within the program."""

import ast
from collections.abc import Iterator

import pytest
from pydantic_settings import SettingsError

from aggregator.clickhouse.client import DatabaseError, WarehouseUnavailableError
from aggregator.errors import InsightsError
from cli.errors import sentence_for
from router_insights.errors import KafkaUnavailableError, RouterInsightsError
from tests.support.checkout import ROOT

# Who catches each of them stands beside it.
CAUGHT_WITHIN = {
    "ApiError",  # the handlers of api/errors.py
    "BudgetsUnavailableError",  # the routes of budgets, and the budgets command
    "EngineError",  # the HTTP interface of the engine
    "ExtractionError",  # the decoder
    "PartitionLostError",  # the worker
    "PeriodError",  # the arguments of MCP tools, which answer 400
    "PricesUnavailableError",  # the tool that tells prices, which answers 503
    "CallOverError",  # the handlers of api/errors.py
    "QueueFullError",  # who asks for a turn, which answers 503
    "TopicChangedError",  # the worker
    "ValuesTooLargeError",  # the request that binds the values
    # Ends the worker as a fault does, with a traceback.
    "DeadLetterLimitError",
}


SERVER = ("aggregator", "api", "cli", "deploy", "ingest")
CLIENT = ("clients/python/router_insights",)


def exception_classes(*packages: str) -> Iterator[tuple[str, list[str]]]:
    """(name, names of its bases) of every exception class of the source, as its name says."""
    for package in packages:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef):
                    bases = [ast.unparse(base).rpartition(".")[2] for base in node.bases]
                    if any(base.endswith(("Error", "Exception")) for base in bases):
                        yield node.name, bases


def derived_from(root: type[Exception], *packages: str) -> set[str]:
    """The classes that derive from `root`, by whatever way, and itself."""
    found = {root.__name__}
    while more := {name for name, bases in exception_classes(*packages) if found & {*bases}} - found:
        found |= more
    return found


def test_an_error_has_a_sentence_for_people_or_is_caught_within_the_program() -> None:
    names = {name for name, _ in exception_classes(*SERVER)}
    with_a_sentence = derived_from(InsightsError, *SERVER)
    assert with_a_sentence | CAUGHT_WITHIN == names
    assert not with_a_sentence & CAUGHT_WITHIN
    assert len(with_a_sentence) > 20


def test_every_error_of_the_client_has_a_sentence_for_people() -> None:
    names = {name for name, _ in exception_classes(*CLIENT)}
    assert derived_from(RouterInsightsError, *CLIENT) == names
    assert len(names) > 10


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        pytest.param(WarehouseUnavailableError("ClickHouse is away"), "ClickHouse is away", id="ours"),
        pytest.param(KafkaUnavailableError("Kafka is away"), "Kafka is away", id="the client's"),
        pytest.param(SettingsError("what was set is no list"), "what was set is no list", id="settings"),
        pytest.param(DatabaseError("Code: 42. no\nstack"), "ClickHouse refused: Code: 42. no", id="ClickHouse"),
        pytest.param(RuntimeError("a fault"), None, id="fault"),
    ],
)
def test_an_error_becomes_its_sentence_and_a_fault_none(error: Exception, sentence: str | None) -> None:
    assert sentence_for(error) == sentence
