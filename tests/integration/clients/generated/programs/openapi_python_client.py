# mypy: ignore-errors
"""Asks each question once with the client of openapi-python-client."""

import json
import os

from openapi_python_insights import AuthenticatedClient
from openapi_python_insights.api.events import post_events
from openapi_python_insights.api.request_analytics import custom_analytics, search_requests
from openapi_python_insights.api.request_logs import get_request_log, get_request_log_stats, query_request_logs
from openapi_python_insights.models import (
    CustomAnalyticsQuery,
    GroupBy,
    OrderBy,
    RequestEvent,
    SearchQuery,
    StatsMetric,
)

asked = json.loads(os.environ["ASKED"])
client = AuthenticatedClient(base_url=os.environ["URL"], token=os.environ["KEY"])
answers = {
    "query": query_request_logs.sync(client=client, user_id="ada", page_size=2, order_by=OrderBy.DURATION_MS),
    "get": get_request_log.sync(client=client, request_id="call/1 ä"),
    "stats": get_request_log_stats.sync(client=client, user_id="ada", group_by=GroupBy.MODEL, metric=StatsMetric.COST),
    "charts": custom_analytics.sync(client=client, body=CustomAnalyticsQuery.from_dict(asked["charts"])),
    "search": search_requests.sync(client=client, body=SearchQuery.from_dict(asked["search"])),
    "events": post_events.sync(client=client, body=RequestEvent.from_dict(asked["event"])),
}
print(json.dumps({name: answer.to_dict() for name, answer in answers.items()}))
