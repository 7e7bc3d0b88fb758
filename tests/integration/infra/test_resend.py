"""The notifier's messages sent again on a real log: the same ids, the live worker undisturbed, and a killed run goes on."""

from __future__ import annotations

import json
import multiprocessing
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from threading import Event
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from domain.errors import InvalidValue
from domain.events import AlertRaised, AlertReason
from domain.log import NewRecord
from infra import resend as module
from infra.cli import exits
from infra.cli.app import run
from infra.composition import Composition
from infra.history_source import HistoryIncomplete
from infra.notifier import QUEUE
from infra.repair import position_at
from infra.resend import ResendRefused, plan, position_of_seq, resend
from infra.settings import Settings
from projections import failpoints
from projections.runner import Runner
from schema_registry.contracts import CASE_EVENTS
from schema_registry.record_codec import RecordCodec
from tests.integration.infra.own_log import OwnLog, own_log
from tests.shared_servers import SharedServers
from tests.unit.projections.warehouse.events import START

SENT, STEP = 30, 4


def raise_alerts(log: OwnLog, first: int, count: int) -> None:
    codec = RecordCodec(log.composition.clients.catalog)
    reason = next(iter(AlertReason))
    alerts = [
        AlertRaised(f"c{n}", f"bank:w{n}", reason, 0.9, 0.5, f"tx{n}", n, "because", "m1", START) for n in range(first, first + count)
    ]
    log.composition.producer.append([NewRecord(CASE_EVENTS, alert.wallet_id.encode(), codec.encode_event(alert)) for alert in alerts])


@pytest.fixture(scope="module")
def log(shared_servers: SharedServers) -> Iterator[OwnLog]:
    with own_log(shared_servers, ["kafka", "registry", "s3", "aws"]) as found:
        raise_alerts(found, 0, SENT)
        yield found


@pytest.fixture(autouse=True)
def _small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLICE_RECORDS", STEP)


def received(log: OwnLog) -> list[dict[str, Any]]:
    """The messages that came since the last call; they are taken from the queue."""
    sqs = log.composition.clients.aws("sqs")
    url = sqs.get_queue_url(QueueName=QUEUE)["QueueUrl"]
    found: list[dict[str, Any]] = []
    while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", []):
        found += [json.loads(message["Body"]) for message in messages]
        for message in messages:
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return sorted(found, key=lambda message: message["tx_id"])


def ids(log: OwnLog) -> Counter[str]:
    return Counter(message["effect_id"] for message in received(log))


def of(*numbers: int) -> Counter[str]:
    return Counter(f"alert/c{n}" for n in numbers)


def test_a_range_is_sent_again_as_it_was_and_the_live_position_stays(log: OwnLog) -> None:
    log.drive("notifier")
    first = received(log)
    position = log.composition.ledger("notifier").load_position()
    assert len(first) == SENT and position == log.ends([CASE_EVENTS])
    result = resend(log.fresh(), "notifier", {})
    assert (result.effects, result.first_time, result.was_resumed) == (SENT, 0, False)
    assert received(log) == first, "to the byte, effect_id included"
    assert log.composition.ledger("notifier").load_position() == position
    assert not log.composition.ledger_file("notifier").with_name(module.FILE).exists(), "the next one begins anew"


def test_what_was_never_sent_is_marked_and_the_live_worker_does_not_send_it_once_more(log: OwnLog) -> None:
    at_ms = round(time.time() * 1000)
    raise_alerts(log, SENT, 5)
    before = log.composition.ledger("notifier").load_position()
    result = resend(log.fresh(), "notifier", position_at(log.fresh(), (CASE_EVENTS,), at_ms))
    assert (result.effects, result.first_time) == (5, 5)
    assert ids(log) == of(*range(SENT, SENT + 5))
    assert log.composition.ledger("notifier").load_position() == before, "not even here: its worker moves it"
    log.drive("notifier")
    assert log.composition.ledger("notifier").load_position() == log.ends([CASE_EVENTS])
    assert ids(log) == of()


def test_a_range_of_seqs_is_of_the_alerts_transactions(log: OwnLog) -> None:
    composition = log.fresh()
    result = resend(composition, "notifier", position_of_seq(composition, 12), position_of_seq(composition, 17))
    assert ids(log) == of(*range(12, 17))
    assert result.first_time == 0


def test_a_dry_run_counts_and_neither_sends_nor_marks(log: OwnLog) -> None:
    raise_alerts(log, SENT + 5, 2)
    for _ in range(2):
        found = plan(log.fresh(), "notifier", {})
        assert (found.effects, found.first_time, found.records) == (SENT + 7, 2, SENT + 7)
    assert ids(log) == of()
    log.drive("notifier")
    assert ids(log) == of(SENT + 5, SENT + 6)


def resend_and_die(settings: Settings) -> None:
    """A process of its own, ended where a message went out and nothing says so."""
    module.SLICE_RECORDS = STEP
    failpoints.arm(failpoints.SENT, 3 * STEP)
    resend(Composition(settings), "notifier", {})


