"""What a check found."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAULT = "fault"


@dataclass(frozen=True)
class Finding:
    """`said` is what was seen, with its figures; `advice` what to do about it, empty when all is well."""

    check: str
    level: Level
    said: str
    advice: str = ""


def judge(check: str, said: str, advice: str, *, warning: bool, fault: bool = False) -> Finding:
    """The advice is only given when there is something to mend."""
    level = Level.FAULT if fault else Level.WARNING if warning else Level.OK
    return Finding(check, level, said, advice if level is not Level.OK else "")
