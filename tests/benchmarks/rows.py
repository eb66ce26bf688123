"""Millions of rows for the reads part, made by ClickHouse itself: 40 days at the shape of the demo's traffic.

They are kept in a folder to be used again; a fill that was stopped goes on where it was.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import chdb
from rich.progress import Progress

from aggregator.clickhouse.client import Warehouse
from aggregator.clickhouse.migrate import migrate
from aggregator.clickhouse.migration_files import read_migrations
from aggregator.rollups.measures import ROLLUPS
from tests.benchmarks.events import SEED

DAYS = 40
# A chunk is one insert: a day's part of the rows, as if it had arrived in order.
CHUNK_ROWS = 1_000_000
# So many requests have texts at every size, evenly spread: all of a million, one in fifty of fifty million.
ROWS_WITH_BODIES = 1_000_000
# The same for a row and its texts.
WHO = """
WITH
    cityHash64(number, {seed:UInt64}) AS h,
    (h % 1000000) / 1000000 AS u, (intDiv(h, 1000000) % 1000000) / 1000000 AS w,
    toUInt32({users:UInt32} * pow(u, 2)) AS user,
    toUInt32({models:UInt32} * pow(w, 2)) AS model,
    toDateTime64('2026-10-01 00:00:00', 6, 'UTC')
        + toIntervalMicrosecond(toUInt64(number * ({days:UInt32} * 86400000000. / {rows:UInt64})) + h % 1000) AS at,
    concat('req-', lower(hex(substring(sipHash128(number, {seed:UInt64}), 1, 12)))) AS id,
    concat('user-', toString(user)) AS user_name, concat('key-', toString(user * 2 + h % 2)) AS key_name,
"""
FILL = (
    """
INSERT INTO request_logs (timestamp, request_id, created_at, source_topic, source_partition, source_offset, provider,
    model_name, user_id, api_key_id, api_key_prefix, api_key_hash, api_key_name, status, status_code, error_type,
    is_error, usage_source, input_tokens, output_tokens, cached_input_tokens, duration_ms, upstream_duration_ms,
    time_to_first_token_ms, cost, cost_fee, input_tokens_cost, input_tokens_cost_fee,
    output_tokens_cost, output_tokens_cost_fee, cached_input_tokens_cost, cached_input_tokens_cost_fee,
    cache_creation_input_tokens_cost, cache_creation_input_tokens_cost_fee, other_cost, other_cost_fee,
    price_id, price_version, tags, metadata, session_id)
"""
    + WHO
    + """    cityHash64(h, 1) % 1000 AS luck,
    multiIf(luck < 985, 'success', luck < 997, 'error', 'timeout') AS how,
    toUInt32(200 * exp(4 * ((cityHash64(h, 2) % 10000) / 10000))) AS prompt,
    toUInt32(40 * exp(3 * ((cityHash64(h, 3) % 10000) / 10000))) AS answer,
    toUInt32(300 * exp(4 * ((cityHash64(h, 4) % 100000) / 100000))) AS took,
    toDecimal128('0.000000000001', 12) AS pico,
    toDecimal128(prompt * (150000 + model * 25000), 0) * pico AS input_cost,
    toDecimal128(answer * (600000 + model * 100000), 0) * pico AS output_cost
SELECT
    at, id, at, 'request-events', number % 6,
    intDiv(number, 6), concat('provider-', toString(model % 5)), concat('model-', toString(model)),
    user_name, key_name,
    concat('ak-', substring(lower(hex(cityHash64(user))), 1, 8)), lower(hex(cityHash64(user, 9))), 'production',
    how, multiIf(how = 'success', 200, how = 'timeout', 504, luck < 990, 429, 500),
    if(how = 'success', '', 'upstream_error'), how != 'success', 'reported', prompt, answer,
    if(h % 3 = 0, intDiv(prompt, 2), 0), took, took - 5, least(took, 400),
    input_cost + output_cost, 0, input_cost, 0, output_cost, 0,
    0, 0, 0, 0, 0, 0,
    concat('made-up/model-', toString(model), ' input=', toString(0.15 + model * 0.025), ' cached_input=0',
        ' cache_creation_input=0 output=', toString(0.6 + model * 0.1)), '1', ['prod'], '{"team": "search"}',
    concat('s-', toString(user), '-', toString(intDiv(number, 1000) % 50))