def test_killed_it_goes_on_and_repeats_one_slice_at_most(log: OwnLog) -> None:
    total = SENT + 7
    child = multiprocessing.get_context("spawn").Process(target=resend_and_die, args=(log.stack.settings(),))
    child.start()
    child.join(180)
    assert child.exitcode == -signal.SIGKILL
    left = plan(log.fresh(), "notifier", {})
    assert left.was_resumed and total - 3 * STEP <= left.effects < total - STEP
    raise_alerts(log, 100, 1)  # after the range of the run that goes on
    result = resend(log.fresh(), "notifier", {})
    assert (result.was_resumed, result.effects, result.first_time) == (True, left.effects, 0)
    found = ids(log)
    assert set(found) == set(of(*range(total)))
    assert sum(found.values()) <= total + STEP
    log.drive("notifier")
    received(log)


def test_another_range_than_the_interrupted_one_begins_at_its_own_beginning(log: OwnLog) -> None:
    calls = iter([False, False, True])
    stopped = resend(log.fresh(), "notifier", {}, stopped=lambda: next(calls))
    assert stopped.is_stopped and 0 < stopped.effects <= 2 * STEP
    composition = log.fresh()
    result = resend(composition, "notifier", position_of_seq(composition, 5), position_of_seq(composition, 9))
    assert (result.was_resumed, result.effects) == (False, 4)
    assert len(received(log)) == stopped.effects + 4


def test_it_runs_beside_the_live_worker(log: OwnLog) -> None:
    stop = Event()
    failures: list[BaseException] = []

    def live() -> None:
        try:
            own = log.fresh().worker("notifier")
            Runner(own.source, own.work, own.policy).run(stop)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=live)
    thread.start()
    try:
        raise_alerts(log, 200, 60)
        result = resend(log.fresh(), "notifier", position_of_seq(log.fresh(), 200))
        deadline = time.monotonic() + 180
        while log.composition.ledger("notifier").load_position() != log.ends([CASE_EVENTS]) and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        stop.set()
        thread.join(180)
    assert failures == []
    assert result.effects == 60
    assert set(ids(log)) == set(of(*range(200, 260)))
    assert log.composition.ledger("notifier").load_position() == log.ends([CASE_EVENTS])


def test_two_at_once_are_refused(log: OwnLog) -> None:
    def second(done: int, total: int) -> None:
        with pytest.raises(ResendRefused, match="another `tidemark resend notifier` runs"):
            resend(log.fresh(), "notifier", {})

    resend(log.fresh(), "notifier", position_of_seq(log.fresh(), 255), progress=second)
    received(log)


@pytest.mark.parametrize(
    ("place", "offset", "message"), [(("wallet-events", 0), 1, "a partition of case-events"), ((CASE_EVENTS, 0), 10**9, "an offset from 0")]
)
def test_a_place_that_is_none_of_its_topics_is_named(log: OwnLog, place: tuple[str, int], offset: int, message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        resend(log.fresh(), "notifier", {place: offset})


def test_a_range_that_ends_before_it_begins_is_refused(log: OwnLog) -> None:
    place = min(tp for tp, end in log.ends([CASE_EVENTS]).items() if end > 1)
    with pytest.raises(InvalidValue, match="expected an end behind the beginning"):
        plan(log.fresh(), "notifier", {place: 1}, {place: 0})


def test_the_command_warns_that_receivers_get_them_again(
    log: OwnLog, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = log.stack.state.folder
    monkeypatch.setenv("TIDEMARK_STATE_DIR", str(folder.parent))
    (folder / "from.json").write_text(json.dumps({f"{CASE_EVENTS}/0": 0}), "utf-8")
    assert run(["--stack", folder.name, "resend", "notifier", "--from", str(folder / "from.json"), "--json"]) == exits.OK
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert found["effects"] == found["sent_before"] == len(received(log)) > 0
    assert set(found["end"]) == {f"{CASE_EVENTS}/0"}, "partitions that the file does not name are left out"
    assert "get the messages of this range again, each with the effect_id of the first time" in shown.err
    assert run(["--stack", folder.name, "resend", "notifier", "--from", "wrong"]) == exits.USAGE
    assert run(["--stack", folder.name, "rebuild", "notifier"]) == exits.USAGE
    assert "tidemark resend notifier" in capsys.readouterr().err


def test_a_range_that_is_in_neither_log_nor_archive_is_refused_before_anything_is_sent(log: OwnLog) -> None:
    ends = log.ends([CASE_EVENTS])
    admin = AdminClient(log.composition.clients.kafka)
    for future in admin.delete_records([TopicPartition(*tp, end) for tp, end in ends.items() if end]).values():
        future.result()
    with pytest.raises(HistoryIncomplete, match="the log is not whole any more"):
        resend(log.fresh(), "notifier", {})
    assert ids(log) == of()
