"""A few runs of the fault suite, so that every change meets them; `python -m tests.faults` makes all."""

from collections.abc import Iterator

import pytest

from tests.faults.__main__ import Trial, perform, trials
from tests.faults.stack import Stack, running_stack
from tests.faults.verdict import Verdict
from tests.support.kafka import KafkaMissingError, kafka_jars

SEED = 7


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    try:
        kafka_jars()
    except KafkaMissingError as error:
        pytest.skip(str(error))
    with running_stack(tmp_path_factory.mktemp("faults")) as stack:
        yield stack


@pytest.mark.parametrize("trial", trials(SEED, is_short=True), ids=lambda trial: f"{trial.name}, seed {trial.seed}")
async def test_nothing_is_lost_and_nothing_doubled(stack: Stack, trial: Trial) -> None:
    verdict: Verdict = await perform(stack, trial)
    assert verdict.is_clean
    assert verdict.stored > 0
