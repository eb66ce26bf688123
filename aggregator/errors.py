"""Errors that several layers name."""

from dataclasses import dataclass


class InsightsError(Exception):
    """Its message is a sentence for people: the command line prints it and exits 1."""


class NotStoredError(InsightsError):
    """Events that Kafka has taken are not known to be stored: they may be, or may be later. The message says why."""


@dataclass(frozen=True)
class EventProblem:
    """What is wrong where: the line (from 1), the field's path (`tags[1]`, empty for the whole event), a sentence."""

    line: int
    field: str
    message: str


class InvalidEventsError(InsightsError):
    """Some events of a body are not valid, so none of them was published. `problems` has at least one."""

    def __init__(self, problems: list[EventProblem]) -> None:
        first = problems[0]
        super().__init__(f"line {first.line}: {first.field or 'the event'}: {first.message}")
        self.problems = problems
