"""The events of the benchmarks: the demo's traffic, and the same with bodies up to a size."""

import random
from datetime import UTC, datetime, timedelta

import msgspec

from cli.demo.generator import draw, records

SEED = 20261124
DAY = datetime(2026, 11, 20, tzinfo=UTC)
# Of the events' own time: batches cover seconds to minutes of it, as they do while a worker keeps up or catches up.
EVENTS_PER_SECOND = 1_000
# By name, the average bytes of a record; the demo's own events have about 0.85 KB.
SIZES = {"0.8 KB": 0, "4 KB": 4_000, "32 KB": 32_000}
# Drawn from when bodies are made, so that they compress about as well as prose and JSON do.
WORDS = ["".join(random.Random(number).choices("aeiounrstldmpcfgbvh", k=2 + number % 9)) for number in range(4_000)]

Record = tuple[bytes, bytes]


def make(count: int, size_bytes: int = 0, seed: int = SEED) -> list[Record]:
    """(key, value) of about `count` requests; with a size, bodies fill every value up to it."""
    plain = list(records(draw(seed, count, DAY, DAY + timedelta(seconds=count / EVENTS_PER_SECOND))))
    if not size_bytes:
        return plain
    rng = random.Random(seed)
    return [(key, _with_bodies(rng, value, size_bytes)) for key, value in plain]


def _with_bodies(rng: random.Random, value: bytes, size_bytes: int) -> bytes:
    try:
        event = msgspec.json.decode(value)
    except msgspec.DecodeError:
        return value
    room = size_bytes - len(value) - 300
    question, answer = _prose(rng, room * 2 // 3), _prose(rng, room // 3)
    event["request_body"] = {
        "model": event["model_name"], "temperature": 0.2,
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": question}],
    }  # fmt: skip
    event["response_body"] = {
        "id": f"chatcmpl-{rng.getrandbits(96):024x}",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": answer}, "finish_reason": "stop"}],
    }
    return msgspec.json.encode(event)


def _prose(rng: random.Random, chars: int) -> str:
    """Text of that length with the line breaks and quotes that make JSON escape."""
    words: list[str] = []
    length = 0
    while length < chars:
        word = WORDS[int(len(WORDS) * rng.random() ** 2)]
        words.append(f'"{word}"\n' if len(words) % 23 == 22 else word)
        length += len(words[-1]) + 1
    return " ".join(words)[: max(chars, 0)]
