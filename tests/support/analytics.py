"""The filter language and the charts once more, in plain Python over the same rows, and strategies for both."""

import json
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import product
from typing import Any
from zoneinfo import ZoneInfo

from aggregator.clickhouse.sql import text_of
from tests.support.rows import Row

COLUMNS = {
    "pl_id": "request_id",
    "engine": "model_name",
    "provider_type": "provider",
    "cached_tokens": "cached_input_tokens",
    "latency_ms": "duration_ms",
    "input_variables": "variables",
}
NUMBERS = (
    "prompt_version_number",
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "thinking_tokens",
    "cost",
    "latency_ms",
    "turn_count",
    "tool_call_count",
)
ARRAYS = ("tags", "metadata_keys", "output_keys", "input_variable_keys", "tool_names")
BOOLEANS = ("is_json", "is_tool_call", "is_plain_text", "has_trace", "is_error")
NESTED = ("metadata", "output", "input_variables")
TEXTS = ("input_text", "output_text")
TIMES = ("request_start_time", "request_end_time")
NEGATIVE = {
    "is_not": "is",
    "not_in": "in",
    "neq": "eq",
    "not_contains": "contains",
    "is_not_empty": "is_empty",
    "is_not_null": "is_null",
    "is_false": "is_true",
    "key_not_equals": "key_equals",
}


def value(row: Row, field: str) -> Any:
    """What the row has in a field; None or empty where it has nothing."""
    if field == "request_start_time":
        return row["timestamp"]
    if field == "request_end_time":
        duration_ms = row["duration_ms"]
        return None if duration_ms is None else row["timestamp"] + timedelta(milliseconds=duration_ms)
    if field == "status":
        return _ascii_lower(row["status"])
    if field == "has_trace":
        return row["trace_id"] != ""
    return row[COLUMNS.get(field, field)]


def flatten(found: Any, path: str = "") -> dict[str, list[str]]:
    """Dotted paths to the texts of the scalars there."""
    flat: dict[str, list[str]] = defaultdict(list)
    if isinstance(found, dict):
        for key, inner in found.items():
            for name, texts in flatten(inner, f"{path}.{key}" if path else key).items():
                flat[name] += texts
    elif isinstance(found, list):
        for inner in found:
            for name, texts in flatten(inner, path).items():
                flat[name] += texts
    elif found is not None:
        flat[path].append(text_of(found))
    return flat


def _moment(text: str) -> tuple[datetime, datetime]:
    """Start and end of what an ISO 8601 text means."""
    if len(text) == len("2026-01-31"):
        start = datetime.fromisoformat(text).replace(tzinfo=UTC)
        return start, start + timedelta(days=1)
    start = datetime.fromisoformat(text)
    start = start if start.tzinfo else start.replace(tzinfo=UTC)
    return start, start + timedelta(microseconds=1)


def _time_holds(found: datetime | None, operator: str, wanted: Any) -> bool:
    if found is None:
        return False
    if operator == "between":
        return _moment(wanted[0])[0] <= found < _moment(wanted[1])[1]
    start, end = _moment(wanted)
    return {"is": start <= found < end, "before": found < start, "after": found >= end}[operator]


def _number_holds(found: Any, operator: str, wanted: Any) -> bool:
    if operator == "is_null":
        return found is None
    if found is None:
        return False
    if operator == "between":
        return bool(wanted[0] <= float(found) <= wanted[1])
    compared = {"eq": "__eq__", "gt": "__gt__", "gte": "__ge__", "lt": "__lt__", "lte": "__le__"}[operator]
    return bool(getattr(float(found), compared)(float(wanted)))


def words(text: str) -> set[str]:
    return set(re.findall(r"[a-z0-9\u0080-\U0010ffff]+", text.lower()))


def _text_holds(found: str, operator: str, wanted: str) -> bool:
    if operator == "contains":
        return words(wanted) <= words(found)
    test: Callable[[str], bool] = found.lower().startswith if operator == "starts_with" else found.lower().endswith
    return test(wanted.lower())


