"""The map of the source names every module once, and every path that the pages for developers name exists."""

import re

from tests.support.checkout import ROOT

PAGE = (ROOT / "docs/development.md").read_text()
PACKAGES = ("aggregator", "api", "cli", "clients/python/router_insights", "ingest")
NAMED = re.compile(r"`((?:aggregator|api|cli|clients|ingest|deploy|tests|docs)/[\w/.-]+)`")


def mapped() -> list[str]:
    """The modules of the map, each under the heading of its folder."""
    _, *sections = re.split(
        r"^### `(\S+/)`$", PAGE.partition("\n## Map\n")[2].partition("\n## ")[0], flags=re.MULTILINE
    )
    folders = zip(sections[::2], sections[1::2], strict=True)
    return [folder + name for folder, rows in folders for name in re.findall(r"^\| `(\S+)` \|", rows, re.MULTILINE)]


def test_the_map_names_every_module_once() -> None:
    modules = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py") if path.stem != "__init__"]
    assert sorted(mapped()) == sorted(str(path.relative_to(ROOT)) for path in modules)


def test_every_path_that_is_named_exists() -> None:
    pages = [*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    named = {
        path
        for page in pages
        for path in re.findall(
            r"`((?:aggregator|api|cli|clients|ingest|deploy|tests|docs)/[\w/.-]+)`", page.read_text()
        )
    }
    assert len(named) > 80
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []
