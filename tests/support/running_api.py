"""The API on a port of this machine, for clients that are not in its process, or behave as if they were not."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from fastapi import FastAPI

from cli.serving import listen, make_server
from tests.support.api import settings


@contextmanager
def running_api(app: FastAPI, *closes: Callable[[], Awaitable[None]]) -> Iterator[str]:
    """Its address. `closes` are called in its event loop when it has stopped."""
    server, sock = make_server(app, settings()), listen("127.0.0.1", 0)

    async def serve() -> None:
        await server.serve([sock])
        for close in closes:
            await close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="api")
    thread.start()
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


# Status, headers and body of an answer; None to close the connection without one.
Scripted = tuple[int, dict[str, str], bytes] | None


@contextmanager
def scripted_server(*answers: Scripted) -> Iterator[tuple[str, list[str]]]:
    """A real HTTP server that gives these answers, the last one for ever, and the paths that it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            asked.append(f"{self.command} {self.path}")
            script = answers[min(len(asked), len(answers)) - 1]
            if script is None:
                self.close_connection = True
                return
            status, headers, body = script
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_DELETE = answer

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
