"""ClickHouse's HTTP interface in front of chDB, in a process of its own: for tests in which the server fails.

The engine, its tables on disk and its deduplication are the real ones, and the HTTP server is the one of `insights up`.
`python -m tests.support.clickhouse_http --data DIR --port P` runs it, with `--config FILE` under a configuration. It
may be killed at any moment and started again on its data.

Faults are given to `POST /faults` as JSON (see `Fault`) and strike the next inserts, in the order they were given;
`DELETE /faults` forgets them, `GET /faults` lists those that are left.

`GET /cpu` answers with the CPU seconds that the process has used.

`POST /pretend` takes a JSON object of SQL that stands for other SQL in every statement from then on, such as
`{"now()": "(now() - 180)"}`: a server whose clock or version is another one, which this machine cannot be.
"""

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import MutableMapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

import httpx2
import uvicorn
from pydantic import BaseModel, TypeAdapter

from cli.local_stack.broker import HOST, is_listening
from cli.local_stack.engine_http import (
    Engine,
    EngineError,
    EngineHttp,
    EngineStatement,
    Receive,
    Scope,
    Send,
    answer,
    answer_error,
    read_body,
    statement_of,
)
from cli.local_stack.supervisor import start_supervised, stop_supervised
from tests.support.kafka import free_port

START_TIMEOUT_SECONDS = 120.0


class Fault(BaseModel):
    """What happens to the next `times` inserts into `table` (empty: any).

    `delay` waits `seconds` before the insert; `fail` answers with ClickHouse's error `code` instead of inserting;
    `refuse` answers with the bare status `code` of a balancer in front of ClickHouse; `drop_before` closes the
    connection instead of inserting, `drop_after` instead of answering.
    """

    action: Literal["delay", "fail", "refuse", "drop_before", "drop_after"]
    table: str = ""
    times: int = 1
    seconds: float = 0.0
    code: int = 0


class RefusedError(Exception):
    """A balancer in front of ClickHouse answers in its place, with this status and a page of its own."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Front(EngineHttp):
    """The front of the product without its secret, and with faults."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._faults: list[Fault] = []
        self._pretended: dict[str, str] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/faults":
            await answer(send, 200, self._control(scope["method"], await read_body(receive)))
        elif scope["path"] == "/pretend":
            self._pretended = TypeAdapter(dict[str, str]).validate_json(await read_body(receive))
            await answer(send, 200, b"")
        elif scope["path"] == "/cpu":
            await answer(send, 200, str(time.process_time()).encode())
        elif scope["path"] == "/ping":
            await super().__call__(scope, receive, send)
        else:
            await self._run_with_faults(statement_of(scope, await read_body(receive)), receive, send)

    def _control(self, method: str, body: bytes) -> bytes:
        if method == "POST":
            self._faults += TypeAdapter(list[Fault]).validate_json(body)
        elif method == "DELETE":
            self._faults.clear()
        return TypeAdapter(list[Fault]).dump_json(self._faults)

    def _strike(self, table: str) -> Fault | None:
        """The fault that an insert into `table` meets, counted down."""
        for fault in self._faults:
            if fault.table in {"", table}:
                fault.times -= 1
                if fault.times <= 0:
                    self._faults.remove(fault)
                return fault
        return None

    async def _run_with_faults(self, statement: EngineStatement, receive: Receive, send: Send) -> None:
        fault = self._strike(statement.table) if statement.table else None
        sql = statement.sql
        for real, pretended in self._pretended.items():
            sql = sql.replace(real, pretended)
        try:
            if fault is not None:
                await self._before(fault, receive)
            drops_answer = fault is not None and fault.action == "drop_after"
            await self.run(replace(statement, sql=sql), _into_nothing if drops_answer else send)
            if drops_answer:
                _drop(receive)
        except EngineError as error:
            await answer_error(send, error)
        except RefusedError as error:
            await send({"type": "http.response.start", "status": error.status, "headers": []})
            await send({"type": "http.response.body", "body": b"<html>no healthy upstream</html>"})
        except ConnectionAbortedError:
            pass

    async def _before(self, fault: Fault, receive: Receive) -> None:
        if fault.action == "delay":
            await asyncio.sleep(fault.seconds)
        elif fault.action == "fail":
            raise EngineError(f"Code: {fault.code}. DB::Exception: A fault that the test asked for.")
        elif fault.action == "refuse":
            raise RefusedError(fault.code)
        elif fault.action == "drop_before":
            _drop(receive)
            raise ConnectionAbortedError


async def _into_nothing(message: MutableMapping[str, Any]) -> None:
    """Nobody gets the answer."""


def _drop(receive: Receive) -> None:
    """Close the connection without an answer. ASGI knows no way to, so this reaches for uvicorn's transport."""
    receive.__self__.transport.abort()  # type: ignore[attr-defined]


class ClickHouseServer:
    """The front as a child process on `folder`: it may be stopped, killed and started again on its data."""

    def __init__(self, folder: Path, config: Path | None = None) -> None:
        self._folder = folder
        self._config = config
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self._port}"

    @property
    def folder(self) -> Path:
        return self._folder

    def start(self) -> None:
        """Start and wait until it answers."""
        self._folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "tests.support.clickhouse_http"]
        if self._config:
            command += ["--config", str(self._config)]
        with (self._folder.parent / "clickhouse.log").open("ab") as log:
            self._process = start_supervised(
                [*command, "--data", str(self._folder), "--port", str(self._port)], grace_seconds=5, output=log
            )
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not is_listening(self._port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError("the ClickHouse front did not start; see clickhouse.log")
            time.sleep(0.02)

    def inject(self, *faults: Fault) -> None:
        httpx2.post(f"{self.address}/faults", content=json.dumps([fault.model_dump() for fault in faults]))

    def forget_faults(self) -> None:
        httpx2.delete(f"{self.address}/faults")

    def faults_left(self) -> list[Fault]:
        return TypeAdapter(list[Fault]).validate_json(httpx2.get(f"{self.address}/faults").content)

    def pretend(self, answers: dict[str, str]) -> None:
        httpx2.post(f"{self.address}/pretend", content=json.dumps(answers)).raise_for_status()

    def stop(self) -> None:
        if self._process is not None:
            stop_supervised(self._process)
            self._process = None

    def kill9(self) -> None:
        """End it as a power cut of the process would; `start` runs it on the same data again."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self.stop()
        while is_listening(self._port):
            time.sleep(0.01)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--config", type=Path)
    arguments = parser.parse_args()
    front = Front(Engine(arguments.data, arguments.config))
    uvicorn.run(
        front, host=HOST, port=arguments.port, http="h11", lifespan="off", access_log=False, log_level="warning"
    )


if __name__ == "__main__":
    main()
