"""What the documents say about fields and settings is what the code has."""

import re

import pytest
from pydantic_settings import BaseSettings

from aggregator.budgets.settings import AggregateSettings
from aggregator.settings import KafkaSettings
from cli.settings import AdminSettings, ApiCommandSettings, UpSettings
from ingest.settings import IngestSettings
from router_insights.emitter.event import RequestEvent
from tests.support.checkout import ROOT

DOCS = ROOT / "docs"


def first_cells(document: str) -> list[str]:
    """The code in the first column of the document's tables."""
    return re.findall(r"^\| `([^`]+)` \|", (DOCS / document).read_text(), re.MULTILINE)


def test_every_field_of_an_event_is_documented_in_order() -> None:
    assert first_cells("events.md") == list(RequestEvent.model_fields)


@pytest.mark.parametrize(
    "settings", [IngestSettings, ApiCommandSettings, AdminSettings, AggregateSettings, KafkaSettings, UpSettings]
)
def test_every_setting_is_described_and_documented(settings: type[BaseSettings]) -> None:
    documented = first_cells("settings.md")
    for name, field in settings.model_fields.items():
        assert field.description
        assert f"INSIGHTS_{name.upper()}" in documented


def test_no_setting_is_documented_that_does_not_exist() -> None:
    known = {
        f"INSIGHTS_{name.upper()}"
        for settings in (IngestSettings, ApiCommandSettings, AdminSettings, AggregateSettings)
        for name in settings.model_fields
    }
    assert set(first_cells("settings.md")) == known | {"INSIGHTS_DATA_DIR"}


def test_what_failed_elsewhere_is_covered_by_tests_that_exist() -> None:
    page = (DOCS / "pitfalls.md").read_text()
    rows = re.findall(r"^\| (\d+) \|[^|]+\|([^|]+)\|$", page, re.MULTILINE)
    numbers = [int(number) for number, _ in rows]
    assert numbers == list(range(1, 45))
    for number, covered in rows:
        tests = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", covered)
        links = re.findall(r"\]\(([^)#]+)\)", covered)
        assert tests or links, f"nothing covers {number}"
        for file, name in tests:
            assert f"def {name}(" in (ROOT / file).read_text(), f"{number}: {file} has no {name}"
        for link in links:
            assert (DOCS / link).exists(), f"{number}: there is no {link}"


def test_no_query_over_requests_asks_for_final() -> None:
    sources = [
        path for folder in ("aggregator", "api", "cli", "ingest") for path in (ROOT / folder).rglob("*.[ps][yq]*")
    ]
    assert len(sources) > 50
    asking = [
        path.name for path in sources if re.search(r"request_(logs|payloads)(\s+AS\s+\w+)?\s+FINAL\b", path.read_text())
    ]
    assert asking == []


def test_the_page_of_goals_fits_two_screens() -> None:
    """Experiments belong into docs/performance/log.md, whole tables into results.md."""
    assert len((DOCS / "performance.md").read_text().splitlines()) <= 100
