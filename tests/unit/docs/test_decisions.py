"""The index of decisions lists every page, in order, with its title and status."""

import re

from tests.support.checkout import ROOT

FOLDER = ROOT / "docs/decisions"
ROWS = re.findall(
    r"^\| \[(\d+)\]\((\S+)\) \| (.+?) \| (.+) \| (\d{4}-\d\d-\d\d) \|$",
    (FOLDER / "README.md").read_text(),
    re.MULTILINE,
)


def test_the_index_names_every_decision_without_a_gap() -> None:
    assert [int(number) for number, *_ in ROWS] == list(range(1, len(ROWS) + 1))
    assert [file for _, file, *_ in ROWS] == sorted(path.name for path in FOLDER.glob("0*.md"))


def test_a_decision_has_the_number_the_title_and_the_status_of_the_index() -> None:
    assert len(ROWS) > 15
    for number, file, title, status, date in ROWS:
        heading, _, line = (FOLDER / file).read_text().splitlines()[:3]
        marker = " (superseded)" if status.startswith("superseded") else ""
        assert int(file[:4]) == int(number)
        assert heading == f"# {number}. {title}{marker}"
        assert line == f"Status: {status}, {date}."
