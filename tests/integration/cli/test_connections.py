"""Clients that open connections and send nothing, or not all of a head, and what good clients notice of them."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from aggregator.clickhouse.client import Warehouse
from tests.support.api import KEY
from tests.support.serving import HOST, served

HEAD = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
REQUEST = HEAD + b"\r\n"
HEAD_SECONDS = 2.0
# A machine whose cores are both busy takes its time.
SLACK_SECONDS = 10.0
META = "/v1/analytics/meta"

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def connected(client: httpx2.AsyncClient, count: int, **options: Any) -> AsyncIterator[list[Stream]]:
    port = client.base_url.port
    streams = [await asyncio.open_connection(HOST, port, **options) for _ in range(count)]
    try:
        yield streams
    finally:
        for _, writer in streams:
            writer.close()


async def seconds_until_closed(reader: asyncio.StreamReader) -> float:
    """How long it takes until the server closes the connection; what it sends before is dropped."""
    started = time.monotonic()
    async with asyncio.timeout(HEAD_SECONDS + SLACK_SECONDS):
        try:
            while await reader.read(65536):
                pass
        except ConnectionError:
            pass
    return time.monotonic() - started


async def write_slowly(writer: asyncio.StreamWriter, data: bytes) -> None:
    """A byte every 50 ms, until the server has closed the connection."""
    try:
        for at in range(len(data)):
            writer.write(data[at : at + 1])
            await writer.drain()
            await asyncio.sleep(0.05)
    except ConnectionError:
        pass


async def test_six_hundred_idle_and_half_sent_heads_are_closed_in_time_and_good_clients_go_on(
    warehouse: Warehouse,
) -> None:
    async with (
        served(warehouse, head_timeout_seconds=HEAD_SECONDS) as client,
        connected(client, 650) as streams,
    ):
        for number, (_, writer) in enumerate(streams):
            # Nothing; a part of a head; a head after a request; one that trickles in.
            if number % 4:
                writer.write((HEAD, REQUEST + HEAD, HEAD)[number % 4 - 1])
        trickling = [asyncio.create_task(write_slowly(writer, b"X: y\r\n" * 1000)) for _, writer in streams[3::4]]
        closing = [asyncio.create_task(seconds_until_closed(reader)) for reader, _ in streams]
        answers = []
        while not all(task.done() for task in closing):
            answers.append(await client.get(META, headers={"Authorization": f"Bearer {KEY}"}))
            await asyncio.sleep(0.05)
        assert {answer.status_code for answer in answers} == {200}
        took = [await task for task in closing]
        assert max(took) < HEAD_SECONDS + SLACK_SECONDS
        await asyncio.gather(*trickling)


async def test_a_connection_has_its_whole_time(warehouse: Warehouse) -> None:
    async with served(warehouse, head_timeout_seconds=HEAD_SECONDS) as client:
        started = time.monotonic()
        async with connected(client, 1) as [(reader, _)]:
            await seconds_until_closed(reader)
        assert time.monotonic() - started >= HEAD_SECONDS


async def test_a_client_that_takes_less_than_its_time_is_answered(warehouse: Warehouse) -> None:
    async with served(warehouse, head_timeout_seconds=30) as client, connected(client, 1) as [(reader, writer)]:
        for _ in range(3):
            await write_slowly(writer, REQUEST)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            await reader.readexactly(len(b'{"status":"ok"}'))


async def test_a_body_that_trickles_in_after_its_answer_does_not_keep_the_connection(warehouse: Warehouse) -> None:
    """Uvicorn forgets the connection's time with every byte that comes."""
    post = b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"
    async with (
        served(warehouse, head_timeout_seconds=HEAD_SECONDS) as client,
        connected(client, 1) as [(reader, writer)],
    ):
        writer.write(post)
        assert (await reader.readline()).startswith(b"HTTP/1.1 401")
        trickling = asyncio.create_task(write_slowly(writer, b"x" * 1000))
        assert await seconds_until_closed(reader) < HEAD_SECONDS + SLACK_SECONDS
        await trickling


