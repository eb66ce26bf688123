"""The words of `q`, and which words of the stored texts each of them means.

A word means every word that begins with it. From five letters on, if there are no digits in it, it also means what
begins with it but for one typo: a letter that is missing, too much or wrong, or two neighbours that changed places. If
the typo is its last letter, only whole words count: else `order` would mean every word with `orde`.

These words are read from the text indexes themselves. The indexes keep their words in order, so words with the same
beginning are one range of the index, however many others there are.
"""

import re
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Any

from aggregator.clickhouse.client import Warehouse
from aggregator.clickhouse.sql import Binder
from api.errors import ApiError
from api.security.reader import Reader

MAX_WORDS = 20
# The words that begin with it go first, then those that occur most often.
MAX_MEANINGS = 200
# Shorter words differ too little from each other; longer ones were not typed by people.
TYPO_LENGTHS = range(5, 33)
# A typo in the first letters leaves no range to read, so each letter that may stand there is tried.
HEAD = 2
LETTERS = string.ascii_lowercase
LAST_LETTER = "\U0010ffff"

# The words of a text as the indexes have them.
SPLIT = "SELECT arrayDistinct(tokens(lowerUTF8({q:String}))) AS words"
INDEXES = ("input_words", "output_words")
# On a cluster the indexes are in the tables of the shards.
SHARDED = """
SELECT engine_full FROM system.tables
WHERE database = currentDatabase() AND name = 'request_payloads' AND engine = 'Distributed'
"""
DISTRIBUTED = re.compile(r"Distributed\('(?P<cluster>[^']+)', '(?P<database>[^']+)', '(?P<table>[^']+)'")


class Closeness(IntEnum):
    """How a word of a text may differ from a word of `q`."""

    EXACT = 0
    BEGINNING = 1
    TYPO = 2


@dataclass(frozen=True)
class Word:
    """The words of texts that a word of `q` means: the same, longer ones, and those that begin alike but for a typo.

    `texts` is an upper bound of the texts with any of them: a text counts once for each that it has.
    """

    same: tuple[str, ...] = ()
    longer: tuple[str, ...] = ()
    similar: tuple[str, ...] = ()
    texts: int = 0

    def meanings(self, closeness: Closeness) -> list[str]:
        by_closeness = (self.same, self.longer, self.similar)
        return [token for tokens in by_closeness[: closeness + 1] for token in tokens]


def may_have_typo(word: str) -> bool:
    """Whether other words may be it with a typo. Not with digits: another number is another thing."""
    return len(word) in TYPO_LENGTHS and not any(letter.isdigit() for letter in word)


def typos(word: str) -> Iterator[str]:
    """Regular expressions of beginnings that differ from `word` in one typo; `$` where the whole word must be it."""
    last = len(word) - 1
    for place, letter in enumerate(word):
        before, after, end = word[:place], word[place + 1 :], "$" if place == last else ""
        yield f"{before}.{after}{end}"
        yield f"{before}{after}{end}"
        yield f"{before}.{letter}{after}"
        if place < last:
            yield f"{before}{after[0]}{letter}{after[1:]}"


def _beginnings(word: str) -> Iterator[str]:
    """The beginnings of words that have a typo in their first letters."""
    for place in range(HEAD):
        before, letter, after = word[:place], word[place], word[place + 1 :]
        yield before + after
        yield before + after[0] + letter + after[1:]
        for other in LETTERS:
            yield before + other + after
            yield before + other + letter + after


def _condition(word: str, binder: Binder) -> str:
    """SQL over `token`, the words of an index."""
    exact = f"startsWith(token, {binder.text(word)})"
    if not may_have_typo(word):
        return exact
    pattern = binder.text(f"^(?:{'|'.join(typos(word))})")
    # The hint decides what is read of the index: where each of these ranges begins and ends. It is not evaluated for
    # every word read; `rest` is, and leaves few words to match.
    ends = [end for begin in dict.fromkeys(_beginnings(word)) for end in (begin, begin + LAST_LETTER)]
    rest = f"position(token, {binder.text(word[HEAD + 1 :])}) > 0"
    return (
        f"{exact} OR startsWith(token, {binder.text(word[:HEAD])}) AND match(token, {pattern})"
        f" OR indexHint(token IN {binder.texts(ends)}) AND {rest} AND match(token, {pattern})"
    )


def dictionary(index: str, engine: str) -> str:
    """SQL for the table of an index's words; `engine` is that of a Distributed table, or empty."""
    if found := DISTRIBUTED.match(engine):
        return (
            f"cluster('{found['cluster']}', mergeTreeTextIndex('{found['database']}', '{found['table']}', '{index}'))"
        )
    return f"mergeTreeTextIndex(currentDatabase(), request_payloads, {index})"


@lru_cache(maxsize=8)
def _engine_of(warehouse: Warehouse) -> str:
    rows = warehouse.query(SHARDED)
    return str(rows[0]["engine_full"]) if rows else ""


def meanings_query(word: str, engine: str = "") -> tuple[str, dict[str, Any]]:
    """SQL for the words of both indexes that `word` means, as `token`, with the number of texts of each."""
    binder = Binder()
    condition = _condition(word, binder)
    tokens = " UNION ALL ".join(
        f"SELECT token, cardinality FROM {dictionary(index, engine)} WHERE {condition}" for index in INDEXES
    )
    bound = binder.text(word)
    sql = (
        f"SELECT token, sum(cardinality) AS texts FROM (\n{tokens}\n) GROUP BY token\n"
        f"ORDER BY token = {bound} DESC, startsWith(token, {bound}) DESC, texts DESC, token LIMIT {MAX_MEANINGS + 1}"
    )
    return sql, binder.parameters


def read_words(reader: Reader, q: str) -> list[Word]:
    """The words of a query that is not blank. Raises ApiError 400 if there are none or too many."""
    words = reader.query(SPLIT, {"q": q})[0]["words"]
    if not words:
        raise ApiError(400, "q: holds no word to look for")
    if len(words) > MAX_WORDS:
        raise ApiError(400, f"q: has {len(words)} different words; at most {MAX_WORDS}")
    engine = _engine_of(reader.warehouse)
    answers = reader.query_all([meanings_query(word, engine) for word in words])
    return [_word(word, rows) for word, rows in zip(words, answers, strict=True)]


def _word(word: str, rows: Sequence[dict[str, Any]]) -> Word:
    texts = {row["token"]: row["texts"] for row in rows}
    others = [token for token in texts if token != word][:MAX_MEANINGS]
    return Word(
        same=(word,) if word in texts else (),
        longer=tuple(token for token in others if token.startswith(word)),
        similar=tuple(token for token in others if not token.startswith(word)),
        texts=sum(texts.values()),
    )


def steps(words: Sequence[Word]) -> list[Closeness]:
    """The degrees of closeness at which more is found than at closer ones; closest first."""
    degrees: list[Closeness] = []
    for closeness in Closeness:
        meanings = [word.meanings(closeness) for word in words]
        if all(meanings) and (not degrees or meanings != [word.meanings(degrees[-1]) for word in words]):
            degrees.append(closeness)
    return degrees


def texts_condition(words: Sequence[Word], closeness: Closeness, binder: Binder) -> str:
    """SQL over request_payloads: each of the words is in one of the texts, at least this close."""
    meanings = [word.meanings(closeness) for word in words]
    if not all(meanings):
        return "0"
    bound = map(binder.texts, meanings)
    return " AND ".join(f"(hasAnyTokens(input_text, {meant}) OR hasAnyTokens(output_text, {meant}))" for meant in bound)
