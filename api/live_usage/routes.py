import asyncio
import json
from collections.abc import AsyncIterable
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from fastapi.sse import EventSourceResponse

from aggregator.clickhouse.client import DatabaseError, WarehouseUnavailableError
from api.errors import ApiError, documented
from api.live_usage.parameters import LiveParameters
from api.live_usage.schemas import EXAMPLE_LIVE, LiveUsage, MinuteUsage
from api.live_usage.usage import MINUTES, as_answer, live_usage, minutes_of, minutes_query
from api.security.auth import StillAllowed, one_stream
from api.security.reading import AppReader, AppReading

STREAM_SECONDS = 2.0
# A stream holds no thread between its reads, and is none of the requests under way.
READ_SECONDS = 30.0
# Between two reads of all minutes only the newest are read: late requests appear with the next full read.
FULL_EVERY = 15
NEWEST_MINUTES = 2

STREAM: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"example": f"data: {json.dumps(EXAMPLE_LIVE)}"}}}
}

router = APIRouter(tags=["live usage"], responses=documented(400, 401, 403, 500, 503, 504))


@router.get("/v1/usage/live")
async def get_live_usage(parameters: Annotated[LiveParameters, Query()], reading: AppReading) -> LiveUsage:
    """The current minute and the sixty before it, for everything or for one model, user, api key or tag."""
    return await reading.run(live_usage, parameters)


@router.get(
    "/v1/usage/live/stream",
    response_class=EventSourceResponse,
    responses=STREAM,
    dependencies=[Depends(one_stream)],
)
async def stream_live_usage(
    parameters: Annotated[LiveParameters, Query()], reader: AppReader, still_allowed: StillAllowed
) -> AsyncIterable[LiveUsage]:
    """The same every two seconds, as server-sent events. It ends when ClickHouse is away; browsers connect again."""
    found: dict[int, MinuteUsage] = {}
    reads = 0
    while True:
        now = datetime.now(UTC)
        count = NEWEST_MINUTES if reads % FULL_EVERY else MINUTES
        try:
            # A key may be revoked while its stream is open.
            if not await still_allowed():
                return
            newest = minutes_of(await reader.fetch(*minutes_query(parameters, now, count), READ_SECONDS))
        except (WarehouseUnavailableError, DatabaseError, ApiError):
            return
        found = newest if count == MINUTES else found | newest
        yield as_answer(found, now)
        reads += 1
        await asyncio.sleep(STREAM_SECONDS)
