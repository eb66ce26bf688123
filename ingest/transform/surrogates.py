"""Half an emoji: a JSON text that was cut at UTF-16 units ends a string with one escape of a surrogate pair.

JSON allows it (RFC 8259, section 8.2), Unicode and every parser here do not.
"""

import re

# An escaped backslash first, so that what follows it is not taken for an escape; then pairs, which stay.
ESCAPE = re.compile(
    rb"\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<lone>\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
)
# The escape of U+FFFD, as long as the one that it replaces: a parser's columns stay right.
REPLACEMENT = rb"\ufffd"


def without_lone_surrogates(json_text: bytes) -> bytes:
    """`json_text` with U+FFFD in place of each escaped surrogate that has no partner; the same object without any."""
    if rb"\ud" not in json_text and rb"\uD" not in json_text:
        return json_text
    return ESCAPE.sub(lambda found: REPLACEMENT if found["lone"] else found[0], json_text)
