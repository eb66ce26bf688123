"""What a check found."""

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAULT = "fault"


@dataclass(frozen=True)
class Finding:
    """`observed` is what was seen, with its figures; `advice` is what to do about it, empty when nothing is wrong."""

    check: str
    level: Severity
    observed: str
    advice: str = ""


def judge(check: str, observed: str, advice: str, *, warning: bool, fault: bool = False) -> Finding:
    """A finding with the advice only when something is wrong."""
    level = Severity.FAULT if fault else Severity.WARNING if warning else Severity.OK
    return Finding(check, level, observed, advice if level is not Severity.OK else "")
