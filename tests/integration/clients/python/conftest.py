"""The API on a port over rows of every kind, and clients of it."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from api.app import create_app
from router_insights import AsyncClient, Client
from tests.support.api import KEY, filled_warehouse, settings
from tests.support.rows import Row, random_rows
from tests.support.running_api import running_api

# Ids that need to be written in a URL with care.
ODD_IDS = ("a/b c", "é?#%25", "'; DROP", "..x", "stats/1", "+ &=")


@dataclass
class Running:
    """The address of an API, and the rows that it has."""

    url: str
    rows: list[Row]

    def plain(self, method: str, path: str, **options: Any) -> Any:
        """The JSON that a client of another make gets."""
        headers = {"Authorization": f"Bearer {KEY}"}
        answer = httpx2.request(method, self.url + path, headers=headers, trust_env=False, **options)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture(scope="session")
def running(engine_url: str) -> Iterator[Running]:
    rows = random_rows(77, 700)
    for row, odd in zip(rows, ODD_IDS, strict=False):
        row["request_id"] = odd
    with filled_warehouse(engine_url, rows) as warehouse, running_api(create_app(settings(), warehouse)) as url:
        yield Running(url, rows)


@pytest.fixture
def client(running: Running) -> Iterator[Client]:
    with Client(running.url, KEY) as client:
        yield client


@pytest.fixture
async def async_client(running: Running) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(running.url, KEY) as client:
        yield client