async def test_a_client_that_does_not_read_its_answers_is_closed(warehouse: Warehouse) -> None:
    """Requests one behind another whose answers nobody reads: the server cannot write, and waits no longer."""
    async with served(warehouse, head_timeout_seconds=HEAD_SECONDS, request_timeout_seconds=HEAD_SECONDS) as client:
        sock = socket.create_connection((HOST, client.base_url.port or 0))
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            document = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
            sock.setblocking(False)
            ends_at = time.monotonic() + 2 * HEAD_SECONDS + 2 * SLACK_SECONDS
            is_open = True
            while is_open:
                assert time.monotonic() < ends_at, "it is still open"
                try:
                    sock.send(document)
                except BlockingIOError:
                    pass
                except ConnectionError:
                    is_open = False
                await asyncio.sleep(0.05)
        finally:
            sock.close()


async def test_a_client_that_reads_slowly_gets_its_whole_answer(warehouse: Warehouse) -> None:
    async with served(warehouse, head_timeout_seconds=0.5) as client:
        whole = (await client.get("/openapi.json")).content
        async with connected(client, 1, limit=4096) as [(reader, writer)]:
            writer.write(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")
            received = bytearray()
            while piece := await reader.read(len(whole) // 20):
                received += piece
                await asyncio.sleep(0.1)
            assert bytes(received) == whole


async def test_one_connection_too_many_closes_the_one_that_has_waited_longest(warehouse: Warehouse) -> None:
    async with (
        served(warehouse, max_connections=20, head_timeout_seconds=60) as client,
        connected(client, 20) as streams,
    ):
        # The first is answered just now, so the second has waited longest.
        reader, writer = streams[0]
        writer.write(REQUEST)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        assert (await client.get("/healthz")).status_code == 200
        assert await seconds_until_closed(streams[1][0]) < SLACK_SECONDS
        for _ in range(3):
            assert (await client.get("/healthz")).status_code == 200
        for _, other in streams[2:]:
            other.write(REQUEST)
        lines = [await other.readline() for other, _ in streams[2:]]
        assert all(line.startswith(b"HTTP/1.1 200") for line in lines), "nobody else was closed"


async def test_bodies_that_nobody_finishes_take_no_connection_from_others(warehouse: Warehouse) -> None:
    """The body of such a route is read before its key is looked at, so anybody can send half of one."""
    half = b"POST /api/public/v2/requests/search HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{"
    async with (
        served(warehouse, max_connections=20, request_timeout_seconds=60) as client,
        connected(client, 20) as streams,
    ):
        for _, writer in streams:
            writer.write(half)
        await asyncio.sleep(0.5)
        for _ in range(3):
            assert (await client.get("/healthz", headers={"Connection": "close"})).status_code == 200
        assert await seconds_until_closed(streams[0][0]) < SLACK_SECONDS
        # The rest of a body is still welcome.
        streams[-1][1].write(b"}" + b" " * 7)
        assert (await streams[-1][0].readline()).startswith(b"HTTP/1.1 401")


async def test_where_every_connection_has_a_request_one_more_gets_503(warehouse: Warehouse) -> None:
    count = 3
    body = b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nAuthorization: Bearer " + KEY.encode()
    body += b"\r\nContent-Type: application/json\r\n\r\n{}"

    class NeverDone:
        async def publish(self, body: bytes, is_ndjson: bool) -> int:
            await asyncio.sleep(3600)
            raise AssertionError("the request has ended before")

        def schema(self) -> dict[str, Any]:
            return {}

    async with (
        served(warehouse, NeverDone(), max_connections=count, request_timeout_seconds=60) as client,
        connected(client, count) as streams,
    ):
        for _, writer in streams:
            writer.write(body)
        async with asyncio.timeout(SLACK_SECONDS):
            while (await client.get("/healthz")).status_code != 503:  # noqa: ASYNC110 - the server's state
                await asyncio.sleep(0.05)
        streams.pop()[1].close()
        async with asyncio.timeout(SLACK_SECONDS):
            while (await client.get("/healthz")).status_code != 200:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.05)
