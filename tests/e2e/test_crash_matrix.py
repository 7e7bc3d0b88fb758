"""A sample of the crash matrix: every step of every worker once, each server killed or paused and each
kind of network fault under load. `make crash-test` runs more."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.e2e.crash_matrix import SERVERS, STEPS, WITHOUT_MODEL, CrashMatrix
from tests.e2e.network import SERVERS as NETWORKED
from tests.e2e.network import Network, closing
from tests.fault_proxy import Fault
from tests.integration.infra.own_log import OwnLog, own_servers

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

SEED = 20
FAULTS: dict[str, Fault] = {"kafka": "reset", "registry": "refuse", "s3": "cut", "postgres": "cut", "neo4j": "black_hole"}


@pytest.fixture(scope="module")
def networks() -> Iterator[list[Network]]:
    found: list[Network] = []
    with closing(found):
        yield found


@pytest.fixture(scope="module")
def log(networks: list[Network]) -> Iterator[OwnLog]:
    with own_servers(list(SERVERS), lambda stack: networks.append(Network(stack))) as log:
        yield log


def test_dying_workers_servers_and_network_lose_and_double_nothing(log: OwnLog, networks: list[Network]) -> None:
    matrix = CrashMatrix(log, WITHOUT_MODEL, random.Random(SEED), network=networks[0])
    matrix.sweep()
    matrix.supervised()
    for name in SERVERS:
        matrix.strike_server(name, is_pause=name in ("registry", "s3", "aws"))
    for name, fault in FAULTS.items():
        matrix.strike_network(name, fault)
    matrix.settle()
    matrix.judge()
    assert matrix.outcome.missed == []
    assert matrix.outcome.problems == []
    assert {step for step in matrix.outcome.kills if step[0] in WITHOUT_MODEL} == {
        (name, step) for name in WITHOUT_MODEL for step in STEPS[name]
    }
    assert set(FAULTS) == set(NETWORKED)
