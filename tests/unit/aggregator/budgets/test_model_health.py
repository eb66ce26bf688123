"""The rules of the alerts on models' behaviour, each at its edge."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from aggregator.budgets import model_health
from aggregator.budgets.alert import AlertKind
from aggregator.budgets.increment import Usage
from aggregator.budgets.model_health import ModelHistory
from aggregator.budgets.period import minutes

NOW = datetime(2026, 11, 24, 12, 30, 30, tzinfo=UTC)


def usage(
    ago: int, requests: int, errors: int = 0, unpriced: int = 0, missing: int = 0, failed: int = 0, mean_ms: int = 100
) -> Usage:
    return Usage(
        "model", "gpt", minutes(NOW) - ago, requests, errors, unpriced, missing, failed,
        0, Decimal(0), requests * mean_ms, requests,
    )  # fmt: skip


def kinds(*found: Usage, now: datetime = NOW) -> list[AlertKind]:
    history = ModelHistory()
    history.add(found)
    return [alert.kind for alert in model_health.new_alerts(history, {}, now)]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param([usage(10, 100), usage(0, 100)], [], id="all is well"),
        pytest.param([usage(10, 100), usage(4, 100, errors=4)], [], id="fewer errors than 5 %"),
        pytest.param([usage(10, 100), usage(4, 100, errors=5)], [AlertKind.ERROR_RATE], id="5 % errors out of nothing"),
        pytest.param([usage(10, 100, errors=4), usage(4, 100, errors=11)], [], id="less than three times as many"),
        pytest.param(
            [usage(10, 100, errors=4), usage(4, 100, errors=12)], [AlertKind.ERROR_RATE], id="three times as many"
        ),
        pytest.param([usage(10, 100), usage(4, 49, errors=49)], [], id="too few to judge"),
        pytest.param([usage(4, 100, errors=50)], [], id="nothing to compare with"),
        pytest.param([usage(186, 100), usage(4, 100, errors=50)], [], id="what is too old does not count"),
        pytest.param([usage(10, 100), usage(4, 100, mean_ms=199)], [], id="not twice as slow"),
        pytest.param([usage(10, 100), usage(4, 100, mean_ms=200)], [AlertKind.LATENCY], id="twice as slow"),
        pytest.param([usage(60, 719)], [], id="silence of a model that was hardly used"),
        pytest.param([usage(60, 720)], [AlertKind.SILENCE], id="silence of a busy model"),
        pytest.param([usage(60, 720), usage(4, 1)], [], id="one request is no silence"),
        pytest.param([usage(10, 100), usage(4, 100, unpriced=9)], [], id="few without a price"),
        pytest.param([usage(10, 100), usage(4, 100, unpriced=10)], [AlertKind.UNPRICED], id="a tenth without a price"),
        pytest.param([usage(10, 100), usage(4, 100, missing=9)], [], id="few without usage"),
        pytest.param(
            [usage(10, 100), usage(4, 100, missing=10)], [AlertKind.MISSING_USAGE], id="a tenth without usage"
        ),
        pytest.param([usage(10, 100, 90), usage(4, 100, 90, failed=90)], [], id="failed requests need no usage"),
        pytest.param(
            [usage(10, 200, 100), usage(4, 200, 100, unpriced=10, failed=100)],
            [AlertKind.UNPRICED],
            id="a tenth of those with usage",
        ),
        pytest.param(
            [usage(10, 200, 100), usage(4, 200, 100, missing=10, failed=100)],
            [AlertKind.MISSING_USAGE],
            id="a tenth of those that succeeded",
        ),
        pytest.param([usage(10, 100), usage(4, 100, missing=51, unpriced=49)], [AlertKind.MISSING_USAGE], id="too few"),
    ],
)
def test_a_rule_speaks_from_its_edge_on(found: list[Usage], expected: list[AlertKind]) -> None:
    assert kinds(*found) == expected


def test_each_kind_speaks_once_per_model_and_hour() -> None:
    history, known = ModelHistory(), dict[str, datetime]()
    history.add([usage(10, 100), usage(0, 100, errors=50, mean_ms=900)])
    assert len(list(model_health.new_alerts(history, known, NOW))) == 2
    assert list(model_health.new_alerts(history, known, NOW + timedelta(minutes=1))) == []
    later = NOW.replace(hour=13, minute=0)
    history.add([Usage("model", "gpt", minutes(later), 100, 90, 0, 0, 0, 0, Decimal(0), 90_000, 100)])
    assert [alert.kind for alert in model_health.new_alerts(history, known, later)] == [AlertKind.ERROR_RATE]


def test_usage_of_other_scopes_is_not_a_models() -> None:
    history = ModelHistory()
    history.add([usage(0, 100)._replace(kind="user"), usage(0, 100)._replace(kind="total", value="")])
    assert not history.models


def test_usage_of_closed_minutes_is_not_added_to_what_rollups_hold() -> None:
    history = ModelHistory()
    history.add([usage(20, 7), usage(5, 7)])
    history.closed_before = minutes(NOW) - 15
    history.add([usage(20, 1), usage(16, 1), usage(15, 1), usage(5, 1)])
    [sums] = history.models.values()
    assert {minutes(NOW) - minute: each.requests for minute, each in sums.items()} == {20: 7, 15: 1, 5: 8}


def test_what_is_too_old_is_dropped() -> None:
    history = ModelHistory()
    history.add([usage(201, 1), usage(199, 1)])
    history.drop_old(NOW)
    assert [len(found) for found in history.models.values()] == [1]
    history.drop_old(NOW + timedelta(hours=1))
    assert not history.models
