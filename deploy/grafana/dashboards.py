"""Writes the dashboards' JSON from `panels.py`: `make dashboards`. A test holds the files to it."""

import json
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import dashboard, stat, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import dashboard as models

from deploy.grafana.panels import BOARDS, TEXT, Board, GrafanaPanel

FOLDER = Path(__file__).with_name("boards")
PLUGIN, PLUGIN_VERSION = "grafana-clickhouse-datasource", "4.20.0"
SOURCE = models.DataSourceRef(type_val=PLUGIN, uid="insights")
TAG = "router-insights"
# The API's address in the browser of whoever reads the dashboard; a constant of each dashboard.
API_URL = "http://localhost:8080"


class ClickHouseQuery(Dataquery, Builder[Dataquery]):
    """The data source's query as its SQL editor stores it; `format` 0 makes it a time series."""

    def __init__(self, sql: str, is_series: bool) -> None:
        self._sql = sql
        self._is_series = is_series

    def build(self) -> Dataquery:
        return self

    def to_json(self) -> dict[str, Any]:
        return {
            "refId": "A",
            "datasource": SOURCE,
            "editorType": "sql",
            "format": 0 if self._is_series else 1,
            "queryType": "timeseries" if self._is_series else "table",
            "pluginVersion": PLUGIN_VERSION,
            "rawSql": self._sql,
        }


def _builder(panel: GrafanaPanel) -> Any:
    # The builders' common base lacks their methods, and which type mypy infers depends on the order of its files.
    kinds: dict[str, Any] = {"timeseries": timeseries.Panel, "stat": stat.Panel, "table": table.Panel}
    builder = (
        kinds[panel.kind]()
        .title(panel.title)
        .description(panel.description)
        .datasource(SOURCE)
        .span(panel.width)
        .height(panel.height)
        .with_target(ClickHouseQuery(panel.sql, panel.kind == "timeseries"))
    )
    if panel.kind == "timeseries":
        units = {unit for column, unit in panel.units.items() if column != "time" and unit != TEXT}
        # All series share one axis.
        [unit] = units
        return builder.unit(unit).fill_opacity(10).min(0)
    for column, unit in panel.units.items():
        properties = [models.DynamicConfigValue("unit", unit)] if unit != TEXT else []
        if column == panel.link:
            url = "${api}/v1/request-logs/${__value.raw:percentencode}"
            link = {"title": "the log in the API", "url": url, "targetBlank": True}
            properties.append(models.DynamicConfigValue("links", [link]))
        if properties:
            builder.override_by_name(column, properties)
    return builder


def _variable(name: str, sql: str) -> dashboard.QueryVariable:
    everything = models.VariableOption(selected=True, text=["All"], value=["$__all"])
    return (
        dashboard.QueryVariable(name)
        .label(name)
        .query(sql)
        .datasource(SOURCE)
        .multi(True)
        .include_all(True)
        .current(everything)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
    )


def build(board: Board) -> str:
    """A dashboard as the JSON that Grafana provisions."""
    links = models.DashboardLinkType
    others = dashboard.DashboardLink("Other dashboards").type(links.DASHBOARDS).tags([TAG]).keep_time(True)
    api = dashboard.DashboardLink("API").type(links.LINK).url("${api}/docs").target_blank(True)
    made = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags([TAG])
        .time("now-24h", "now")
        .refresh("1m")
        .timezone("browser")
        .link(others)
        .link(api)
        .with_variable(dashboard.ConstantVariable("api").value(API_URL))
    )
    for name, sql in board.variables.items():
        made.with_variable(_variable(name, sql))
    for panel in board.panels:
        made.with_panel(_builder(panel))
    return json.dumps(made.build(), cls=JSONEncoder, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for board in BOARDS:
        (FOLDER / f"{board.uid}.json").write_text(build(board))


if __name__ == "__main__":
    main()
