"""The tool `describe_data`: what can be measured, grouped and filtered by, and which values a field has."""

from typing import Any

from pydantic import Field, StrictStr

from api.analytics.filters.fields import FIELDS
from api.analytics.request import Body
from api.analytics.suggestions.parameters import SuggestedField, SuggestionParameters
from api.analytics.suggestions.queries import answer_suggestions
from api.errors import invalid_argument
from api.mcp import metrics, periods
from api.mcp.arguments import METADATA
from api.mcp.console_links import ConsolePage, page_address
from api.mcp.context import ToolAnswer, ToolContext
from api.security.auth import require
from api.security.permissions import Permission

VALUES_OF = (
    *(field.value for field in SuggestedField if not field.value.endswith("_values")),
    f"{METADATA}KEY",
)


class DescribeArguments(Body):
    values_of: StrictStr | None = Field(
        None,
        description="A field whose values are wanted, most frequent first: engine, provider_type, status, prompt, tags,"
        " tool_names, metadata_keys, metadata.KEY.",
    )
    prefix: StrictStr = Field("", max_length=200, description="What these values begin with, in any case.")


def answer_description(context: ToolContext, asked: DescribeArguments) -> ToolAnswer:
    console = page_address(ConsolePage.EXPLORE)
    if asked.values_of is not None:
        return ToolAnswer({"values_of": asked.values_of, "values": _values(context, asked)}, console)
    may_see_content = context.reader.caller.may(Permission.CONTENT)
    fields = [
        {
            "name": field.name,
            "meaning": field.meaning,
            "operators": " ".join(field.operators),
            **({"group": True} if field.can_group else {}),
            **({"metric": field.unit.value} if field.unit else {}),
        }
        for field in FIELDS
        if may_see_content or not field.is_content
    ]
    content = {
        "metrics": list(metrics.ALLOWED),
        "fields": fields,
        "also_group_by": ["metadata.KEY", "hour", "day", "week", "month"],
        "periods": list(periods.ALLOWED),
        "units": "cost in US dollars as exact decimal text, fee included; latency_ms in milliseconds",
        "you_see": _seen(context),
    }
    return ToolAnswer(content, console)


def _values(context: ToolContext, asked: DescribeArguments) -> list[str]:
    """Raises ApiError 400 for a field without such values, 403 for content."""
    name = asked.values_of or ""
    given: dict[str, Any] = {"field": name, "prefix": asked.prefix}
    if name.startswith(METADATA) and name != METADATA:
        given |= {"field": SuggestedField.METADATA_VALUES, "metadata_key": name.removeprefix(METADATA)}
    elif name not in VALUES_OF:
        raise invalid_argument("values_of", f"{name!r} has no values to list", VALUES_OF)
    parameters = SuggestionParameters.model_validate(given)
    if parameters.asks_for_content:
        require(context.reader.caller, Permission.CONTENT)
    context.count("suggestions")
    return answer_suggestions(context.reader, parameters, parameters.query).values


def _seen(context: ToolContext) -> dict[str, Any]:
    restriction = context.reader.caller.restriction
    return {
        "content": context.reader.caller.may(Permission.CONTENT),
        "only_user_id": restriction.user_id if restriction else None,
        "only_api_key_ids": list(restriction.api_key_ids) if restriction else [],
    }
