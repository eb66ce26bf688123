"""The tools that MCP clients may call: names, descriptions, arguments, and what answers each."""

from collections.abc import Callable
from typing import Any, NamedTuple

from pydantic import ValidationError

from api.analytics.request import Body
from api.mcp.context import ToolAnswer, ToolContext, written_span
from api.mcp.errors import invalid_arguments
from api.mcp.schemas import schema_of
from api.mcp.tools.aggregate import AggregateArguments, answer_aggregate
from api.mcp.tools.budgets_and_alerts import BudgetArguments, answer_budgets
from api.mcp.tools.compare_periods import CompareArguments, answer_comparison
from api.mcp.tools.describe_data import DescribeArguments, answer_description
from api.mcp.tools.explain_request import ExplainArguments, answer_explanation
from api.mcp.tools.find_requests import FindArguments, answer_find
from api.mcp.tools.model_prices import PriceArguments, answer_prices

INSTRUCTIONS = (
    "What LLM requests cost, who made them, and which failed. Dollars are exact decimal text: repeat the digits, add"
    " them up as decimals. Unknown costs are not 0: requests_without_cost counts them. Say which period and time zone a"
    " figure is of, and how fresh it is (freshness). Begin with describe_data when a name is not sure."
)


class Tool(NamedTuple):
    """`answer` takes the validated arguments. It blocks, and raises what the REST routes raise."""

    name: str
    title: str
    description: str
    arguments: type[Body]
    answer: Callable[[ToolContext, Any], ToolAnswer]

    @property
    def schema(self) -> dict[str, Any]:
        return schema_of(self.arguments)

    def run(self, context: ToolContext, given: dict[str, Any]) -> dict[str, Any]:
        """The answer as JSON, with how it is to be read. Raises ApiError 400 for arguments that mean nothing."""
        try:
            arguments = self.arguments.model_validate(given)
        except ValidationError as error:
            raise invalid_arguments(self.arguments, error) from error
        answer = self.answer(context, arguments)
        return {
            **answer.content,
            "exactness": answer.exactness,
            "period": (answer.span and written_span(answer.span)) or "all time",
            "timezone": answer.timezone,
            "freshness": context.freshness(),
            "notes": answer.notes,
            "console": f"{str(context.request.base_url).rstrip('/')}{answer.console}",
        }


TOOLS = (
    Tool(
        "describe_data",
        "Describe the data",
        "What can be measured, grouped and filtered by; or the values that a field has, such as names of models.",
        DescribeArguments,
        answer_description,
    ),
    Tool(
        "aggregate",
        "Spend, tokens, requests, latency",
        "Metrics of the requests of a period, in total and by group or over time: who spent how much on what.",
        AggregateArguments,
        answer_aggregate,
    ),
    Tool(
        "compare_periods",
        "What changed",
        "What changed against another period and why: the totals, whether it was more requests or dearer ones, and the"
        " groups that changed most.",
        CompareArguments,
        answer_comparison,
    ),
    Tool(
        "find_requests",
        "Find requests",
        "Single requests by filters and words: the newest, dearest or slowest ones.",
        FindArguments,
        answer_find,
    ),
    Tool(
        "explain_request",
        "Explain a request",
        "One request by its id, and why it costs what it costs: quantity x price for each charge, and the fee.",
        ExplainArguments,
        answer_explanation,
    ),
    Tool(
        "budgets_and_alerts",
        "Budgets and alerts",
        "What is spent of each budget, when it starts anew, and the alerts that were given.",
        BudgetArguments,
        answer_budgets,
    ),
    Tool(
        "model_prices",
        "Prices of a model",
        "What a model costs at a moment: dollars per million tokens, tiers and fee.",
        PriceArguments,
        answer_prices,
    ),
)
BY_NAME = {tool.name: tool for tool in TOOLS}
