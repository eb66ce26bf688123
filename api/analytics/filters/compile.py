"""Compiles a filter tree to one SQL condition over request_logs and the parameters it binds.

Every condition is 0 or 1, never NULL, so that a negative operator is the plain negation of its positive one and
also holds where the field is absent.
"""

import re
from typing import Any

from aggregator.clickhouse.sql import Binder, ascii_lower, text_of, time_range
from aggregator.clickhouse.tables import KEY_COLUMNS
from aggregator.rollups.measures import Dimension
from aggregator.times import EVERYTHING, Span, from_micros
from api.analytics.filters.fields import BY_NAME, JSON_VALUES, VALUE, Field, FieldKind
from api.analytics.filters.tree import Filter, FilterGroup

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
# Bound as an identifier, a key makes ClickHouse read the one subcolumn; getSubcolumn reads the whole column, and takes
# any key.
PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", re.ASCII)
# In getSubcolumn these begin the name of a type or of a sub-object instead of a key.
SUBCOLUMN_SYNTAX = re.compile(r"\.:`|\^`")
COMPARISONS = {"eq": "=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
ROW_KEY = ", ".join(KEY_COLUMNS)


def _equal_text(spec: Field, values: list[str], binder: Binder) -> str:
    if spec.ignores_case:
        values = [ascii_lower(value) for value in values]
    column = spec.text_column
    return f"{column} = {binder.text(values[0])}" if len(values) == 1 else f"{column} IN {binder.texts(values)}"


def _string(spec: Field, operator: str, operand: Any, binder: Binder) -> str:
    values = operand if operator == "in" else [operand]
    return _equal_text(spec, [text_of(value) for value in values], binder)


def _text(spec: Field, operator: str, operand: Any, binder: Binder) -> str:
    wanted = binder.text(operand)
    test = {
        "contains": f"hasAllTokens({spec.column}, {wanted})",
        "starts_with": f"startsWith(lowerUTF8({spec.column}), lowerUTF8({wanted}))",
        "ends_with": f"endsWith(lowerUTF8({spec.column}), lowerUTF8({wanted}))",
    }[operator]
    return f"({ROW_KEY}) IN (SELECT {ROW_KEY} FROM request_payloads WHERE {test})"


def _numeric(spec: Field, operator: str, operand: Any, binder: Binder) -> str:
    if operator == "is_null":
        return f"isNull({spec.column})"
    if operator == "between":
        low, high = (binder.bind(bound, "Float64") for bound in operand)
        return f"ifNull({spec.column} BETWEEN {low} AND {high}, 0)"
    return f"ifNull({spec.column} {COMPARISONS[operator]} {binder.bind(operand, 'Float64')}, 0)"


def bounds_us(operator: str, operand: Any) -> tuple[int | None, int | None]:
    """Start and end (exclusive) of the times that a datetime operator lets through, in microseconds since 1970."""
    if operator == "between":
        return operand[0][0], operand[1][1]
    start, end = operand
    return {"before": (None, start), "after": (end, None)}.get(operator, (start, end))


def _span_of(operator: str, operand: Any) -> Span:
    start, end = bounds_us(operator, operand)
    return Span(None if start is None else from_micros(start), None if end is None else from_micros(end))


def _datetime(spec: Field, operator: str, operand: Any, binder: Binder) -> str:
    range_sql = time_range(spec.column, _span_of(operator, operand))
    # Of a column that may be NULL; the primary key can use bare comparisons only.
    return range_sql if spec.name == "request_start_time" else f"ifNull({range_sql}, 0)"


def _array(spec: Field, operator: str, operand: Any, binder: Binder) -> str:
    if operator == "is_empty":
        return f"empty({spec.column})"
    if operator == "contains":
        return f"has({spec.column}, {binder.text(operand)})"
    return f"hasAny({spec.column}, {binder.texts(operand)})"


def nested_values(spec: Field, key: str, binder: Binder) -> str:
    """SQL for all values under a dotted key, as an array of text."""
    if SUBCOLUMN_SYNTAX.search(key):
        steps = "".join(f", {binder.text(step)}" for step in key.split("."))
        return JSON_VALUES.replace(VALUE, f"JSONExtractRaw(toJSONString({spec.column}){steps})")
    if PLAIN_KEY.fullmatch(key):
        value = binder.bind(f"{spec.column}.{key}", "Identifier")
    else:
        value = f"getSubcolumn({spec.column}, {binder.text(key)})"
    return spec.values.replace(VALUE, value)


def _nested(spec: Field, key: str, operator: str, operand: Any, binder: Binder) -> str:
    values = nested_values(spec, key, binder)
    if operator == "is_empty":
        return f"empty({values})"
    if operator == "key_contains":
        wanted = binder.text(text_of(operand))
        return f"arrayExists(item -> position(lowerUTF8(ifNull(item, '')), lowerUTF8({wanted})) > 0, {values})"
    wanted_texts = [text_of(value) for value in (operand if operator == "in" else [operand])]
    return f"hasAny({values}, {binder.texts(wanted_texts)})"


COMPILERS = {
    FieldKind.IDENTIFIER: _string,
    FieldKind.STRING: _string,
    FieldKind.INTENT: _string,
    FieldKind.TEXT: _text,
    FieldKind.NUMERIC: _numeric,
    FieldKind.DATETIME: _datetime,
    FieldKind.BOOLEAN: lambda spec, operator, operand, binder: spec.column,
    FieldKind.ARRAY: _array,
}


def compile_filter(condition: Filter, binder: Binder) -> str:
    spec, operator = BY_NAME[condition.field], NEGATIVE.get(condition.operator, condition.operator)
    if spec.kind is FieldKind.NESTED:
        sql = _nested(spec, condition.nested_key or "", operator, condition.operand, binder)
    else:
        sql = COMPILERS[spec.kind](spec, operator, condition.operand, binder)
    return f"NOT ({sql})" if operator != condition.operator else f"({sql})"


def compile_group(group: FilterGroup, binder: Binder) -> str:
    """SQL for the whole tree. Raises ValuesTooLargeError."""
    if not group.filters:
        return "1"
    compiled = (
        compile_group(part, binder) if isinstance(part, FilterGroup) else compile_filter(part, binder)
        for part in group.filters
    )
    return f"({f' {group.logic} '.join(compiled)})"


def dimensions_of(group: FilterGroup) -> frozenset[Dimension] | None:
    """The rollup dimensions that the tree filters by; None if it filters by anything that no rollup has."""
    found: set[Dimension] = set()
    for part in group.filters:
        asked = dimensions_of(part) if isinstance(part, FilterGroup) else BY_NAME[part.field].dimension
        if asked is None:
            return None
        found |= {asked} if isinstance(asked, Dimension) else asked
    return frozenset(found)


def split_span(group: FilterGroup) -> tuple[Span, FilterGroup]:
    """The range of start times that the outermost AND leaves, and the rest of the tree."""
    if group.logic == "OR" and len(group.filters) > 1:
        return EVERYTHING, group
    spans, rest = [], []
    for part in group.filters:
        if isinstance(part, Filter) and part.field == "request_start_time":
            spans.append(_span_of(part.operator, part.operand))
        else:
            rest.append(part)
    start = max((span.start for span in spans if span.start is not None), default=None)
    end = min((span.end for span in spans if span.end is not None), default=None)
    return Span(start, end), FilterGroup(logic=group.logic, filters=rest)
