"""The crypto road as its user walks it: one command on servers that are up, then proof that each store equals the log."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from infra.stack.part import SERVERS
from tests.e2e.roads import walk_road
from tests.integration.infra.own_log import OwnLog, own_log
from tests.shared_servers import SharedServers

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]
COUNT = 400


@pytest.fixture(scope="module")
def log(shared_servers: SharedServers) -> Iterator[OwnLog]:
    with own_log(shared_servers, list(SERVERS)) as found:
        yield found


def walk(log: OwnLog) -> dict[str, Any]:
    return walk_road(log, "crypto", "--count", str(COUNT), "--rate", "200")


def test_what_is_sent_is_an_event_once_in_every_store_and_what_is_bad_is_told_of(log: OwnLog) -> None:
    first = walk(log)
    assert (first["transactions"], first["events"], first["repeated"]) == (COUNT, COUNT, COUNT // 100)
    assert (first["bad"], first["dead_letters"]) == (3, 3) and first["landed_objects"] > 0
    assert 0 < first["p50_ms"] <= first["p99_ms"]
    fresh = log.fresh()
    proofs = [fresh.verifier().log(), fresh.verifier().archive(fresh.archive()), log.verify(fresh.warehouse()), log.verify(fresh.graph())]
    assert all(proof.is_ok for proof in proofs), proofs


def test_walked_again_it_sends_other_transactions(log: OwnLog) -> None:
    assert walk(log)["events"] == COUNT
