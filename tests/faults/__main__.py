"""`python -m tests.faults` runs the fault suite on Apache Kafka and ends with a table: produced, stored, lost, doubled.

Each run's timing comes from a seed that is printed when the run fails, so that `--scenario N --seed S --runs 1`
plays it again, as far as the machine's own timing allows.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.faults.scenarios import SCENARIOS, Scenario
from tests.faults.stack import Run, Stack, StuckError, running_stack
from tests.faults.verdict import Verdict
from tests.support.kafka import KafkaMissingError

COLUMNS = ("kills", "produced", "stored", "lost", "doubled", "drifted")


@dataclass(frozen=True)
class Trial:
    """One run to be made: the scenario, its number, and the seed of its timing."""

    number: int
    scenario: Scenario
    seed: int

    @property
    def name(self) -> str:
        return f"{self.number} {self.scenario.__name__.replace('_', ' ')}"


def trials(seed: int, only: int | None = None, runs: int | None = None, is_short: bool = False) -> list[Trial]:
    """Every run of the suite; `runs` instead of each scenario's own number."""
    return [
        Trial(number, scenario, seed + run)
        for number, scenarios in SCENARIOS.items()
        if only in {None, number}
        for scenario, full, short in scenarios
        for run in range(runs if runs is not None else short if is_short else full)
    ]


async def perform(stack: Stack, trial: Trial) -> Verdict:
    """Raises StuckError when not everything was stored in time, or a worker did not end as it should."""
    async with Run(stack, random.Random(trial.seed)) as run:
        return await trial.scenario(run)


def show(console: Console, results: list[tuple[Trial, Verdict]]) -> None:
    table = Table("scenario", "runs", *COLUMNS, title="Apache Kafka, kill -9 and other faults")
    for name in dict.fromkeys(trial.name for trial, _ in results):
        verdicts = [verdict for trial, verdict in results if trial.name == name]
        sums = [sum(getattr(verdict, column) for verdict in verdicts) for column in COLUMNS]
        table.add_row(name, str(len(verdicts)), *(f"{number:,}" for number in sums))
    totals = [sum(getattr(verdict, column) for _, verdict in results) for column in COLUMNS]
    table.add_section()
    table.add_row("all", str(len(results)), *(f"{number:,}" for number in totals))
    console.print(table)


def play(stack: Stack, planned: list[Trial], console: Console) -> tuple[list[tuple[Trial, Verdict]], int]:
    """The verdicts, and how many runs failed."""
    results, failures = [], 0
    parts = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*parts, console=console) as progress:
        task = progress.add_task("", total=len(planned))
        for trial in planned:
            progress.update(task, description=trial.name)
            started = time.monotonic()
            try:
                verdict = asyncio.run(perform(stack, trial))
            except (StuckError, TimeoutError) as error:
                failures += 1
                console.print(f"[red]{trial.name}, seed {trial.seed}: {type(error).__name__}", error, markup=True)
            else:
                results.append((trial, verdict))
                failures += not verdict.is_clean
                seconds = time.monotonic() - started
                console.print(f"{trial.name}, seed {trial.seed}, {seconds:.1f} s: {verdict}", highlight=False)
            progress.advance(task)
    return results, failures


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--scenario", type=int, choices=list(SCENARIOS), help="only this one")
    parser.add_argument("--runs", type=int, help="of each scenario, instead of its own number")
    parser.add_argument("--seed", type=int, help="of the first run; each further run adds one (default: random)")
    parser.add_argument("--short", action="store_true", help="a selection of a few minutes")
    given = parser.parse_args()
    console = Console()
    seed = given.seed if given.seed is not None else random.SystemRandom().randrange(10**6)
    planned = trials(seed, given.scenario, given.runs, given.short)
    console.print(f"seed {seed}, {len(planned)} runs")
    with tempfile.TemporaryDirectory(prefix="router-insights-faults-") as folder:
        try:
            with running_stack(Path(folder)) as stack:
                results, failures = play(stack, planned, console)
        except KafkaMissingError as error:
            sys.exit(str(error))
    show(console, results)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
