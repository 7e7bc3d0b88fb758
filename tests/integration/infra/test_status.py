"""Status, doctor and the answer to a command, on servers that run, lag and go away."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from domain.commands import FreezeWallet
from domain.errors import CommandRefused
from domain.log import NewRecord
from infra.command_sender import send
from infra.composition import NotReady
from infra.doctor import examine
from infra.status import StackReport, StatusReader, WorkerReport
from tests.integration.infra.own_log import OwnLog, own_log
from tests.shared_servers import SharedServers

WALLET = "customer:7f3a"


@pytest.fixture(scope="module")
def log(shared_servers: SharedServers) -> Iterator[OwnLog]:
    with own_log(shared_servers, ["kafka", "registry", "s3", "postgres"]) as found:
        yield found


def report(log: OwnLog) -> StackReport:
    return StatusReader(log.stack).report(log.stack.settings())


def worker(log: OwnLog, name: str) -> WorkerReport:
    return next(found for found in report(log).workers if found.name == name)


def freeze() -> FreezeWallet:
    return FreezeWallet(WALLET, "test", "tester", datetime.now(UTC))


def test_a_command_that_nobody_decides_says_so(log: OwnLog) -> None:
    with pytest.raises(NotReady, match="Do not send it again"):
        send(log.composition, WALLET, freeze(), timeout_s=0.5)


def test_a_worker_is_behind_until_its_position_is_the_head(log: OwnLog) -> None:
    log.stack.start_worker("command-handler", [sys.executable, "-c", "import time; time.sleep(900)"])
    log.stack.wait_ready(["command-handler"])
    found = worker(log, "command-handler")
    assert (found.is_caught_up, found.lag) == (False, 1)
    (part,) = found.partitions
    assert (part.topic, part.partition, part.position, part.head, part.lag) == ("commands", 0, 0, 1, 1)
    assert found.lag_s == part.lag_s and part.lag_s is not None and 0.4 < part.lag_s < 120, "the age of the command that nobody took"
    assert found.as_json()["partitions"][0]["is_caught_up"] is False
    assert not report(log).is_caught_up
    log.stack.start_worker("command-handler", [sys.executable, "-m", "infra.cli", "run", "command-handler"])
    deadline = time.monotonic() + 180
    while not (found := worker(log, "command-handler")).is_caught_up and time.monotonic() < deadline:
        time.sleep(0.5)
    assert found.is_caught_up and found.lag == 0 and found.position == found.head
    assert found.is_running and found.pid
    assert [part.lag_s for part in found.partitions] == [0.0] and found.eta_s is None


def test_lag_in_seconds_is_the_age_of_the_oldest_record_that_is_not_included(log: OwnLog) -> None:
    composition = log.fresh()
    composition.producer.append([NewRecord("embedding-events", b"k", b"1")])
    (tp,) = [tp for tp, end in log.ends(["embedding-events"]).items() if end]
    first = composition.log.appended_at({tp: 0}, {tp: 1})[tp]
    time.sleep(1.1)
    composition.producer.append([NewRecord("embedding-events", b"k", b"2")])
    assert composition.log.appended_at({tp: 0}, {tp: 2})[tp] == first
    assert composition.log.appended_at({tp: 1}, {tp: 2})[tp] >= first + 1000
    assert composition.log.appended_at({}, {}) == {}


def test_a_command_is_answered_and_a_refusal_says_why(log: OwnLog) -> None:
    with pytest.raises(CommandRefused, match="frozen already"):
        send(log.composition, WALLET, freeze(), timeout_s=60)
    other = FreezeWallet("customer:other", "test", "tester", datetime.now(UTC))
    assert send(log.composition, other.wallet_id, other, timeout_s=60).offset == 2


def test_servers_say_what_they_are_and_hide_passwords(log: OwnLog) -> None:
    found = {server.name: server for server in report(log).servers}
    assert found["kafka"].is_ready and found["kafka"].pid
    assert not found["neo4j"].is_ready and found["neo4j"].state == "stopped"
    dsn = log.stack.settings().warehouse.dsn
    assert dsn is not None
    assert "***" in found["postgres"].address and found["postgres"].address != dsn.get_secret_value()


def test_doctor_finds_what_is_well_and_what_is_not(log: OwnLog) -> None:
    found = {finding.server: finding for finding in examine(log.fresh())}
    for name in ("kafka", "registry", "s3", "postgres", "endpoint"):
        assert found[name].is_ok, found[name]
    for name in ("neo4j", "aws"):
        assert not found[name].is_ok and found[name].advice
    assert all("\n" not in finding.message for finding in found.values())


def test_what_cannot_be_asked_is_not_called_caught_up(log: OwnLog) -> None:
    (log.stack.state.folder / "workers" / "archive.json").write_text('{"worker": "archive", "state": "stopped"}')
    log.stack.stop_parts(["s3"])
    found = worker(log, "archive")
    assert found.is_caught_up is None and found.problem is not None and "s3 is down" in found.problem
    doctor = {finding.server: finding for finding in examine(log.fresh())}
    assert not doctor["s3"].is_ok
    log.stack.up(["s3"])
