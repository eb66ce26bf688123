"""Values as people read them. What users, models and gateways wrote is shown without the power to steer a terminal."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text


def shown(value: Any) -> Text:
    """A value as plain text: no markup, no control characters, nothing for unknown."""
    if value is None:
        return Text("")
    if isinstance(value, datetime):
        return Text(moment(value))
    if isinstance(value, Decimal):
        return Text(dollars(value))
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if isinstance(value, int):
        return Text(f"{value:,}")
    if isinstance(value, float):
        return Text(f"{value:,.6g}" if abs(value) < 1000 else f"{value:,.0f}")
    if isinstance(value, list):
        return Text(printable(", ".join(map(str, value))))
    return Text(printable(str(value)))


def printable(text: str) -> str:
    """The text on one line, with ? for characters that move the cursor, change colours or turn the direction."""
    return "".join(letter if letter.isprintable() else " " if letter in "\n\t\r" else "?" for letter in text)


def moment(value: datetime) -> str:
    return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def dollars(amount: Decimal) -> str:
    """Every digit that is stored, at least two after the point."""
    text = format(amount.normalize(), "f")
    whole, _, fraction = text.partition(".")
    return f"${int(whole):,}.{fraction:<02}" if amount >= 0 else f"-{dollars(-amount)}"


def table(*names: str, numbers: tuple[str, ...] = ()) -> Table:
    """`numbers` are the columns that stand to the right."""
    made = Table(box=box.SIMPLE_HEAD, header_style="bold")
    for name in names:
        is_number = name in numbers
        # Only what people wrote may be cut; a number that is cut is another number.
        made.add_column(Text(name), justify="right" if is_number else "left", no_wrap=True, overflow="ellipsis",
                        min_width=len(name) if not is_number else None)  # fmt: skip
    return made
