"""Values of a field that begin with a prefix, for people who type a filter.

What a rollup holds is answered from it, over all time. Other values are read from the newest requests only, so that a
billion rows take no longer than a million.
"""

from dataclasses import replace

from aggregator.clickhouse.sql import Binder, all_of, time_range
from aggregator.rollups.measures import REQUESTS
from aggregator.rollups.planner import Condition, Question, compile_answer, plan
from aggregator.times import Span
from api.analytics.filters.compile import nested_values
from api.analytics.filters.fields import BY_NAME, FieldKind
from api.analytics.request import RequestQuery
from api.analytics.suggestions.parameters import NESTED, SuggestedField, SuggestionParameters
from api.analytics.suggestions.schemas import MAX_VALUES, SuggestionAnswer
from api.analytics.where import span_and_condition
from api.security.reader import Reader

NEWEST_ROWS = 1_000_000
# More than there are models, providers or statuses.
MAX_GROUPS = 10_000

NEWEST = "SELECT timestamp FROM request_logs WHERE {range} ORDER BY timestamp DESC LIMIT 1 OFFSET {offset}"


def answer_suggestions(reader: Reader, parameters: SuggestionParameters, query: RequestQuery) -> SuggestionAnswer:
    span, condition = span_and_condition(query)
    question = reader.confine(_question(parameters, span, condition))
    if question.group_by is not None and plan(question).rollup is not None:
        return SuggestionAnswer(success=True, values=_from_rollup(reader, parameters, question))
    return SuggestionAnswer(success=True, values=_from_rows(reader, parameters, span, condition))


def _question(parameters: SuggestionParameters, span: Span, condition: Condition) -> Question:
    field = BY_NAME.get(parameters.field)
    return Question((REQUESTS,), span, group_by=field.dimension if field else None, condition=condition)


def _from_rollup(reader: Reader, parameters: SuggestionParameters, question: Question) -> list[str]:
    rows = reader.query(*compile_answer(question, "requests DESC, group_key", MAX_GROUPS))
    names = [row["group_key"] for row in rows if not row["is_total"]]
    wanted = parameters.prefix.lower()
    return [name for name in names if name and name.lower().startswith(wanted)][:MAX_VALUES]


def _values(parameters: SuggestionParameters, binder: Binder) -> str:
    """SQL for the values of one row, a row each."""
    if parameters.field in NESTED:
        spec = BY_NAME[NESTED[parameters.field]]
        return f"arrayJoin(arrayDistinct({nested_values(spec, parameters.metadata_key or '', binder)}))"
    if parameters.field is SuggestedField.PROMPT:
        return "prompt_name"
    spec = BY_NAME[parameters.field]
    return f"arrayJoin(arrayDistinct({spec.column}))" if spec.kind is FieldKind.ARRAY else spec.text_column


def _from_rows(reader: Reader, parameters: SuggestionParameters, span: Span, condition: Condition) -> list[str]:
    binder = condition.binder()
    oldest = reader.query(NEWEST.format(range=all_of(time_range("timestamp", span)), offset=NEWEST_ROWS), {})
    if oldest:
        span = replace(span, start=oldest[0]["timestamp"])
    where = [time_range("timestamp", span), condition.sql]
    if parameters.prompt_id is not None:
        where.append(f"prompt_id = {binder.text(str(parameters.prompt_id))}")
    sql = (
        f"SELECT value FROM (\nSELECT {_values(parameters, binder)} AS value\nFROM request_logs"
        f" WHERE {all_of(*where)}\n)\n"
        f"WHERE value != '' AND startsWith(lowerUTF8(value), lowerUTF8({binder.text(parameters.prefix)}))\n"
        f"GROUP BY value ORDER BY count() DESC, value LIMIT {MAX_VALUES}"
    )
    rows = reader.query(sql, binder.parameters)
    return [row["value"] for row in rows]
