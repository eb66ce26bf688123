"""How long pricing takes, per batch of 50,000 events and beside decoding them."""

import json
import random
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pyarrow as pa
from genai_prices.data import providers

from ingest.pricing import PriceBook, price_events
from ingest.pricing.operator_file import parse
from ingest.transform.decoder import Decoder

EVENTS = 50_000
ROUNDS = 9
NEGOTIATED_USERS = 1_000


def events(models: int) -> Iterator[dict[str, Any]]:
    """Requests of 26 fields to `models` models of the catalogue, some of which have tiers and dated prices."""
    chance = random.Random(models)
    names = [(provider.id, model.id) for provider in providers for model in provider.models]
    chosen = chance.sample(names, models)
    for number in range(EVENTS):
        provider, model = chance.choice(chosen)
        total = chance.randrange(300_000)
        yield {
            "request_id": f"{number:032x}",
            "timestamp": 1_790_000_000_000 + chance.randrange(5_000_000_000),
            "model_name": model,
            "provider": provider,
            "status": "success",
            "status_code": 200,
            "user_id": f"user-{chance.randrange(5_000)}",
            "api_key_id": f"key-{chance.randrange(8_000)}",
            "api_key_prefix": "ak-12345678",
            "api_key_name": "production",
            "input_tokens": total,
            "output_tokens": chance.randrange(4_000),
            "cached_input_tokens": total // 2,
            "cache_creation_input_tokens": total // 10,
            "thinking_tokens": 0,
            "duration_ms": chance.randrange(60_000),
            "upstream_duration_ms": chance.randrange(50_000),
            "time_to_first_token_ms": chance.randrange(5_000),
            "llm_parameters": {"temperature": 0.2, "max_tokens": 4_096},
            "tags": ["prod", "team-search"],
            "metadata": {"team": "search", "feature": {"name": "answers", "version": 3}},
            "prompt_name": "answer-question",
            "tool_names": ["search", "read_page"],
            "turn_count": 3,
            "session_id": f"session-{chance.randrange(20_000)}",
            "trace_id": f"{chance.getrandbits(128):032x}",
        }


def negotiated() -> PriceBook:
    """Prices for `NEGOTIATED_USERS` users, and fees."""
    entries = ",".join(f"{{model: '*', user_id: user-{n}, input: 1, output: 2}}" for n in range(NEGOTIATED_USERS))
    return PriceBook(parse(f"prices: [{entries}]\nfees: [{{rate: 0.055}}]", "bench"))


def median_seconds(action: Callable[[], object]) -> tuple[float, float]:
    """Of the first run, and the median of `ROUNDS` more."""
    times = []
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return times[0], sorted(times[1:])[ROUNDS // 2]


def report(name: str, seconds: float, note: str = "") -> None:
    print(f"{name:44} {seconds * 1e3:7.1f} ms {seconds / EVENTS * 1e6:6.2f} us/event  {note}")


def measure(models: int) -> None:
    decoder = Decoder()
    values = [json.dumps(event).encode() for event in events(models)]
    _, decode_seconds = median_seconds(partial(decoder.decode, values))
    decoded: pa.Table = decoder.decode(values).events
    report(f"decode, {models} models", decode_seconds)
    for name, book in (("catalogue", PriceBook()), (f"{NEGOTIATED_USERS:,} users' own prices, fees", negotiated())):
        first, seconds = median_seconds(partial(price_events, decoded, book))
        share = seconds / (decode_seconds + seconds)
        report(f"price, {models} models, {name}", seconds, f"{share:.1%} of both; first batch {first * 1e3:.0f} ms")


def run() -> None:
    for models in (10, 300):
        measure(models)
