"""What a check found."""

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAULT = "fault"


@dataclass(frozen=True)
class Finding:
    """`observed` is what was seen, with its figures; `advice` what to do about it, empty when all is well."""

    check: str
    level: Severity
    observed: str
    advice: str = ""


def judge(check: str, observed: str, advice: str, *, warning: bool, fault: bool = False) -> Finding:
    """The advice is only given when there is something to mend."""
    level = Severity.FAULT if fault else Severity.WARNING if warning else Severity.OK
    return Finding(check, level, observed, advice if level is not Severity.OK else "")
