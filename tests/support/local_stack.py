"""`insights up` as a person runs it, on ports of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2

from cli.local_stack.drain import accepted_offsets
from cli.local_stack.process import READY, free_port
from cli.local_stack.up import PARTITIONS
from tests.support.insights import processes_naming, start_insights, wait_until

EVENT = '{"request_id":"%s","timestamp":"2026-01-31T12:00:00Z","model_name":"gpt-5-mini","status":"success"}'


class Up:
    """A running `insights up` over `data_dir`."""

    def __init__(self, data_dir: Path, **settings: str) -> None:
        self.data_dir = data_dir
        self.port, self.broker_port = free_port(), free_port()
        self.output = data_dir.with_suffix(".log")
        self._settings = settings
        self.start()

    def start(self) -> None:
        self.process = start_insights(*self.arguments, output=self.output, **self._settings)

    def restart(self) -> None:
        """Start it again once nothing is left of the life before."""
        wait_until(self.leaves_nothing)
        self.start()

    @property
    def arguments(self) -> list[str]:
        ports = ["--port", str(self.port), "--broker-port", str(self.broker_port)]
        return ["up", "--data-dir", str(self.data_dir), *ports]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def headers(self, key: str | None = None) -> dict[str, str]:
        given = key or (self.data_dir / "api-key").read_text().strip()
        return {"authorization": f"Bearer {given}", "content-type": "application/x-ndjson"}

    def wait_until_ready(self) -> None:
        wait_until(lambda: READY in self.output.read_text() or self.process.poll() is not None)
        assert self.process.poll() is None, self.output.read_text()

    def http(self, key: str | None = None) -> httpx2.Client:
        return httpx2.Client(base_url=self.url, headers=self.headers(key), trust_env=False)

    def send(self, *request_ids: str) -> None:
        """Through POST /v1/events; returns once they are accepted."""
        with self.http() as client:
            body = "\n".join(EVENT % request_id for request_id in request_ids)
            assert client.post("/v1/events", content=body, timeout=60).status_code == 202

    def count(self) -> int:
        with self.http() as client:
            total: int = client.get("/v1/request-logs/stats").json()["total_count"]
            return total

    async def accepted(self) -> int:
        """How many records its broker has taken in this life."""
        found = await accepted_offsets(f"127.0.0.1:{self.broker_port}", "request-events", PARTITIONS)
        return sum(found.values())

    def leaves_nothing(self) -> bool:
        """Neither it, nor its broker, nor the supervisor of its broker runs any more."""
        return not processes_naming(str(self.data_dir)) and not processes_naming(f"127.0.0.1:{self.broker_port}")


@contextmanager
def running(data_dir: Path, **settings: str) -> Iterator[Up]:
    up = Up(data_dir, **settings)
    try:
        up.wait_until_ready()
        yield up
    finally:
        up.process.kill()
        up.process.wait()
