"""Every link of a page to a file of this repository, and to a heading in one, leads somewhere."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.checkout import ROOT

PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "deploy").rglob("*.md")),
    ROOT / "clients/python/README.md",
]


def text_of(page: Path) -> str:
    """Without blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def links(page: Path) -> Iterator[tuple[str, str]]:
    """(file, heading) of each link; either may be empty."""
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if not re.match(r"[a-z]+:", target):
            file, _, heading = target.partition("#")
            yield file, heading


def headings(page: Path) -> set[str]:
    """The anchors that GitHub makes of the page's headings."""
    found = re.findall(r"^#+ (.+)$", text_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_link_leads_somewhere(page: Path) -> None:
    for file, heading in links(page):
        target = page.parent / file if file else page
        assert target.exists(), f"{file} does not exist"
        if heading and target.suffix == ".md":
            assert heading in headings(target), f"{file} has no heading {heading}"


def test_there_are_links_to_check() -> None:
    assert sum(1 for page in PAGES for _ in links(page)) > 100
