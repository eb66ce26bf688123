"""`insights up` in a process of its own, on ports of its own."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from aggregator.errors import InsightsError
from cli.demo.api_client import ApiClient
from cli.local_stack.supervisor import start_supervised, stop_supervised

# How `insights up` begins what it prints when everything runs.
READY = "router-insights is ready"
HOST = "127.0.0.1"
# Longer than the stack takes to stop in order once all it accepted is stored, short enough for who kills the parent.
GRACE_SECONDS = 10
START_SECONDS = 60.0
POLL_SECONDS = 0.05
TAIL_LINES = 12


class UpProcessError(InsightsError):
    """The stack did not start or has ended; the message holds the end of its log."""


def free_port() -> int:
    """A port that nothing listens on right now."""
    with socket.create_server((HOST, 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


class UpProcess:
    """The stack over `data_dir`, running inside a `with` block. It ends with this process, however that ends."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.port = free_port()
        self.broker_port = free_port()
        self._log = data_dir.with_name(f"{data_dir.name}.log")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def broker(self) -> str:
        return f"{HOST}:{self.broker_port}"

    @property
    def api_key(self) -> str:
        return (self.data_dir / "api-key").read_text().strip()

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def client(self) -> ApiClient:
        return ApiClient(self.url, self.api_key)

    def check(self) -> None:
        """Raises UpProcessError when the stack has ended."""
        if not self.is_running:
            raise UpProcessError(f"the stack has ended; its last words:\n{self._tail()}")

    def wait(self) -> None:
        """Wait until the stack ends."""
        if self._process is not None:
            self._process.wait()

    def _tail(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-TAIL_LINES:])

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while READY not in self._log.read_text(errors="replace"):
            self.check()
            if time.monotonic() > deadline:
                raise UpProcessError(f"the stack was not ready within {START_SECONDS:g} s; its log:\n{self._tail()}")
            time.sleep(POLL_SECONDS)

    def __enter__(self) -> Self:
        """Raises UpProcessError when the stack does not start."""
        command = [sys.executable, "-m", "cli.main", "up", "--data-dir", str(self.data_dir)]
        command += ["--host", HOST, "--port", str(self.port), "--broker-port", str(self.broker_port)]
        with self._log.open("wb") as log:
            # ClickHouse's engine leaves its scratch files behind when it is killed: then beside the data.
            scratch = {"TMPDIR": str(self.data_dir.parent)}
            self._process = start_supervised(command, grace_seconds=GRACE_SECONDS, output=log, environment=scratch)
        try:
            self._wait_until_ready()
        except BaseException:
            self._kill(self._process)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is None:
            return
        try:
            if kind is None:
                stop_supervised(self._process)
        finally:
            # Nobody will read its data after an error, or a second Ctrl-C.
            self._kill(self._process)

    @staticmethod
    def _kill(process: subprocess.Popen[bytes]) -> None:
        """End the supervisor and the stack at once; the stack's own broker ends with it."""
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        stop_supervised(process)
