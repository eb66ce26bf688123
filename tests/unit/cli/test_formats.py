"""Answers for programs, which people look at, too."""

import json

import pytest

from cli.output.formats import json_text

# The C1 form of `ESC [`, which terminals obey; the end of a link; what turns the direction of what follows.
STEERING = "\x9b31mred\x9c \x7f \u202egnp.exe\u2066 \u061c"


@pytest.mark.parametrize("indent", [None, 2])
def test_json_holds_what_could_steer_a_terminal_as_escapes_and_loses_nothing(indent: int | None) -> None:
    answer = {"user_id": STEERING, STEERING: ["\x1b[31m", "Zürich 東京 👩‍💻 e\u0301"]}
    text = json_text(answer, indent=indent)
    assert json.loads(text) == answer
    assert not set(text) & set(STEERING + "\x1b") - set("31mred gnp.exe")
    assert "Zürich 東京 👩‍💻 e\u0301" in text
