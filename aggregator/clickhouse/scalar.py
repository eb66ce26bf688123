"""Scalars of free-form JSON as text: one rule for what is stored at ingest and for what filters ask."""

from decimal import Decimal


def text_of(value: str | int | float | bool) -> str:
    """A scalar as ClickHouse writes it as text, so that 42, 42.0 and "42" are the same, and true and "true"."""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, float):
        return str(value)
    if value == 0:
        return "0"
    if 1e-6 <= abs(value) < 1e21:
        plain = f"{Decimal(repr(value)):f}"
        return plain.rstrip("0").rstrip(".") if "." in plain else plain
    digits, _, exponent = repr(value).partition("e")
    return f"{digits.removesuffix('.0')}e{int(exponent)}"
