"""ClickHouse's HTTP interface in front of the engine of this process, so that other processes can ask it, too.

The engine lets one process at a time open its directory. This speaks as much of the protocol as clickhouse-connect
uses: a statement in the URL or the body, bound parameters, settings, inserts, compressed bodies, errors by their code.
"""

import asyncio
import base64
import hmac
import re
import tempfile
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

THREADS = 8
# Parameters of the URL that are no settings of the engine.
TRANSPORT = """
query database user password query_id session_id session_timeout session_check compress decompress buffer_size
wait_end_of_query client_protocol_version send_progress_in_http_headers http_headers_progress_interval_ms
enable_http_compression quota_key role default_format
""".split()  # noqa: SIM905 - a list of words is easier to read
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
INSERT = re.compile(rb"\s*INSERT\s+INTO\s+([^\s(]+)[^\n]*?\sFORMAT\s+\w+\s*(?:\n|$)", re.IGNORECASE)
FORMAT = re.compile(r"\sFORMAT\s+(\w+)\s*;?\s*$", re.IGNORECASE)
CODE = re.compile(r"Code: (\d+)\.")
UNKNOWN_EXCEPTION, BAD_ARGUMENTS, AUTHENTICATION_FAILED = 1002, 36, 516
STATUS_OF_CODE = {60: 404, 81: 404, AUTHENTICATION_FAILED: 401}
USER = "insights"


class EngineError(Exception):
    """What the engine answers to a statement that it cannot run."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        found = CODE.search(message)
        self.code = int(found[1]) if found else UNKNOWN_EXCEPTION


@dataclass(frozen=True)
class EngineStatement:
    """A statement with the parameters of its URL; `data` are the rows of an insert, in the format that it names."""

    sql: str
    parameters: dict[str, str]
    data: bytes | None = None

    @cached_property
    def table(self) -> str:
        """The table of an insert; empty for any other statement."""
        found = INSERT.match(self.sql.encode()) if self.data is not None else None
        return found[1].decode().strip("`") if found else ""

    @property
    def settings(self) -> dict[str, str]:
        return {
            name: value
            for name, value in self.parameters.items()
            if name not in TRANSPORT and not name.startswith("param_")
        }

    @property
    def bound(self) -> dict[str, str]:
        return {
            name.removeprefix("param_"): value for name, value in self.parameters.items() if name.startswith("param_")
        }


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


class Engine:
    """The engine on a folder; each statement gets a connection of its own, so that no setting leaks into another."""

    def __init__(self, folder: Path, config: Path | None = None) -> None:
        self._folder = str(folder.resolve()) + (f"?config-file={config.resolve()}" if config else "")
        self._keep_open = self._connect()

    def _connect(self) -> Any:
        import chdb

        return chdb.connect(self._folder)  # type: ignore[no-untyped-call]

    def close(self) -> None:
        self._keep_open.close()

    def run(self, statement: EngineStatement) -> bytes:
        """The answer in the format that the statement names. Raises EngineError."""
        if wrong := [name for name in statement.settings if not NAME.fullmatch(name)]:
            raise EngineError(f"Code: {BAD_ARGUMENTS}. DB::Exception: {wrong[0]!r} is no name of a setting.")
        connection = self._connect()
        try:
            if database := statement.parameters.get("database"):
                connection.query(f"USE `{database.replace('`', '``')}`", "TabSeparated")
            if settings := ", ".join(f"{name} = {_literal(value)}" for name, value in statement.settings.items()):
                connection.query(f"SET {settings}", "TabSeparated")
            if statement.data is not None:
                return self._insert(connection, statement.sql, statement.data)
            answer = connection.query(statement.sql, "TabSeparated", params=statement.bound)
            return bytes(answer.bytes() or b"")
        except RuntimeError as error:
            raise EngineError(str(error)) from error
        finally:
            connection.close()

    def _insert(self, connection: Any, sql: str, data: bytes) -> bytes:
        with tempfile.NamedTemporaryFile(suffix=".rows") as file:
            file.write(data)
            file.flush()
            form = FORMAT.search(sql)
            if form is None:
                raise EngineError(f"Code: {BAD_ARGUMENTS}. DB::Exception: an insert needs its FORMAT at the end.")
            head = sql[: form.start()]
            connection.query(f"{head} FROM INFILE {_literal(file.name)} FORMAT {form[1]}", "TabSeparated")
        return b""


async def read_body(receive: Receive) -> bytes:
    parts, more = [], True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


def statement_of(scope: Scope, body: bytes) -> EngineStatement:
    """The statement of a request: in the parameter `query`, in the body, or begun there and ended here."""
    from clickhouse_connect.driver._backend.chdb_backend import _decompress

    parameters = dict(parse_qsl(scope["query_string"].decode(), keep_blank_values=True))
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    encoding = headers.get("content-encoding", "")
    if encoding not in {"", "identity"}:
        body = _decompress(body, encoding)
    text = b"\n".join(part for part in (parameters.get("query", "").encode(), body) if part)
    insert = INSERT.match(text)
    if insert is None:
        return EngineStatement(text.decode(), parameters)
    return EngineStatement(insert[0].decode().strip(), parameters, text[insert.end() :])


async def answer(send: Send, status: int, body: bytes, **headers: str) -> None:
    """Send an answer; `headers` are those that begin with X-ClickHouse."""
    named = {"X-ClickHouse-Timezone": "UTC", "X-ClickHouse-Query-Id": uuid.uuid4().hex, "X-ClickHouse-Summary": "{}"}
    named |= {"Content-Length": str(len(body))}
    named |= {f"X-ClickHouse-{name.replace('_', '-')}": text for name, text in headers.items()}
    encoded = [(name.lower().encode(), text.encode()) for name, text in named.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})


async def answer_error(send: Send, error: EngineError) -> None:
    status = STATUS_OF_CODE.get(error.code, 500)
    await answer(send, status, str(error).encode(), Exception_Code=str(error.code))


class EngineHttp:
    """The ASGI application: `/ping`, and statements at every other path."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="engine-http")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(receive)
        if scope["path"] == "/ping":
            await answer(send, 200, b"Ok.\n")
            return
        try:
            await self.run(statement_of(scope, body), send)
        except EngineError as error:
            await answer_error(send, error)

    async def run(self, statement: EngineStatement, send: Send) -> None:
        """Run a statement and answer it. Raises EngineError."""
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, self._engine.run, statement)
        form = FORMAT.search(statement.sql)
        await answer(send, 200, found, **({"Format": form[1] if form else "TabSeparated"} if found else {}))

    def close(self) -> None:
        """Wait for the statements that run, and let go of the engine."""
        self._threads.shutdown(cancel_futures=True)
        self._engine.close()


class SecretRequired:
    """Answers only who shows the secret as the password of basic authentication; the body of others is not read."""

    def __init__(self, app: App, secret: str) -> None:
        self._app = app
        self._wanted = b"Basic " + base64.b64encode(f"{USER}:{secret}".encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        if hmac.compare_digest(given, self._wanted):
            await self._app(scope, receive, send)
        else:
            refused = f"Code: {AUTHENTICATION_FAILED}. DB::Exception: the secret of the data directory is needed."
            await answer_error(send, EngineError(refused))
