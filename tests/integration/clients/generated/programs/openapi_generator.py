# mypy: ignore-errors
"""Asks each question once with the Python client of openapi-generator."""

import json
import os

from openapi_generator_insights import (
    ApiClient,
    Configuration,
    CustomAnalyticsQuery,
    EventsApi,
    GroupBy,
    OrderBy,
    RequestAnalyticsApi,
    RequestEvent,
    RequestLogsApi,
    SearchQuery,
    StatsMetric,
)

asked = json.loads(os.environ["ASKED"])
with ApiClient(Configuration(host=os.environ["URL"], access_token=os.environ["KEY"])) as client:
    logs, analytics = RequestLogsApi(client), RequestAnalyticsApi(client)
    answers = {
        "query": logs.query_request_logs(user_id="ada", page_size=2, order_by=OrderBy.DURATION_MS),
        "get": logs.get_request_log("call/1 ä"),
        "stats": logs.get_request_log_stats(user_id="ada", group_by=GroupBy.MODEL, metric=StatsMetric.COST),
        "charts": analytics.custom_analytics(CustomAnalyticsQuery.from_dict(asked["charts"])),
        "search": analytics.search_requests(SearchQuery.from_dict(asked["search"])),
        "events": EventsApi(client).post_events(RequestEvent.from_dict(asked["event"])),
    }
    print(json.dumps({name: client.sanitize_for_serialization(answer) for name, answer in answers.items()}))
