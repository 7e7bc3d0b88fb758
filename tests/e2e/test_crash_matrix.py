"""A sample of the crash matrix: every step of every worker once, each server killed or paused under load. `make crash-test` runs more."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.e2e.crash_matrix import SERVERS, STEPS, WITHOUT_MODEL, CrashMatrix
from tests.integration.infra.own_log import OwnLog, own_log

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

SEED = 20


@pytest.fixture(scope="module")
def log() -> Iterator[OwnLog]:
    with own_log(list(SERVERS)) as log:
        yield log


def test_workers_that_die_at_each_step_and_servers_that_die_under_load_lose_and_double_nothing(log: OwnLog) -> None:
    matrix = CrashMatrix(log, WITHOUT_MODEL, random.Random(SEED))
    matrix.sweep()
    matrix.supervised()
    for name in SERVERS:
        matrix.strike_server(name, is_pause=name in ("registry", "s3", "aws"))
    matrix.settle()
    matrix.judge()
    assert matrix.outcome.missed == []
    assert matrix.outcome.problems == []
    assert {step for step in matrix.outcome.kills if step[0] in WITHOUT_MODEL} == {
        (name, step) for name in WITHOUT_MODEL for step in STEPS[name]
    }
