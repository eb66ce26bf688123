"""How long a page of `POST /api/public/v2/requests/search` takes, over ten million requests with texts.

Run: python -m tests.benchmarks.bench_search [rows] [folder to keep the rows in]
"""

import logging
import statistics
import sys
import tempfile
import time
from typing import Any

import structlog

from aggregator.migrations import migrate
from aggregator.warehouse import Warehouse
from tests.support.api import client_of

CHUNK = 500_000
REPEATS = 7
# 20,000 words of one to four syllables, and 20,000 sentences of them: few words are common, most are rare.
WORDS = """
CREATE TABLE words ENGINE = Memory AS
SELECT number AS place, arrayStringConcat(arrayMap(
    n -> splitByChar(' ', 're fun con ver ta li mo ne sto pri ga bu ka de ing er sa to mi no pa qui')
        [1 + sipHash64(number, n) % 22], range(1 + sipHash64(number) % 4))) AS word
FROM numbers(20000) ORDER BY place
"""
SENTENCES = """
CREATE TABLE sentences ENGINE = Memory AS
WITH (SELECT groupArray(word) FROM words) AS words
SELECT arrayStringConcat(arrayMap(
    n -> words[toUInt32(exp((sipHash64(number, n) % 1000000) / 1000000 * 9.9))], range(toUInt32(14))), ' ') AS text
FROM numbers(20000)
"""
ROW_KEY = """
    toDateTime64('2026-01-01 00:00:00', 6, 'UTC') + toIntervalMicrosecond(number * intDiv(5184000000000, {rows:UInt64}))
        AS timestamp,
    toString(number) AS request_id, toDateTime64(timestamp, 3, 'UTC') AS created_at,
    number % 6 AS source_partition, number AS source_offset
"""
LOGS = f"""
INSERT INTO request_logs (timestamp, request_id, created_at, source_partition, source_offset, source_topic, provider,
    model_name, user_id, status, input_tokens, output_tokens, duration_ms, cost, tags, metadata)
SELECT {ROW_KEY}, 'request-events', ['openai', 'anthropic'][1 + number % 2],
    concat('model-', toString(cityHash64(number, 2) % 20)), concat('user-', toString(cityHash64(number, 3) % 1000)),
    if(cityHash64(number, 4) % 50 = 0, 'error', 'success'), cityHash64(number, 5) % 8000, cityHash64(number, 6) % 2000,
    cityHash64(number, 7) % 30000, toDecimal64((cityHash64(number, 8) % 100000) / 1000000, 12),
    if(number % 3 = 0, ['production'], []), concat('{{"team": "team-', toString(cityHash64(number, 9) % 30), '"}}')
FROM numbers({{first:UInt64}}, {{count:UInt64}})
"""
# Every text has a number of its own, and one in 100,000 the word zebracorn.
PAYLOADS = f"""
INSERT INTO request_payloads (timestamp, request_id, created_at, source_partition, source_offset, input_text,
    output_text)
WITH (SELECT groupArray(text) FROM sentences) AS sentences
SELECT {ROW_KEY},
    concat('[user]: ', sentences[1 + sipHash64(number, 1) % 20000], ' order ', toString(sipHash64(number) % 10000000),
        if(number % 100000 = 7, ' zebracorn', '')),
    sentences[1 + sipHash64(number, 2) % 20000]
FROM numbers({{first:UInt64}}, {{count:UInt64}})
"""
DAY = {"field": "request_start_time", "operator": "between", "value": ["2026-02-10", "2026-02-10"]}
MODEL = {"field": "engine", "operator": "is", "value": "model-3"}
SEARCHES: dict[str, dict[str, Any]] = {
    "newest": {},
    "newest, page 400": {"page": 400, "per_page": 25},
    "dearest": {"sort_by": "cost", "sort_order": "desc"},
    "one day of a model": {"filter_group": {"filters": [DAY, MODEL]}},
    "q: rare word": {"q": "zebracorn"},
    "q: rare word with a typo": {"q": "zebrcaorn"},
    "q: beginning of a rare word": {"q": "zebra"},
    "q: common word": {"q": "re"},
    "q: common beginning": {"q": "conver"},
    "q: two words, one with a typo": {"q": "order funcnover"},
    "q: three common words": {"q": "fun order re"},
    "q: a number": {"q": "order 1234567"},
    "q: four words, two with typos": {"q": "order funcnover re libgapri"},
    "q: beginning of many numbers": {"q": "12"},
    "q: no such word": {"q": "xylophone"},
    "q: common word on one day": {"q": "re", "filter_group": {"filters": [DAY]}},
    "q: common word of a model": {"q": "conver", "filter_group": {"filters": [MODEL]}},
    "q: rare word by cost": {"q": "zebra", "sort_by": "cost", "sort_order": "desc"},
}  # fmt: skip


def fill(warehouse: Warehouse, rows: int) -> None:
    migrate(warehouse)
    for statement in (WORDS, SENTENCES):
        warehouse.command(statement)
    for first in range(0, rows, CHUNK):
        bounds = {"rows": rows, "first": first, "count": min(CHUNK, rows - first)}
        warehouse.command(LOGS, bounds)
        warehouse.command(PAYLOADS, bounds)
        print(f"\r{first + bounds['count']:,} rows", end="", flush=True)
    print()


def main(rows: int, folder: str) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    warehouse = Warehouse(f"chdb://{folder}")
    warehouse.create_database()
    if not warehouse.query("SELECT 1 FROM system.tables WHERE database = currentDatabase() AND name = 'sentences'"):
        fill(warehouse, rows)
    with client_of(warehouse) as client:
        for name, body in SEARCHES.items():
            times_ms = []
            for _ in range(REPEATS):
                started = time.perf_counter()
                response = client.post("/api/public/v2/requests/search", json=body)
                times_ms.append((time.perf_counter() - started) * 1000)
                assert response.status_code == 200, response.text
            found = response.json()
            print(
                f"{name:32} {statistics.median(times_ms):7.0f} ms, slowest {max(times_ms):6.0f} ms,"
                f" total {found['total']:>10,}{' at least' if found['total_is_approximate'] else ''}"
            )
    warehouse.close()


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000
    if len(sys.argv) > 2:
        main(count, sys.argv[2])
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(count, temporary)
