"""What the check of a started stack sends to Grafana, and what it takes for an error."""

import json
import re
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, ClassVar

import httpx2
import pytest

from tests.compose import check

GOOD = {"results": {"A": {"status": 200, "frames": [{"schema": {"fields": []}, "data": {"values": [[1]]}}]}}}
BAD = {"results": {"A": {"status": 500, "error": "Unknown table expression identifier 'nothing'"}}}
BOARDS = {file.stem: json.loads(file.read_text()) for file in sorted(check.BOARDS.glob("*.json"))}
QUERIES = [query for board in BOARDS.values() for _, query in check.queries_of(board)]


@pytest.mark.parametrize("chosen", [check.ALL, check.ONE], ids=["all", "one"])
def test_only_macros_of_the_data_source_are_left(chosen: dict[str, str]) -> None:
    assert len(QUERIES) > 30
    for query in QUERIES:
        left = set(re.findall(r"\$\w+", check.filled(query["rawSql"], chosen)))
        assert left <= {"$__timeFilter", "$__timeFilter_ms", "$__timeInterval"}


def test_a_condition_holds_for_a_chosen_value_and_is_none_for_all() -> None:
    sql = "WHERE $__conditionalAll(user_id IN (${user:sqlstring}), $user)"
    assert check.filled(sql, check.ALL) == "WHERE 1=1"
    assert check.filled(sql, {"user": "O'Hara"}) == "WHERE user_id IN ('O''Hara')"


@pytest.mark.parametrize("sql", ["SELECT $team", "SELECT ${team}", "WHERE $__conditionalAll(f(g(h())), $user)"])
def test_a_variable_that_is_left_is_an_error(sql: str) -> None:
    with pytest.raises(check.CheckError, match="not every variable"):
        check.filled(sql, check.ALL)


@pytest.mark.parametrize(
    ("status", "answer", "problem"),
    [
        (200, GOOD, None),
        (400, BAD, "Unknown table"),
        (207, BAD, "Unknown table"),
        (401, {"message": "Unauthorized"}, "answered 401"),
        (200, {"results": {}}, "answered 200"),
        (200, {"results": {"A": {"status": 200, "frames": []}}}, "without a frame"),
    ],
)
def test_an_answer_is_good_only_with_columns(status: int, answer: dict[str, Any], problem: str | None) -> None:
    found = check.problem_of(status, answer)
    assert (found is None) if problem is None else (problem in (found or ""))


class Stack(BaseHTTPRequestHandler):
    """Grafana and the API at once, as far as the check asks. Queries with `broken_sql` fail."""

    events: ClassVar[list[dict[str, Any]]] = []
    broken_sql = ""

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, status: int, body: object) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        if name in BOARDS:
            self._answer(200, {"dashboard": BOARDS[name]})
        elif self.events and self.headers["Authorization"] == "Bearer ak-1":
            self._answer(200, {**self.events[-1], **check.COSTS, "cost": "0.004750000000"})
        else:
            self._answer(404, {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/v1/events":
            self.events.append(body)
            self._answer(202, {"accepted": 1})
        else:
            [query] = body["queries"]
            is_broken = bool(self.broken_sql) and self.broken_sql in query["rawSql"]
            self._answer(400 if is_broken else 200, BAD if is_broken else GOOD)


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Stack) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(check, "API", address)
        monkeypatch.setattr(check, "GRAFANA", address)
        monkeypatch.setattr(check, "READ_KEY", (sys.executable, "-c", "print('ak-1')"))
        yield
        server.shutdown()
        thread.join()


@pytest.mark.usefixtures("stack")
def test_a_good_stack_passes(capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main() == 0
    said = capsys.readouterr().out
    assert said.count("ok    insights-") == 2 * len(QUERIES)
    assert said.endswith("0 wrong\n")


@pytest.mark.usefixtures("stack")
def test_one_bad_panel_fails_the_check_and_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Stack, "broken_sql", "arrayJoin(tags)")
    assert check.main() == 1
    assert "WRONG insights-spend: Tags, all values Unknown table" in capsys.readouterr().out


@pytest.mark.usefixtures("stack")
def test_a_wrong_cost_fails_the_check(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(check, "COSTS", {**check.COSTS, "input_tokens_cost": "1"})
    monkeypatch.setattr(Stack, "_answer", lambda self, status, body: _cheaper(self, status, body))
    assert check.main() == 1
    assert "should have" in capsys.readouterr().out


_answer = Stack._answer


def _cheaper(stack: Stack, status: int, body: Any) -> None:
    _answer(stack, status, {**body, "input_tokens_cost": "0"} if "cost" in body else body)


def test_nothing_that_answers_is_a_failure_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check, "READ_KEY", (sys.executable, "-c", "print('ak-1')"))
    monkeypatch.setattr(check, "API", "http://127.0.0.1:9")
    assert check.main() == 1
    assert "WRONG" in capsys.readouterr().out
    assert issubclass(httpx2.ConnectError, httpx2.HTTPError)
