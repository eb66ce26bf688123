"""Every metric of the API."""

from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter("insights_api_requests_total", "Requests by the route's template", ["method", "route", "status"])
REQUEST_SECONDS = Histogram(
    "insights_api_request_seconds",
    "Time to answer, by the route's template",
    ["method", "route"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
WRONG_KEYS = Counter("insights_api_wrong_keys_total", "Requests with a key that is not known")
RATE_LIMITED = Counter("insights_api_rate_limited_total", "Requests answered with 429", ["reason"])
OVERLOADED = Counter("insights_api_overloaded_total", "Requests answered with 503 because too many were under way")
REQUESTS_UNDER_WAY = Gauge("insights_api_requests_under_way", "Requests that are being answered from ClickHouse")
QUERIES_WAITING = Gauge("insights_api_queries_waiting", "Queries that wait for a thread")
QUERIES_RUNNING = Gauge("insights_api_queries_running", "Queries that ClickHouse is answering")
QUERIES_CANCELLED = Counter(
    "insights_api_queries_cancelled_total",
    "Queries that were dropped or killed because nobody waited any more, by why",
    ["reason"],
)