def _texts_hold(found: Sequence[str], operator: str, wanted: Any) -> bool:
    """Of arrays, and of the values under a nested key."""
    if operator == "is_empty":
        return not found
    if operator == "key_contains":
        return any(text_of(wanted).lower() in item.lower() for item in found)
    texts = [text_of(item) for item in wanted] if operator == "in" else [text_of(wanted)]
    return any(item in texts for item in found)


def _ascii_lower(text: str) -> str:
    return "".join(letter.lower() if letter.isascii() else letter for letter in text)


def holds(row: Row, tree: dict[str, Any]) -> bool:
    """Whether a filter or a group lets the row through."""
    if "filters" in tree:
        verdicts = [holds(row, part) for part in tree["filters"]]
        return not verdicts or (any if tree.get("logic") == "OR" else all)(verdicts)
    field, operator = tree["field"], tree["operator"]
    wanted: Any = tree.get("value")
    if operator in NEGATIVE:
        return not holds(row, {**tree, "operator": NEGATIVE[operator]})
    found = value(row, field)
    if field in NUMBERS:
        return _number_holds(found, operator, wanted)
    if field in BOOLEANS:
        return bool(found)
    if field in TIMES:
        return _time_holds(found, operator, wanted)
    if field in TEXTS:
        return _text_holds(found, operator, wanted)
    if field in ARRAYS:
        return _texts_hold(found, operator, wanted)
    if field in NESTED:
        return _texts_hold(flatten(found).get(tree["nested_key"], []), operator, wanted)
    texts = [text_of(item) for item in wanted] if operator == "in" else [text_of(wanted)]
    if field == "status":
        return _ascii_lower(found) in map(_ascii_lower, texts)
    return found in texts


def percentile(numbers: Sequence[float], percent: float) -> float:
    """Linear interpolation between the two nearest ranks."""
    ordered = sorted(numbers)
    place = percent / 100 * (len(ordered) - 1)
    low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
    return low + (high - low) * (place - math.floor(place))


def measure(rows: Sequence[Row], asked: dict[str, Any]) -> Any:
    """A metric over rows; seconds where the field is latency."""
    metric = asked.get("metric") or "count"
    if metric == "count":
        return len(rows)
    if metric == "distinct_count":
        key = asked["distinctMetadataKey"]
        return len({text for row in rows for text in flatten(row["metadata"]).get(key, [])})
    field = asked["metricField"]
    known = [found for row in rows if (found := value(row, field)) is not None]
    if not known:
        return 0 if metric == "sum" else None
    exact = {"sum": sum(known), "min": min(known), "max": max(known), "avg": float(sum(known)) / len(known)}
    result = percentile([float(n) for n in known], asked["percentile"]) if metric == "percentile" else exact[metric]
    return float(result) / 1000 if field == "latency_ms" else float(result)


def cells(rows: Sequence[Row], chart: dict[str, Any]) -> dict[str, Any]:
    if chart.get("series"):
        return {series["key"]: measure(rows, series) for series in chart["series"]}
    return {"value": measure(rows, chart)}


def groups_of(row: Row, field: str | None, metadata_key: str | None) -> set[str]:
    """The groups that a row counts in."""
    if metadata_key is not None:
        return set(flatten(row["metadata"]).get(metadata_key, []))
    found = value(row, field or "")
    if field in ARRAYS:
        return set(found)
    return set() if found in (None, "") else {str(found)}


Grouped = dict[tuple[str, ...], list[Row]]


def grouped(rows: Iterable[Row], levels: Sequence[tuple[str | None, str | None]]) -> Grouped:
    groups: Grouped = defaultdict(list)
    for row in rows:
        for keys in product(*(groups_of(row, *level) for level in levels)):
            groups[keys].append(row)
    return groups


def largest(groups: Grouped, chart: dict[str, Any]) -> list[tuple[str, ...]]:
    """Keys by the first series, descending, unknown last, ties by key; at most `limit`."""
    first = {keys: next(iter(cells(rows, chart).values())) for keys, rows in groups.items()}
    ordered = sorted(groups, key=lambda keys: (first[keys] is None, -(first[keys] or 0), keys))
    return ordered[: chart.get("limit") or 25]


