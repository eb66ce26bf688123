"""Query strings as different clients write them: names in two spellings, and zero values that are written out."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.routing import APIRoute, iter_route_contexts
from pydantic import ValidationError
from pydantic.alias_generators import to_camel

from aggregator.clickhouse.client import Warehouse
from api.app import create_app
from api.parameters import QueryParameters
from tests.support.api import settings

# A valid value of every parameter there is, none of them its default. Of live usage one needs the other.
VALUES = {
    "user_id": "ada", "api_key_id": "key-3", "model_name": "gpt-5", "status": "error", "status_code": "429",
    "start_time": "2026-01-31T12:00:00Z", "end_time": "2026-02-01T12:00:00Z",
    "min_duration_ms": "5", "max_duration_ms": "9", "page_size": "7", "page_token": "x",
    "order_by": "duration_ms", "order_direction": "asc",
    "group_by": "day", "metric": "cost", "limit": "3", "timezone": "Europe/Berlin",
    "kind": "budget", "budget_id": "ada-monthly", "scope": "user", "value": "ada",
    "field": "prompt", "prefix": "a", "prompt_id": "4", "filter_group": "{}", "metadata_key": "team",
    "is_error": "true",
}  # fmt: skip
# What cannot be together in one query.
ALONE = {"metadata_key": {"field": "metadata_values"}}


def _models() -> Iterator[type[QueryParameters]]:
    app = create_app(settings(), Warehouse("chdb:///nowhere"))
    for context in iter_route_contexts(app.routes):
        route = context.original_route
        if isinstance(route, APIRoute):
            yield from (field.field_info.annotation for field in route.dependant.query_params)  # type: ignore[misc]


MODELS = sorted({*_models()}, key=lambda model: model.__name__)
PARAMETERS = [
    pytest.param(model, name, id=f"{model.__name__} {name}") for model in MODELS for name in model.model_fields
]


def query_with(model: type[QueryParameters], name: str) -> dict[str, Any]:
    """A valid query that has the parameter."""
    needed = {other: VALUES[other] for other, field in model.model_fields.items() if field.is_required()}
    pair = {"scope": VALUES["scope"], "value": VALUES["value"]} if name in ("scope", "value") else {}
    return {**needed, **pair, name: VALUES[name], **ALONE.get(name, {})}


def test_every_route_reads_its_query_in_the_one_way() -> None:
    assert len(MODELS) >= 6
    assert all(issubclass(model, QueryParameters) for model in MODELS)


@pytest.mark.parametrize(("model", "name"), PARAMETERS)
def test_a_name_in_lower_camel_case_means_the_same(model: type[QueryParameters], name: str) -> None:
    query = query_with(model, name)
    camel = {to_camel(key): value for key, value in query.items()}
    read = model.model_validate(query)
    assert model.model_validate(camel) == read
    assert name in read.model_fields_set


@pytest.mark.parametrize(("model", "name"), [case for case in PARAMETERS if "_" in case.values[1]])  # type: ignore[operator]
def test_both_names_at_once_are_refused_and_both_are_named(model: type[QueryParameters], name: str) -> None:
    with pytest.raises(ValidationError) as refused:
        model.model_validate({**query_with(model, name), to_camel(name): VALUES[name]})
    [error] = refused.value.errors()
    assert name in error["msg"]
    assert to_camel(name) in error["msg"]
    assert set(error["ctx"]["messages"]) == {name, to_camel(name)}


@pytest.mark.parametrize(("model", "name"), PARAMETERS)
def test_an_empty_value_is_as_good_as_none(model: type[QueryParameters], name: str) -> None:
    query = query_with(model, name) | {name: ""}
    without = {other: value for other, value in query.items() if other != name}
    assert outcome(model, query) == outcome(model, without)


@pytest.mark.parametrize(
    "name", ["page_size", "status_code", "min_duration_ms", "max_duration_ms", "limit", "prompt_id"]
)
@pytest.mark.parametrize("zero", ["0", 0])
def test_a_zero_is_as_good_as_no_number(name: str, zero: Any) -> None:
    for model in MODELS:
        if name in model.model_fields:
            query = query_with(model, name)
            without = {other: value for other, value in query.items() if other != name}
            assert outcome(model, query | {name: zero}) == outcome(model, without)


def outcome(model: type[QueryParameters], query: dict[str, Any]) -> Any:
    """What is read, or what is wrong."""
    try:
        return model.model_validate(query)
    except ValidationError as error:
        return error.errors(include_url=False, include_input=False)


@pytest.mark.parametrize("name", ["user_id", "api_key_id", "model_name", "status", "prefix", "metadata_key"])
def test_a_zero_is_a_text_like_any_other(name: str) -> None:
    for model in MODELS:
        if name in model.model_fields:
            assert getattr(model.model_validate(query_with(model, name) | {name: "0"}), name) == "0"


@pytest.mark.parametrize("name", ["userid", "UserId", "user-id", "USER_ID", "page_Size", "pagesize", "_user_id"])
def test_any_other_spelling_is_an_unknown_name(name: str) -> None:
    for model in MODELS:
        query = {other: VALUES[other] for other, field in model.model_fields.items() if field.is_required()}
        with pytest.raises(ValidationError, match="Extra inputs"):
            model.model_validate(query | {name: "1"})
