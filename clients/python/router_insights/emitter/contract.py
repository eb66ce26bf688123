"""What gateways and the service agree on besides the event's fields: the topic, bounds of time, units of tokens."""

import re
from datetime import datetime, timezone

REQUEST_EVENTS_TOPIC = "request-events"

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
# Every event starts from this on. No gateway of language models is older; seconds that are taken for milliseconds are.
# Earlier versions took events from EPOCH on, so such rows may be stored.
START_OF_TIME = datetime(2015, 1, 1, tzinfo=timezone.utc)
# Every event starts up to, not including, this. ClickHouse's DateTime (buckets of rollups) and DateTime64
# (rows) both hold these times, and the ends of requests that start within them.
END_OF_TIME = datetime(2100, 1, 1, tzinfo=timezone.utc)
# RFC 3339 with a zone, in groups from the year to the offset's minutes. The standard allows a space in place of the T.
RFC3339 = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})[Tt ](\d{2}):(\d{2}):(\d{2})(?:\.(\d+))?(?:([Zz])|([+-])(\d{2}):(\d{2}))",
    re.ASCII,
)

# Thinking tokens. They are a part of the output, which few prices charge apart.
REASONING = "output_reasoning_tokens"
# The catalogue's units of tokens that are fields of an event and columns of request_logs.
TOKEN_COLUMNS = {
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "cache_read_tokens": "cached_input_tokens",
    "cache_write_tokens": "cache_creation_input_tokens",
    REASONING: "thinking_tokens",
}
