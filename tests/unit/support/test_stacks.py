"""Where a test stack cannot run, its tests are skipped and say why; a word that names none ends the run."""

import os
import subprocess
import sys

import pytest

DELIVERY = "tests/integration/ingest/test_worker.py::test_every_record_becomes_one_row_or_one_dead_letter"


def run_delivery_on(stack: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-rs", "-p", "no:cacheprovider", DELIVERY]
    settings = {**os.environ, "INSIGHTS_TEST_STACK": stack, **environment}
    return subprocess.run(command, env=settings, capture_output=True, text=True, check=False, timeout=120)


def test_without_a_docker_engine_tests_in_containers_are_skipped_with_the_reason() -> None:
    done = run_delivery_on("docker", DOCKER_HOST="unix:///nowhere/docker.sock")
    assert done.returncode == 0, done.stdout
    assert "1 skipped" in done.stdout
    assert "needs a Docker engine" in done.stdout


@pytest.mark.parametrize(
    ("stack", "complaint"), [("external", "INSIGHTS_TEST_KAFKA=host:port"), ("rabbitmq", "allowed are embedded, kafka")]
)
def test_a_stack_that_is_not_described_ends_the_run_with_what_is_missing(stack: str, complaint: str) -> None:
    done = run_delivery_on(stack)
    assert done.returncode == 4
    assert complaint in done.stdout + done.stderr
