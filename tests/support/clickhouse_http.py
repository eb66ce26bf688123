"""ClickHouse's HTTP interface in front of chDB, in a process of its own: for tests in which the server fails.

The engine, its tables on disk and its deduplication are the real ones; only the HTTP server is ours. It speaks as
much of the protocol as clickhouse-connect uses. `python -m tests.support.clickhouse_http --data DIR --port P` runs
it, with `--config FILE` under a configuration; it may be killed at any moment and started again on its data.

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
import re
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import parse_qsl

import httpx2
import uvicorn
from pydantic import BaseModel, TypeAdapter

from cli.local_stack.broker import HOST, is_listening
from cli.local_stack.supervisor import start_supervised, stop_supervised
from tests.support.kafka import free_port

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

START_TIMEOUT_SECONDS = 120.0
THREADS = 16
# Parameters of the URL that are no settings of the engine.
TRANSPORT = """
query database user password query_id session_id session_timeout session_check compress decompress buffer_size
wait_end_of_query client_protocol_version send_progress_in_http_headers http_headers_progress_interval_ms
enable_http_compression quota_key role default_format
""".split()  # noqa: SIM905 - a list of words is easier to read
INSERT = re.compile(rb"\s*INSERT\s+INTO\s+([^\s(]+)[^\n]*?\sFORMAT\s+\w+\s*(?:\n|$)", re.IGNORECASE)
FORMAT = re.compile(r"\sFORMAT\s+(\w+)\s*;?\s*$", re.IGNORECASE)
CODE = re.compile(r"Code: (\d+)\.")
STATUS_OF_CODE = {60: 404, 81: 404, 516: 401}


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


class EngineError(Exception):
    """What the engine answers to a statement it cannot run."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        found = CODE.search(message)
        self.code = int(found[1]) if found else 1002


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


class Engine:
    """chDB on a folder; each statement gets a connection of its own, so settings never leak into another."""

    def __init__(self, folder: Path, config: Path | None = None) -> None:
        self._folder = str(folder.resolve()) + (f"?config-file={config.resolve()}" if config else "")
        self._keep_open = self._connect()

    def _connect(self) -> Any:
        import chdb

        return chdb.connect(self._folder)  # type: ignore[no-untyped-call]

    def run(self, sql: str, parameters: dict[str, str], data: bytes | None) -> bytes:
        """Run a statement with the parameters of its URL; `data` are the rows of an insert. Raises EngineError."""
        connection = self._connect()
        try:
            if database := parameters.get("database"):
                connection.query(f"USE `{database}`", "TabSeparated")
            if settings := ", ".join(
                f"{name} = {_literal(value)}"
                for name, value in parameters.items()
                if name not in TRANSPORT and not name.startswith("param_")
            ):
                connection.query(f"SET {settings}", "TabSeparated")
            bound = {name.removeprefix("param_"): value for name, value in parameters.items() if "param_" in name}
            if data is not None:
                return self._insert(connection, sql, data)
            return bytes(connection.query(sql, "TabSeparated", params=bound).bytes() or b"")
        except RuntimeError as error:
            raise EngineError(str(error)) from error
        finally:
            connection.close()

    def _insert(self, connection: Any, sql: str, data: bytes) -> bytes:
        with tempfile.NamedTemporaryFile(suffix=".rows") as file:
            file.write(data)
            file.flush()
            head, form = sql[: FORMAT.search(sql).start()], FORMAT.search(sql)[1]  # type: ignore[union-attr, index]
            connection.query(f"{head} FROM INFILE {_literal(file.name)} FORMAT {form}", "TabSeparated")
        return b""


def _decompress(body: bytes, encoding: str) -> bytes:
    from clickhouse_connect.driver._backend.chdb_backend import _decompress

    return body if encoding in {"", "identity"} else _decompress(body, encoding)


class RefusedError(Exception):
    """A balancer in front of ClickHouse answers in its place, with this status and a page of its own."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Front:
    """The ASGI application."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._faults: list[Fault] = []
        self._pretended: dict[str, str] = {}
        self._threads = ThreadPoolExecutor(THREADS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        parts, more = [], True
        while more:
            message = await receive()
            parts.append(message.get("body", b""))
            more = message.get("more_body", False)
        body = b"".join(parts)
        if scope["path"] == "/faults":
            await self._answer(send, 200, self._control(scope["method"], body))
        elif scope["path"] == "/pretend":
            self._pretended = TypeAdapter(dict[str, str]).validate_json(body)
            await self._answer(send, 200, b"")
        elif scope["path"] == "/cpu":
            await self._answer(send, 200, str(time.process_time()).encode())
        elif scope["path"] == "/ping":
            await self._answer(send, 200, b"Ok.\n")
        else:
            await self._statement(scope, body, receive, send)

    async def _answer(self, send: Send, status: int, body: bytes, **headers: str) -> None:
        named = {
            "X-ClickHouse-Timezone": "UTC",
            "X-ClickHouse-Query-Id": uuid.uuid4().hex,
            "X-ClickHouse-Summary": "{}",
        }
        named |= {"Content-Length": str(len(body))} | {f"X-ClickHouse-{name}": text for name, text in headers.items()}
        encoded = [(name.lower().encode(), text.encode()) for name, text in named.items()]
        await send({"type": "http.response.start", "status": status, "headers": encoded})
        await send({"type": "http.response.body", "body": body})

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

    async def _statement(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        parameters = dict(parse_qsl(scope["query_string"].decode(), keep_blank_values=True))
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        body = _decompress(body, headers.get("content-encoding", ""))
        text = b"\n".join(part for part in (parameters.get("query", "").encode(), body) if part)
        insert = INSERT.match(text)
        fault = self._strike(insert[1].decode().strip("`")) if insert else None
        try:
            if fault is not None:
                await self._before(fault, receive)
            sql, data = (insert[0].decode().strip(), text[insert.end() :]) if insert else (text.decode(), None)
            for real, pretended in self._pretended.items():
                sql = sql.replace(real, pretended)
            loop = asyncio.get_running_loop()
            answer = await loop.run_in_executor(self._threads, self._engine.run, sql, parameters, data)
        except EngineError as error:
            status = STATUS_OF_CODE.get(error.code, 500)
            await self._answer(send, status, str(error).encode(), **{"Exception-Code": str(error.code)})
            return
        except RefusedError as error:
            await send({"type": "http.response.start", "status": error.status, "headers": []})
            await send({"type": "http.response.body", "body": b"<html>no healthy upstream</html>"})
            return
        except ConnectionAbortedError:
            return
        if fault is not None and fault.action == "drop_after":
            _drop(receive)
            return
        form = FORMAT.search(sql)
        await self._answer(send, 200, answer, **({"Format": form[1] if form else "TabSeparated"} if answer else {}))

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
