"""Requests that the provider answers in several iterations, each billed by its own size (Anthropic's `iterations`).

The columns of a row hold the sums. The counts of each iteration are in the map `usage`, as `iteration_1_input_tokens`,
`iteration_1_output_tokens`, `iteration_1_cached_input_tokens`, `iteration_1_cache_write_1h_tokens`, ..., so that the
tier of each iteration can be found now and whenever the row is priced again.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from genai_prices.data_units import unit_data
from genai_prices.units import UnitRegistry

PREFIX = "iteration_"
NAME = re.compile(r"iteration_([1-9][0-9]?)_(\w+)", re.ASCII)
MAX_ITERATIONS = 99
# Columns that are the sums of their iterations.
COLUMNS = ("input_tokens", "output_tokens", "cached_input_tokens", "cache_creation_input_tokens")
# Columns that an iteration's own row has in place of those of the whole.
ROW_COLUMNS = (*COLUMNS, "thinking_tokens", "usage")
_UNITS = UnitRegistry(unit_data).units


# Between the price ids of a row whose iterations had different ones. No id has a blank in one of its words.
PRICE_ID_SEPARATOR = " + "


def join_price_ids(ids: Sequence[str]) -> str:
    return PRICE_ID_SEPARATOR.join(dict.fromkeys(ids))


def split_price_id(price_id: str) -> list[str]:
    return price_id.split(PRICE_ID_SEPARATOR)


def as_units(iterations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Units of the map `usage` for what each iteration has counted, by column or the catalogue's unit."""
    return {
        f"{PREFIX}{number}_{name}": count
        for number, iteration in enumerate(iterations, start=1)
        for name, count in iteration.items()
        if count
    }


def iteration_rows(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """ROW_COLUMNS of each iteration of a row, in order; nothing for a row that was answered in one.

    What is counted once for all of them (searches) is in the first. Raises ValueError if the iterations do not add up
    to the columns of the row.
    """
    usage = row.get("usage") or ""
    units: dict[str, Any] = json.loads(usage) if PREFIX in usage else {}
    counts: dict[int, dict[str, Any]] = {}
    others: dict[str, Any] = {}
    for name, count in units.items():
        if found := NAME.fullmatch(name):
            counts.setdefault(int(found[1]), {})[found[2]] = count
        elif name not in _UNITS or _UNITS[name].dimensions["family"] != "tokens":
            others[name] = count
    if not counts:
        return []
    for column in COLUMNS:
        parts = [each.get(column, 0) for each in counts.values()]
        if not all(isinstance(count, int) for count in parts) or sum(parts) != (row[column] or 0):
            raise ValueError(f"the iterations do not add up to {column}")
    if any(_cached(each) > each.get("input_tokens", 0) for each in counts.values()):
        raise ValueError("an iteration has more cached than input tokens")
    numbers = sorted(counts)
    # What is unknown of the row is unknown of its iterations, not 0.
    missing = {column: None if row[column] is None else 0 for column in COLUMNS}
    apart = [{name: each for name, each in counts[number].items() if name not in COLUMNS} for number in numbers]
    apart[0] |= others
    thinking = [*[None] * (len(numbers) - 1), row["thinking_tokens"]]
    # Further units are priced another way than tokens alone: all iterations of a row in the same.
    is_of_units = any(apart) or bool(thinking[-1])
    return [
        {column: counts[number].get(column, missing[column]) for column in COLUMNS}
        | {"thinking_tokens": thinking[place], "usage": json.dumps(apart[place]) if is_of_units else ""}
        for place, number in enumerate(numbers)
    ]


def _cached(counts: Mapping[str, Any]) -> int:
    return int(counts.get("cached_input_tokens", 0)) + int(counts.get("cache_creation_input_tokens", 0))
