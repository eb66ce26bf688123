"""The commands that ask an API: every form of output says what the API says, errors are sentences with exit codes."""

import csv
import io
import json
import logging
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pyarrow.parquet
import pytest
import structlog

from aggregator.clickhouse.client import Warehouse
from aggregator.running_stack import RunningStack
from api.app import create_app
from api.request_logs.parameters import LogParameters, StatsParameters
from cli.local_stack.data_dir import DataDir
from cli.main import main
from tests.support.api import KEY, filled_warehouse, id_of, settings
from tests.support.checkout import ROOT
from tests.support.insights import COMMAND, environment, insights, wait_until
from tests.support.rows import Row, insert_rows, payload_of, random_rows
from tests.support.running_api import running_api, scripted_server

EVIL = "\x1b]0;owned\x07\x1b[31mred [bold]x[/bold] \u202egnp.exe"


@dataclass
class Running:
    url: str
    rows: list[Row]
    warehouse: Warehouse

    def plain(self, path: str, **parameters: Any) -> Any:
        """What curl gets."""
        headers = {"Authorization": f"Bearer {KEY}"}
        answer = httpx2.get(self.url + path, params=parameters, headers=headers, trust_env=False)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture(scope="module")
def running(engine_url: str) -> Iterator[Running]:
    rows = random_rows(5, 450)
    rows[0] |= {"request_id": "evil", "model_name": EVIL, "user_id": EVIL, "error_message": EVIL}
    with filled_warehouse(engine_url, rows) as warehouse, running_api(create_app(settings(), warehouse)) as url:
        yield Running(url, rows, warehouse)


Ask = Callable[..., tuple[int, str, str]]


