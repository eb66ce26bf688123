"""Which requests a search finds: how many, and the keys of those on one page.

Words are looked for in request_payloads, everything else in request_logs; both are ordered by time. A page is worked
out on the columns of the key alone. A word is rare if at most COUNT_LIMIT texts have it.

| what is asked                                      | strategy        | it gives up on                                |
|----------------------------------------------------|-----------------|-----------------------------------------------|
| no words                                           | `without_words` | nothing                                       |
| rare words and common ones                         | `few_by_key`    | more than FEW texts with the rare words       |
| a rare word, newest first, no filter but a time    | `few_texts`     | more than FEW texts                           |
| a rare word, any other filter or order             | `few_by_time`   | more than COUNT_LIMIT texts, or crowded times |
| common words only, and what the others gave up on  | `many_texts`    | nothing                                       |

Of the strategies that fit, the first in the table is tried first.
"""

from collections.abc import Callable

from api.analytics.search import limits
from api.analytics.search.search_sql import Found, Search
from api.analytics.search.strategies.few_by_key import few_by_key
from api.analytics.search.strategies.few_by_time import few_by_time
from api.analytics.search.strategies.few_texts import few_texts
from api.analytics.search.strategies.many_texts import many_texts
from api.analytics.search.strategies.without_words import without_words
from api.security.reader import Reader

# (reader, search, limit, offset); None if there is more than the strategy is for.
Strategy = Callable[[Reader, Search, int, int], Found | None]


def find(reader: Reader, search: Search, limit: int, offset: int) -> Found:
    """How many requests are found, and the keys of a page: closest first, then in the order of the search."""
    if not search.texts.tiers:
        return without_words(reader, search, limit, offset)
    for strategy in _strategies(search):
        found = strategy(reader, search, limit, offset)
        if found is not None:
            return found
    return many_texts(reader, search, limit, offset)


def _strategies(search: Search) -> list[Strategy]:
    """The strategies for few texts that fit, in the order in which they are tried."""
    if search.texts.most > limits.COUNT_LIMIT:
        return []
    are_texts_enough = search.is_of_texts_alone and search.order.is_newest_first
    return [*([few_by_key] if search.texts.rare else []), few_texts if are_texts_enough else few_by_time]