FROM numbers({first:UInt64}, {chunk:UInt64})
"""
)
# Texts of fourteen words, used as unevenly as those of a language, of ten thousand that there are.
BODIES = (
    """
INSERT INTO request_payloads (timestamp, request_id, created_at, source_partition, source_offset, user_id, api_key_id,
    request_body, response_body, input_text, output_text)
"""
    + WHO
    + """    splitByChar(' ', 're fun con ver ta li mo ne sto pri ga bu ka de ing er sa to mi no pa qui') AS parts,
    arrayMap(n -> toUInt32(exp((cityHash64(h, n) % 1000000) / 1000000 * 9.2)), range(28)) AS places,
    arrayMap(k -> concat(parts[1 + k % 22], parts[1 + intDiv(k, 22) % 22], parts[1 + intDiv(k, 484) % 22]), places)
        AS words,
    arrayStringConcat(arraySlice(words, 1, 14), ' ') AS asked, arrayStringConcat(arraySlice(words, 15), ' ') AS answer
SELECT at, id, at, number % 6, intDiv(number, 6), user_name, key_name,
    concat('{"model": "model-', toString(model), '", "messages": [{"role": "user", "content": "', asked, '"}]}'),
    concat('{"choices": [{"message": {"role": "assistant", "content": "', answer, '"}}]}'),
    concat('[user]: ', asked), answer
FROM numbers({first:UInt64}, {chunk:UInt64}) WHERE number % {every:UInt64} = 0
"""
)
# A log of queries, which chDB keeps none of by itself; `log_queries` says for which statements.
ENGINE_CONFIG = """
<clickhouse>
    <query_log><database>system</database><table>query_log</table></query_log>
</clickhouse>
"""
USERS, MODELS = 1_000, 60


@dataclass(frozen=True)
class Shape:
    """What a filled database holds."""

    rows: int
    users: int = USERS
    models: int = MODELS
    days: int = DAYS

    @property
    def name(self) -> str:
        """Of the database; rows that another statement or schema has filled are not used again."""
        made_by = FILL + BODIES + "".join(f"{each.name}{each.checksum}" for each in read_migrations())
        return f"bench_{self.rows}_{self.users}_{self.models}_{hashlib.sha256(made_by.encode()).hexdigest()[:8]}"

    @property
    def rows_a_body(self) -> int:
        return max(1, self.rows // ROWS_WITH_BODIES)

    @property
    def bound(self) -> dict[str, int]:
        """Parameters of FILL and BODIES, but for the chunk."""
        return {"seed": SEED, "users": self.users, "models": self.models, "days": self.days, "rows": self.rows}


def fill(warehouse: Warehouse, shape: Shape, progress: Progress, until: int | None = None) -> None:
    """Fill the database up to row `until`, all of it by default, from where an earlier fill has stopped."""
    migrate(warehouse)
    until = min(until or shape.rows, shape.rows)
    first = int(warehouse.query("SELECT count() AS n FROM request_logs")[0]["n"])
    if first >= until:
        return
    bar = progress.add_task(f"fill {shape.rows:,} rows", total=shape.rows, completed=first)
    while first < until:
        chunk = min(CHUNK_ROWS, until - first)
        bound = {**shape.bound, "first": first, "chunk": chunk}
        # Bodies first: a fill that is stopped between the two makes these rows' again, and no row has none.
        warehouse.command(BODIES, {**bound, "every": shape.rows_a_body})
        warehouse.command(FILL, bound)
        first += chunk
        progress.update(bar, completed=first)
    if first == shape.rows:
        for table in ("request_logs", "request_payloads", *(rollup.table for rollup in ROLLUPS)):
            warehouse.command(f"OPTIMIZE TABLE {table}")


@contextmanager
def database(folder: Path, shape: Shape) -> Iterator[Warehouse]:
    """The database of the shape in the folder, filled or not, of an engine that can log queries."""
    config = folder / "config.xml"
    config.write_text(ENGINE_CONFIG)
    # The first connection starts the engine, and only this way of connecting takes a configuration.
    engine = chdb.connect(f"{folder}/engine?config-file={config}")  # type: ignore[no-untyped-call]
    warehouse = Warehouse(f"chdb://{folder}/engine", shape.name)
    try:
        yield warehouse
    finally:
        warehouse.close()
        engine.close()