def bucket_key(moment: datetime, bucket: str, zone: ZoneInfo) -> str:
    local = moment.astimezone(zone).date()
    if bucket == "week":
        local -= timedelta(days=local.weekday())
    elif bucket != "day":
        local = date(local.year, local.month if bucket == "month" else 1, 1)
    return local.isoformat()


def all_buckets(first: datetime, last: datetime, bucket: str, zone: ZoneInfo) -> list[str]:
    """Every bucket that a day of the range falls into."""
    day, end = first.astimezone(zone).date(), last.astimezone(zone).date()
    keys = {bucket_key(last, bucket, zone): None}
    days = ((day + timedelta(days=n)) for n in range((end - day).days + 1))
    noons = (datetime(moment.year, moment.month, moment.day, 12, tzinfo=zone) for moment in days)
    keys |= {bucket_key(noon, bucket, zone): None for noon in noons}
    return sorted(keys)


def levels_of(chart: dict[str, Any]) -> list[tuple[str | None, str | None]]:
    """(field, metadata key) of each group of a chart."""
    if chart.get("hierarchyFields"):
        return [(field, None) for field in chart["hierarchyFields"]]
    first = (chart.get("groupByField"), chart.get("groupByMetadataKey"))
    second = (chart.get("secondaryGroupByField"), chart.get("secondaryGroupByMetadataKey"))
    return [level for level in (first, second) if any(part is not None for part in level)]


def over_time(rows: list[Row], chart: dict[str, Any], zone: ZoneInfo) -> list[dict[str, Any]]:
    bucket = chart["timeBucket"]
    levels = levels_of(chart)
    groups: Grouped = grouped(rows, levels) if levels else {(): rows}
    shown = largest(groups, chart) if levels else [()]
    counted = [row for keys in shown for row in groups[keys]]
    if not counted:
        return []
    times = [row["timestamp"] for row in counted]
    data = []
    for key in all_buckets(min(times), max(times), bucket, zone):
        for keys in shown:
            inside = [row for row in groups[keys] if bucket_key(row["timestamp"], bucket, zone) == key]
            label = keys[0] if keys else key[: {"month": 7, "year": 4}.get(bucket)]
            data.append({"label": label, "bucketKey": key, **cells(inside, chart)})
    return data


def heatmap(rows: list[Row], chart: dict[str, Any]) -> list[dict[str, Any]]:
    levels = levels_of(chart)
    axes = [largest(grouped(rows, [level]), chart) for level in levels]
    groups = grouped(rows, levels)
    pairs = [(one[0], other[0]) for one in axes[0] for other in axes[1] if (one[0], other[0]) in groups]
    return [{"label": one, "secondaryLabel": other, **cells(groups[one, other], chart)} for one, other in pairs]


def histogram(rows: list[Row], chart: dict[str, Any]) -> list[dict[str, Any]]:
    width, field = chart["histogramInterval"], chart["histogramField"]
    numbers = [math.floor(float(found) / width) for row in rows if (found := value(row, field)) is not None]
    if not numbers:
        return []
    return [{"value": numbers.count(number)} for number in range(min(numbers), max(numbers) + 1)]


def data_of(rows: list[Row], chart: dict[str, Any], zone: ZoneInfo) -> list[dict[str, Any]]:
    """The rows that a chart should have."""
    if chart["chartType"] == "histogram":
        return histogram(rows, chart)
    if chart["chartType"] == "heatmap":
        return heatmap(rows, chart)
    if chart.get("timeSeries"):
        return over_time(rows, chart, zone)
    levels = levels_of(chart)
    if not levels:
        return [{"label": "Overall", **cells(rows, chart)}]
    groups = grouped(rows, levels)
    data = [{"label": " / ".join(keys), **cells(groups[keys], chart)} for keys in largest(groups, chart)]
    if chart.get("hierarchyFields"):
        for row, keys in zip(data, largest(groups, chart), strict=True):
            row["path"] = list(keys)
    return data


def parse_nested(text: str) -> Any:
    return json.loads(text or "{}")
