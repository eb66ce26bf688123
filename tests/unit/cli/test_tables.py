"""Tables for people."""

from io import StringIO

from rich.console import Console

from cli.output.text import table


def test_a_heading_is_shown_as_it_is_written() -> None:
    """The label of a series is a heading, and whoever wrote the question chose it."""
    written = StringIO()
    Console(file=written, width=80).print(table("[/cost]", "[red]a"))
    assert written.getvalue().split("\n")[1].split() == ["[/cost]", "[red]a"]
