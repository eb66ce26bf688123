"""Checks a stack that `docker compose up --build --wait` has started: `python -m tests.compose.check`.

One event goes in over HTTP and comes out of the API, priced. Then every variable and every panel of the dashboards is
queried through Grafana's own API, with all values and with one value of each variable. Prints a line for each. Ends
with 1 if the event does not come out, or if any query has an error.
"""

import json
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2

from tests.support.checkout import ROOT

API, GRAFANA = "http://127.0.0.1:8080", "http://127.0.0.1:3000"
BOARDS = ROOT / "deploy/grafana/boards"
READ_KEY = ("docker", "compose", "exec", "-T", "api", "cat", "/run/secrets/insights_api_keys")
VISIBLE_WITHIN_SECONDS = 60.0
MODEL, USER, KEY = "gpt-4o", "compose-check", "compose-key"
TOKENS = {"input_tokens": 1200, "cached_input_tokens": 1000, "output_tokens": 300}
COSTS = {
    "input_tokens_cost": "0.000500000000",
    "cached_input_tokens_cost": "0.001250000000",
    "output_tokens_cost": "0.003000000000",
}
# Grafana's page replaces these two before it sends a query; the data source replaces the other macros.
CONDITIONAL = re.compile(r"\$__conditionalAll\(((?:[^()]|\([^()]*\))*), \$(\w+)\)")
QUOTED = re.compile(r"\$\{(\w+):sqlstring\}")
# The values that are chosen for the variables of a dashboard.
ALL: Mapping[str, str] = {}
ONE = {"model": MODEL, "user": USER, "key": KEY}


class CheckError(Exception):
    """The stack does not do what it should; the message says what."""


def filled(sql: str, chosen: Mapping[str, str]) -> str:
    """`sql` as Grafana's page sends it when each variable of `chosen` has that value and every other one has all.

    Raises CheckError for a variable that is left.
    """

    def condition(match: re.Match[str]) -> str:
        return match[1] if match[2] in chosen else "1=1"

    def quoted(match: re.Match[str]) -> str:
        return "'" + chosen[match[1]].replace("'", "''") + "'"

    text = QUOTED.sub(quoted, CONDITIONAL.sub(condition, sql))
    left = re.search(r"\$(?!__)\{?\w+", text)
    if left or "$__conditionalAll" in text:
        raise CheckError(f"not every variable was replaced in {text}")
    return text