@pytest.fixture
def silent_api() -> Iterator[None]:
    """The API runs in this process, where its log lines would come between."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


@pytest.fixture
def ask(
    running: Running, silent_api: None, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> Ask:
    """Runs a command in this process, in a pipe: exit code, output, errors."""
    monkeypatch.setenv("INSIGHTS_API_URL", running.url)
    monkeypatch.setenv("INSIGHTS_API_KEY", KEY)
    monkeypatch.setenv("COLUMNS", "240")

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["insights", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        sys.stdout.flush()
        out, errors = capfdbinary.readouterr()
        return int(ended.value.code or 0), out.decode(errors="surrogateescape"), errors.decode()

    return run


def test_a_pipe_gets_the_json_of_the_api(running: Running, ask: Ask) -> None:
    code, out, _ = ask("request-logs", "query", "--page-size", 7)
    assert code == 0
    page, plain = json.loads(out), running.plain("/v1/request-logs", page_size=7)
    assert [log["id"] for log in page["logs"]] == [log["id"] for log in plain["logs"]]
    for log, expected in zip(page["logs"], plain["logs"], strict=True):
        assert set(log) == set(expected)
        assert {name for name in log if type(log[name]) is not type(expected[name])} == set()
        assert log["cost"] == expected["cost"]
        assert (log["request_body"], log["metadata"]) == (expected["request_body"], expected["metadata"])


def test_every_filter_of_the_api_is_an_option(ask: Ask) -> None:
    for command, parameters in (("query", LogParameters), ("stats", StatsParameters)):
        _, out, _ = ask("request-logs", command, "--help")
        for name in parameters.model_fields:
            assert f"--{name.replace('_', '-')}" in out, name


@pytest.mark.parametrize(
    "filters",
    [
        {"status": "error", "order_by": "duration_ms", "order_direction": "asc"},
        {"status_code": 200, "model_name": "meta/llama: 'big'"},
        {"min_duration_ms": 10, "max_duration_ms": 2000, "user_id": "Zoë 😀"},
        {"start_time": "2026-01-31T00:00:00Z", "end_time": "2026-02-02T05:30:00+05:30", "api_key_id": "key-1"},
        {"user_id": ""},
    ],
    ids=lambda filters: ",".join(filters),
)
def test_filters_mean_what_they_mean_in_the_api(running: Running, ask: Ask, filters: dict[str, Any]) -> None:
    options = [word for name, value in filters.items() for word in (f"--{name.replace('_', '-')}", value)]
    code, out, errors = ask("request-logs", "query", *options)
    assert code == 0, errors
    plain = running.plain("/v1/request-logs", **filters)
    assert [log["id"] for log in json.loads(out)["logs"]] == [log["id"] for log in plain["logs"]]
    assert json.loads(out)["total_count"] == plain["total_count"]


@pytest.mark.parametrize(("option", "value"), [("--is-error", "true"), ("--no-error", "false")])
@pytest.mark.parametrize(("command", "path"), [("query", "/v1/request-logs"), ("stats", "/v1/request-logs/stats")])
def test_failed_requests_or_only_the_others(
    running: Running, ask: Ask, command: str, path: str, option: str, value: str
) -> None:
    code, out, errors = ask("request-logs", command, option)
    assert code == 0, errors
    count = json.loads(out)["total_count"]
    assert (
        count
        == running.plain(path, is_error=value)["total_count"]
        == sum(row["is_error"] is (value == "true") for row in running.rows)
    )


@pytest.mark.parametrize("form", ["json", "ndjson", "csv", "parquet"])
def test_all_pages_in_every_form_hold_every_log_once_and_every_digit_of_cost(
    running: Running, ask: Ask, form: str
) -> None:
    code, out, errors = ask("request-logs", "query", "--all", "--page-size", 97, "-o", form)
    assert code == 0, errors
    if form == "json":
        found = {log["id"]: log["cost"] for log in json.loads(out)}
    elif form == "ndjson":
        found = {log["id"]: log["cost"] for log in map(json.loads, out.splitlines())}
    elif form == "csv":
        found = {log["id"]: log["cost"] or None for log in csv.DictReader(io.StringIO(out, newline=""))}
    else:
        table = pyarrow.parquet.read_table(io.BytesIO(out.encode(errors="surrogateescape")))
        found = dict(zip(table["id"].to_pylist(), table["cost"].to_pylist(), strict=True))
    costs = {id: None if cost is None else Decimal(cost) for id, cost in found.items()}
    assert costs == {id_of(row): row["cost"] for row in running.rows}


def test_csv_keeps_texts_as_they_are(running: Running, ask: Ask) -> None:
    _, out, _ = ask("request-logs", "query", "--all", "-o", "csv")
    found = {log["id"]: log for log in csv.DictReader(io.StringIO(out, newline=""))}
    for row in running.rows:
        assert found[id_of(row)]["user_id"] == row["user_id"]
        assert found[id_of(row)]["error_message"] == row["error_message"]


def test_no_rows_are_a_header_an_empty_array_and_an_empty_file(ask: Ask) -> None:
    nobody = ("request-logs", "query", "--all", "--user-id", "nobody at all", "-o")
    assert ask(*nobody, "ndjson")[1] == ""
    assert json.loads(ask(*nobody, "json")[1]) == []
    assert ask(*nobody, "csv")[1].startswith("id,request_id,timestamp,")
    table = pyarrow.parquet.read_table(io.BytesIO(ask(*nobody, "parquet")[1].encode(errors="surrogateescape")))
    assert (table.num_rows, table.column_names[:2]) == (0, ["id", "request_id"])


def test_a_table_shows_the_logs_without_what_could_steer_a_terminal(running: Running, ask: Ask) -> None:
    code, out, errors = ask("request-logs", "query", "-o", "table", "--page-size", 1000)
    assert code == 0, errors
    assert f"450 of {len(running.rows)}" in out
    assert out.isprintable() or set(filter(lambda letter: not letter.isprintable(), out)) == {"\n"}
    assert "[bold]x[/bold]" in out
    shown = ask("request-logs", "get", "evil", "-o", "table", "--explain")[1]
    assert set(filter(lambda letter: not letter.isprintable(), shown)) == {"\n"}


def test_one_log_is_explained(running: Running, ask: Ask) -> None:
    priced = next(row for row in running.rows if row["cost"] and re.fullmatch("[a-z0-9-]+", row["request_id"]))
    code, out, errors = ask("request-logs", "get", priced["request_id"])
    assert code == 0, errors
    log, plain = json.loads(out), running.plain(f"/v1/request-logs/{priced['request_id']}")
    assert (log["id"], log["cost"]) == (plain["id"], plain["cost"])
    assert (log["cost_explanation"] is None) == (plain["cost_explanation"] is None)


@pytest.mark.parametrize("group_by", ["model", "user", "api_key", "status", "hour", "day"])
def test_statistics_are_those_of_the_api_for_programs_and_for_people(running: Running, ask: Ask, group_by: str) -> None:
    plain = running.plain("/v1/request-logs/stats", group_by=group_by, metric="cost")
    options = ("request-logs", "stats", "--group-by", group_by, "--metric", "cost")
    answer = json.loads(ask(*options)[1])
    assert answer["total_cost"] == plain["total_cost"]
    assert [one["group"] for one in answer["stats"]] == [one["group"] for one in plain["stats"]]
    assert [one["cost"] for one in answer["stats"]] == [one["cost"] for one in plain["stats"]]
    shown = ask(*options, "-o", "table")[1]
    assert f"{plain['total_count']:,} requests, {plain['error_count']:,} errors" in shown
    rows = list(csv.DictReader(io.StringIO(ask(*options, "-o", "csv")[1], newline="")))
    assert [Decimal(row["cost"]) for row in rows] == [Decimal(one["cost"]) for one in plain["stats"]]


CHART = {"id": "c", "title": "Cost by model", "chartType": "bar", "metric": "sum", "metricField": "cost",
         "groupByField": "engine", "limit": 5}  # fmt: skip
OVER_TIME = {"id": "t", "title": "Requests", "chartType": "line", "metric": "count", "timeSeries": True,
             "timeBucket": "month"}  # fmt: skip


def test_charts_are_those_of_the_api(running: Running, ask: Ask, tmp_path: Path) -> None:
    question = {"customCharts": [CHART, OVER_TIME]}
    file = tmp_path / "question.json"
    file.write_text(json.dumps(question))
    headers = {"Authorization": f"Bearer {KEY}"}
    path = "/api/public/v2/requests/analytics/custom-analytics"
    plain = httpx2.post(running.url + path, json=question, headers=headers, trust_env=False).json()
    answer = json.loads(ask("analytics", "query", file)[1])
    assert [chart["data"] for chart in answer["customCharts"]] == [chart["data"] for chart in plain["customCharts"]]
    shown = ask("analytics", "query", file, "-o", "table")[1]
    assert "Cost by model" in shown
    assert "Requests" in shown
    code, _, errors = ask("analytics", "query", file, "-o", "csv")
    assert (code, "takes the rows of one chart, and the question asks for 2" in errors) == (1, True)
    file.write_text(json.dumps({"customCharts": [OVER_TIME]}))
    rows = list(csv.DictReader(io.StringIO(ask("analytics", "query", file, "-o", "csv")[1], newline="")))
    assert [int(row["value"]) for row in rows] == [row["value"] for row in plain["customCharts"][1]["data"]]


def test_a_search_finds_what_the_api_finds(running: Running, ask: Ask, tmp_path: Path) -> None:
    file = tmp_path / "filter.json"
    file.write_text(json.dumps({"logic": "AND", "filters": [{"field": "status", "operator": "is", "value": "error"}]}))
    code, out, errors = ask("search", "hello", "--filter", file, "--per-page", 3)
    assert code == 0, errors
    page = json.loads(out)
    lines = ask("search", "hello", "--filter", file, "--all", "-o", "ndjson")[1].splitlines()
    assert len(lines) == page["total"]
    code, out, errors = ask("search", "hello", "-o", "table")
    assert code == 0, errors


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["request-logs", "query", "--page-size", -1], 2, "page_size"),
        (["request-logs", "query", "--page-size", 1001], 2, "page_size"),
        (["request-logs", "query", "--status-code", "often"], 2, "--status-code"),
        (["request-logs", "query", "--order-by", "price"], 2, "--order-by"),
        (["request-logs", "query", "--from", "yesterday"], 2, "'yesterday' must be RFC 3339 with a zone"),
        (["request-logs", "query", "--page-token", "nonsense"], 2, "page_token"),
        (["request-logs", "query", "--follow", "--all"], 2, "it does not go with --all"),
        (["request-logs", "query", "--follow", "-o", "csv"], 2, "use --output table or ndjson"),
        (["request-logs", "get", "no-such-log"], 4, "There is no request log with this id"),
        (["request-logs", "get", "stats"], 2, "request_id"),
        (["request-logs", "stats", "--timezone", "Berlin"], 2, "timezone"),
        (["request-logs", "query", "--api-key", "ak-wrong"], 3, "key"),
        (["request-logs", "query", "--api-key", "ü"], 1, "--api-key: must be printable ASCII"),
        (["request-logs", "query", "--api-url", "localhost"], 1, "--api-url: must be like https://"),
        (["request-logs", "query", "--api-url", "http://127.0.0.1:1"], 5, "http://127.0.0.1:1 cannot be reached"),
        (["analytics", "query", "no-such-file"], 2, "'no-such-file' cannot be read: No such file or directory"),
        (["analytics", "query", "README.md"], 2, "README.md: line 1, column 1"),
        (["search", "x", "--page", 0], 2, "--page"),
    ],
)  # fmt: skip
def test_a_wrong_question_is_a_sentence_with_an_exit_code(
    ask: Ask, arguments: list[object], code: int, said: str
) -> None:
    found, out, errors = ask(*arguments)
    assert (found, out) == (code, ""), errors
    assert said in " ".join(errors.replace("│", " ").split())
    assert "Traceback" not in errors


def test_who_must_wait_is_told_by_the_exit_code(ask: Ask) -> None:
    limited = (429, {"content-type": "application/json", "retry-after": "3600"}, b'{"code": "x", "message": "wait"}')
    with scripted_server(limited) as (url, asked):
        code, _, errors = ask("request-logs", "stats", "--api-url", url)
    assert (code, errors, len(asked)) == (5, "insights: wait\n", 1)


def leave_addresses(data_dir: Path, engine: str, api: str) -> None:
    """As a running stack does, whose engine is asked first."""
    RunningStack(clickhouse_url=engine, kafka_bootstrap_servers="k:1", api_url=api).write(data_dir)


def test_without_an_address_the_stack_of_the_data_directory_is_asked_with_its_own_key(
    running: Running, ask: Ask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("INSIGHTS_API_URL")
    monkeypatch.delenv("INSIGHTS_API_KEY")
    code, _, errors = ask("request-logs", "stats", "--data-dir", tmp_path)
    assert code == 1
    assert "no API is named" in errors
    (tmp_path / "api-key").write_text(f"{KEY}\n")
    with DataDir(tmp_path), scripted_server((200, {}, b"Ok.\n")) as (engine, _):
        leave_addresses(tmp_path, engine, running.url)
        assert json.loads(ask("request-logs", "stats", "--data-dir", tmp_path)[1])["total_count"] == len(running.rows)
    # But it is nobody else's key.
    with scripted_server((200, {}, b"{}")) as (url, asked):
        code, _, errors = ask("request-logs", "stats", "--data-dir", tmp_path, "--api-url", url)
    assert (code, asked) == (1, [])
    assert "no key for" in errors


def test_the_port_of_a_stack_that_was_killed_gets_no_key(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("INSIGHTS_API_URL")
    monkeypatch.delenv("INSIGHTS_API_KEY")
    with DataDir(tmp_path) as data:
        data.api_key()
    with scripted_server((200, {}, b"{}")) as (url, asked):
        leave_addresses(tmp_path, url, url)
        code, _, errors = ask("request-logs", "stats", "--data-dir", tmp_path)
    assert (code, asked) == (1, [])
    assert "no API is named" in errors


def new_rows(number: int, count: int) -> list[Row]:
    """Requests of the last minute, in no order."""
    rows, now = random_rows(1_000 + number, count), datetime.now(UTC).replace(microsecond=0)
    for at, row in enumerate(rows):
        row |= {"model_name": "new-model", "request_id": f"followed-{number}-{at}", "source_partition": 7}
        row |= {"source_offset": 500_000 + number * 1_000 + at, "timestamp": now - timedelta(seconds=at * 7919 % 60)}
    return rows


def test_follow_shows_what_is_there_and_then_what_comes_each_once(running: Running, tmp_path: Path) -> None:
    def store(rows: list[Row]) -> set[str]:
        insert_rows(running.warehouse, rows, [payload_of(row) for row in rows])
        return {row["request_id"] for row in rows}

    def followed() -> list[str]:
        return [json.loads(line)["request_id"] for line in output.read_text().splitlines()]

    def shows(count: int) -> bool:
        return len(followed()) >= count

    store(new_rows(0, 20))
    newest = [
        log["request_id"] for log in running.plain("/v1/request-logs", model_name="new-model", page_size=2)["logs"]
    ]
    output = tmp_path / "followed"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [*COMMAND, "request-logs", "query", "--follow", "--page-size", "2", "--model-name", "new-model"],
            env=environment(INSIGHTS_API_URL=running.url, INSIGHTS_API_KEY=KEY),
            stdout=file,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
        )
    try:
        wait_until(partial(shows, 2))
        assert followed() == newest[::-1]
        later: list[str] = []
        for number in (1, 2):
            rows = [row | {"timestamp": row["timestamp"] + timedelta(minutes=2)} for row in new_rows(number, 250)]
            later += store(rows)
            wait_until(partial(shows, 2 + len(later)))
        assert sorted(followed()[2:]) == sorted(later)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    finally:
        with suppress(ProcessLookupError):
            process.kill()


def on_a_terminal(*arguments: str, **settings: str) -> tuple[int, str]:
    """A command with a terminal for its output."""
    leader, follower = pty.openpty()
    shell = environment(TERM="xterm-256color", **settings)
    with subprocess.Popen([*COMMAND, *arguments], env=shell, stdout=follower, stderr=follower) as process:
        os.close(follower)
        out = b""
        with suppress(OSError):  # how Linux says that the other end is closed
            while chunk := os.read(leader, 65536):
                out += chunk
        os.close(leader)
    return process.returncode, out.decode()


def test_a_terminal_gets_a_table_in_colour_unless_no_color_is_set(running: Running) -> None:
    api = {"INSIGHTS_API_URL": running.url, "INSIGHTS_API_KEY": KEY}
    code, out = on_a_terminal("request-logs", "stats", "--metric", "count", **api)
    assert code == 0
    assert "count by model" in out
    assert "\x1b[36" in out
    _, plain = on_a_terminal("request-logs", "stats", **api, NO_COLOR="1")
    assert "\x1b[3" not in plain
    code, out = on_a_terminal("request-logs", "query", "-o", "parquet", **api)
    assert (code, "--output parquet is not text" in out) == (1, True)


def test_a_shell_completes_commands_options_and_values() -> None:
    def completed(words: str, at: int) -> list[str]:
        shell = {"_INSIGHTS_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(at)}
        command = [str(Path(sys.executable).with_name("insights"))]
        return subprocess.run(
            command, env=environment(**shell), capture_output=True, text=True, check=False
        ).stdout.split()

    assert "request-logs" in completed("insights re", 1)
    assert completed("insights request-logs st", 2) == ["stats"]
    assert "--group-by" in completed("insights request-logs stats --gr", 3)
    assert completed("insights request-logs stats --metric c", 4) == ["count", "cost"]
    assert "--show-completion" in insights("--help").stdout


def test_the_commands_of_the_page_about_clients_run(running: Running, tmp_path: Path) -> None:
    page = (ROOT / "docs/clients.md").read_text()
    section = page[page.index("## The command line") :].split("\n## ")[0]
    [script] = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    shell = environment(INSIGHTS_API_URL=running.url, INSIGHTS_API_KEY=KEY, PATH=path)
    ran = subprocess.run(["bash", "-euxo", "pipefail", "-c", script], env=shell, cwd=tmp_path, capture_output=True,
                         text=True, check=False)  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert pyarrow.parquet.read_table(tmp_path / "errors.parquet").num_rows > 0
