"""The alert rules ask for metrics that exist, and the operations page explains each alert."""

import re
from typing import Any, get_args

import promql_parser
import pytest
import yaml
from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase

import aggregator.budgets.metrics
import api.metrics
import ingest.metrics
from aggregator.cost_explanation import Reason
from tests.support.checkout import ROOT

LOADED = (aggregator.budgets.metrics, api.metrics, ingest.metrics)


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def labels_by_sample() -> dict[str, set[str]]:
    """Names that a scrape shows, with the labels that each has."""
    found = {}
    for collector in set(REGISTRY._names_to_collectors.values()):
        labels = set(getattr(collector, "_labelnames", ()))
        for name, owner in REGISTRY._names_to_collectors.items():
            if owner is collector:
                found[name] = labels | ({"le"} if name.endswith("_bucket") else set())
    return found


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_a_rule_asks_for_metrics_and_labels_that_exist(rule: dict[str, Any]) -> None:
    known = labels_by_sample()
    names = set(re.findall(r"\binsights_\w+", rule["expr"]))
    assert names
    assert names <= known.keys()
    asked = {label for inner in re.findall(r"\{([^}]*)\}", rule["expr"]) for label in re.findall(r"(\w+)\s*=", inner)}
    asked |= {name.strip() for inner in re.findall(r"by \(([^)]*)\)", rule["expr"]) for name in inner.split(",")}
    asked |= set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    assert asked <= set().union(*(known[name] for name in names))


def test_each_reason_of_a_missing_cost_has_the_alert_of_whose_work_it_is() -> None:
    """One that failed without usage has none."""
    asked = {
        rule["alert"]: re.findall(r'insights_unpriced_rows_total\{reason="(\w+)"\}', rule["expr"])
        for rule in rules()
        if "insights_unpriced_rows_total" in rule["expr"]
    }
    assert asked == {"InsightsUnpriced": ["no_price"], "InsightsUsageMissing": ["no_usage"]}
    assert {"no_price", "no_usage", "failed_without_usage"} == set(get_args(Reason))


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_a_rule_is_promql_of_the_right_types(rule: dict[str, Any]) -> None:
    """By the grammar and the functions' types of Prometheus. What is no comparison would always fire."""
    parsed = promql_parser.parse(rule["expr"])
    assert isinstance(parsed, promql_parser.BinaryExpr) or rule["expr"].startswith("absent(")


def test_the_file_is_what_prometheus_reads() -> None:
    """Its fields, in words of our own: Prometheus refuses a file with any other."""
    document = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())
    assert set(document) == {"groups"}
    names = [group["name"] for group in document["groups"]]
    assert len(set(names)) == len(names) > 1
    for group in document["groups"]:
        assert {"name", "rules"} <= set(group) <= {"name", "rules", "interval", "limit", "labels"}
    alerts = [rule["alert"] for rule in rules()]
    assert len(set(alerts)) == len(alerts) > 10


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_a_rule_waits_for_a_time_and_its_summary_is_a_template(rule: dict[str, Any]) -> None:
    if "for" in rule:
        assert promql_parser.parse_duration(rule["for"]).total_seconds() >= 300
    summary = rule["annotations"]["summary"]
    left = re.sub(r"\{\{ \$(?:value|labels\.\w+) \}\}", "", summary)
    assert not set("{}$") & set(left), summary
    assert set(rule["annotations"]) == {"summary"}


@pytest.mark.parametrize("wrong", ["rate(insights_rows_total)", "sum(insights_rows_total", "histogram_quantile(0.9)"])
def test_the_parser_would_see_a_mistake(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"expected|unclosed"):
        promql_parser.parse(wrong)


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_is_complete_and_explained(rule: dict[str, Any]) -> None:
    assert set(rule) - {"for"} == {"alert", "expr", "labels", "annotations"}
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert f"| `{rule['alert']}` |" in (ROOT / "docs/operations.md").read_text()


def test_every_metric_is_documented() -> None:
    text = (ROOT / "docs/operations.md").read_text()
    for module in LOADED:
        for metric in vars(module).values():
            if isinstance(metric, MetricWrapperBase):
                (described,) = metric.describe()
                assert f"`{described.name}" in text, described.name