def queries_of(board: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, query) of each variable and of each target of each panel of a dashboard."""
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            query = {"refId": "A", "queryType": "table", "format": 1, "editorType": "sql", "rawSql": variable["query"]}
            yield f"variable {variable['name']}", {**query, "datasource": variable["datasource"]}
    for panel in board["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target


def problem_of(status: int, answer: Mapping[str, Any]) -> str | None:
    """What is wrong with an answer of /api/ds/query, None for one with columns (which may have no rows)."""
    results = answer.get("results", {})
    errors = [result["error"] for result in results.values() if result.get("error")]
    if errors:
        return "; ".join(errors)
    if status != 200 or "A" not in results:
        return f"answered {status}: {json.dumps(answer)[:500]}"
    notices = [
        notice["text"] for frame in frames_of(answer) for notice in frame["schema"].get("meta", {}).get("notices", [])
    ]
    if notices:
        return "; ".join(notices)
    return None if frames_of(answer) else "answered without a frame"


def frames_of(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = answer["results"]["A"].get("frames") or []
    return found


def values_of(answer: Mapping[str, Any]) -> list[Any]:
    """All values of all columns of an answer."""
    return [value for frame in frames_of(answer) for column in frame["data"]["values"] for value in column]


def ask(grafana: httpx2.Client, query: Mapping[str, Any], chosen: Mapping[str, str]) -> tuple[str | None, Any]:
    """(problem, answer) of one query over the last day, in the steps of a wide panel."""
    asked = {**query, "rawSql": filled(query["rawSql"], chosen), "intervalMs": 60_000, "maxDataPoints": 1_000}
    response = grafana.post("/api/ds/query", json={"queries": [asked], "from": "now-24h", "to": "now"})
    try:
        answer = response.json()
    except ValueError:
        return f"answered {response.status_code}: {response.text[:500]}", {}
    return problem_of(response.status_code, answer), answer


def send_event(api: httpx2.Client) -> str:
    """The id of an event that the API has taken."""
    request_id = f"compose-check-{uuid.uuid4()}"
    event = {
        "request_id": request_id, "timestamp": datetime.now(UTC).isoformat(), "model_name": MODEL, "provider": "openai",
        "user_id": USER, "api_key_id": KEY, "status": "success", "status_code": 200, "duration_ms": 1840, **TOKENS,
    }  # fmt: skip
    response = api.post("/v1/events", json=event)
    if response.status_code != 202 or response.json() != {"accepted": 1}:
        raise CheckError(f"POST /v1/events answered {response.status_code}: {response.text}")
    return request_id


def wait_for_log(api: httpx2.Client, request_id: str) -> dict[str, Any]:
    """The log of a request, as soon as there is one. Raises CheckError if it takes too long."""
    deadline = time.monotonic() + VISIBLE_WITHIN_SECONDS
    while True:
        response = api.get(f"/v1/request-logs/{request_id}")
        if response.status_code == 200:
            log: dict[str, Any] = response.json()
            return log
        if response.status_code != 404 or time.monotonic() > deadline:
            raise CheckError(f"GET /v1/request-logs/{request_id} answered {response.status_code}: {response.text}")
        time.sleep(0.5)


def check_api() -> None:
    """An event comes out of the API with the costs that it must have."""
    key = subprocess.run(READ_KEY, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
    with httpx2.Client(base_url=API, headers={"Authorization": f"Bearer {key}"}, timeout=30) as api:
        log = wait_for_log(api, send_event(api))
        costs = {name: log[name] for name in COSTS}
        if costs != COSTS:
            raise CheckError(f"the log has the costs {costs} and should have {COSTS}")
    print(f"ok    API: {log['request_id']} costs {log['cost']}")


def check_board(grafana: httpx2.Client, file: Path) -> list[str]:
    """Asks for every query of a dashboard as Grafana has provisioned it; what is wrong, a line each."""
    provisioned = grafana.get(f"/api/dashboards/uid/{file.stem}")
    if provisioned.status_code != 200:
        return [f"{file.stem}: Grafana answered {provisioned.status_code}: {provisioned.text}"]
    board, expected = provisioned.json()["dashboard"], json.loads(file.read_text())
    wrong = []
    if [name for name, _ in queries_of(board)] != [name for name, _ in queries_of(expected)]:
        wrong.append(f"{file.stem}: Grafana has other panels than {file.name}")
    for name, query in queries_of(board):
        for chosen in (ALL, ONE):
            problem, answer = ask(grafana, query, chosen)
            label = f"{file.stem}: {name}, {'one value' if chosen else 'all values'}"
            # The event that was just sent is in every sum of requests.
            if problem is None and name == "Requests" and not values_of(answer):
                problem = "has no value"
            if problem:
                wrong.append(f"{label}: {problem}")
            print(f"{'WRONG' if problem else 'ok   '} {label}", *([problem] if problem else []))
    return wrong


def main() -> int:
    """0 if everything is as it should be."""
    try:
        check_api()
        with httpx2.Client(base_url=GRAFANA, timeout=60) as grafana:
            wrong = [line for file in sorted(BOARDS.glob("*.json")) for line in check_board(grafana, file)]
    except (CheckError, httpx2.HTTPError, subprocess.CalledProcessError) as error:
        print(f"WRONG {error}", getattr(error, "stderr", None) or "")
        return 1
    print(f"{len(wrong)} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
