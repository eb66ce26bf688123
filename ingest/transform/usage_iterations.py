"""Selects the iterations of an answer that Anthropic bills, out of `usage.iterations`."""

from collections.abc import Mapping, Sequence
from typing import Any

from aggregator.iterations import MAX_ITERATIONS, as_units
from ingest.transform.response_messages import ExtractionError
from router_insights.emitter.contract import TOKEN_COLUMNS

# Attempts at the answer: all that the counts of the whole are made of.
ATTEMPTS = ("message", "fallback_message")
COMPACTION = "compaction"
COUNTS = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")


def billed_iterations(usage: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The iterations of an Anthropic usage that are billed, if they say more than the usage itself does.

    Pages "Compaction" and "Refusals and fallback": compactions are billed though the counts of the whole leave them
    out, an attempt that was declined before one on another model is not. Raises ExtractionError for an iteration
    whose price is that of another model (an advisor's), or that is of no kind that is known.
    """
    found = usage.get("iterations")
    iterations = [each for each in found if isinstance(each, Mapping)] if isinstance(found, list) else []
    kinds = {each.get("type", "message") for each in iterations}
    if len(iterations) > MAX_ITERATIONS or not kinds <= {*ATTEMPTS, COMPACTION}:
        raise ExtractionError("other_model" if "advisor_message" in kinds else "unknown_shape")
    attempts = [place for place, each in enumerate(iterations) if each.get("type") != COMPACTION]
    billed = _billed_attempts(iterations, attempts, usage)
    kept = [each for place, each in enumerate(iterations) if place in billed or place not in attempts]
    return [] if len(kept) == 1 and len(attempts) == len(billed) == 1 else kept


def _billed_attempts(
    iterations: Sequence[Mapping[str, Any]], attempts: list[int], usage: Mapping[str, Any]
) -> frozenset[int]:
    """The places of the attempts that the counts of the whole are the sum of: all, or those after what was declined."""
    for place in range(len(attempts)):
        last = attempts[place:]
        if all(sum(_number(iterations[each], name) for each in last) == _number(usage, name) for name in COUNTS):
            return frozenset(last)
    fallbacks = [place for place in attempts if iterations[place].get("type") == "fallback_message"]
    return frozenset(place for place in attempts if not fallbacks or place >= fallbacks[-1])


def _number(counts: Mapping[str, Any], name: str) -> int | float:
    value = counts.get(name)
    return value if isinstance(value, int | float) else 0


def iteration_units(counts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What each iteration has counted (by the catalogue's units), as units of the row; nothing for a single one."""
    if len(counts) < 2:
        return {}
    return as_units([{TOKEN_COLUMNS.get(unit, unit): count for unit, count in each.items()} for each in counts])
