"""Quarantine on real stores: a key's records in order, what was given up, and values too large for the topic."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from threading import Event
from typing import Any

import pytest

from domain.commands import LabelWallet
from domain.log import NewRecord
from infra.cli import exits
from infra.cli.app import run
from infra.kafka.source import KafkaSource
from infra.quarantine_replay import give_up, replay
from projections.protocol import EventBatch, Rejection
from projections.quarantine import INLINE_BYTES, QuarantineEntry
from projections.runner import FlushPolicy, Runner
from projections.work import SinkWork
from schema_registry.contracts import COMMANDS, QUARANTINE_EVENTS, TRANSACTION_EVENTS
from schema_registry.record_codec import RecordCodec
from tests.integration.infra.own_log import OwnLog, own_log
from tests.shared_servers import SharedServers

WALLET, OTHER = "ethereum:0xabc", "ethereum:0xdef"
LARGE = b"\x00" + b"large \xff" * 50_000


class Picky:
    """A graph whose rule refuses labels from one source, as a stricter version would."""

    def __init__(self, sink: Any) -> None:
        self._sink = sink
        self.name, self.topics, self.reads, self.key_ordered = sink.name, sink.topics, sink.reads, sink.key_ordered
        self.load_position, self.apply = sink.load_position, sink.apply

    def screen(self, batch: EventBatch) -> Sequence[Rejection]:
        table = batch.tables.get("WalletLabelled")
        rows = table.to_pylist() if table is not None else []
        return [Rejection(r["_topic"], r["_partition"], r["_offset"], "picky", "a source") for r in rows if r["source"] == "bad"]


@pytest.fixture(scope="module")
def log(shared_servers: SharedServers) -> Iterator[OwnLog]:
    with own_log(shared_servers, ["kafka", "registry", "s3", "postgres", "neo4j"]) as found:
        found.composition.graph().prepare()
        yield found
        found.composition.clients.neo4j.close()


@pytest.fixture(autouse=True)
def _this_stack(log: OwnLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMARK_STATE_DIR", str(log.stack.state.folder.parent))
    monkeypatch.setenv("TIDEMARK_STACK", log.stack.state.folder.name)


def label(log: OwnLog, *labels: tuple[str, str, str]) -> None:
    codec = RecordCodec(log.composition.clients.catalog)
    now = datetime.now(UTC)
    commands = [NewRecord(COMMANDS, b"k", codec.encode_event(LabelWallet(wallet, name, source, now))) for wallet, name, source in labels]
    log.composition.producer.append(commands)
    log.drive("command-handler")


def drive_picky(log: OwnLog) -> None:
    """A worker's whole life: it starts, takes what is there, stops."""
    composition = log.fresh()
    sink = Picky(composition.graph())
    work = SinkWork(sink, composition.clients.catalog, composition.quarantine, composition.key_order(sink))
    source = KafkaSource(composition.clients.kafka, sink.topics, "t", "", is_alone=True)
    Runner(source, work, FlushPolicy()).run(Event(), until=log.ends(sink.topics))
    composition.clients.neo4j.close()


def entries(log: OwnLog, projection: str) -> list[QuarantineEntry]:
    return [entry for key, entry in sorted(log.composition.log.quarantine().items()) if key[0] == projection]


def label_of(log: OwnLog, wallet: str) -> str | None:
    with log.composition.clients.neo4j.session() as session:
        found = session.run("MATCH (w:Wallet {wallet_id: $id}) RETURN w.label AS label", id=wallet).single()
    return None if found is None else found["label"]


def test_a_wallets_later_labels_wait_also_after_a_restart_and_come_back_in_order(log: OwnLog) -> None:
    label(log, (WALLET, "illicit", "bad"), (WALLET, "licit", "good"), (OTHER, "licit", "good"))
    drive_picky(log)
    label(log, (WALLET, "illicit", "good"))
    drive_picky(log)
    assert [entry.reason for entry in entries(log, "wallet-graph")] == ["picky", "waits_for_key", "waits_for_key"]
    assert (label_of(log, WALLET), label_of(log, OTHER)) == (None, "licit"), "nothing overtakes, nobody else waits"
    assert log.verify(log.composition.graph()).is_ok
    first, second, third = entries(log, "wallet-graph")
    (alone,) = replay(log.composition, [second], "test")
    assert alone.outcome.startswith("waits_for_key") and not alone.is_applied
    outcomes = replay(log.composition, [third, first, second], "test")
    assert [(found.entry.key, found.outcome) for found in outcomes] == [(e.key, "applied") for e in (first, second, third)]
    assert label_of(log, WALLET) == "illicit", "the last one wins"
    proof = log.verify(log.composition.graph())
    assert proof.is_ok and proof.quarantined == 0, proof.problems
    # Nothing stands before it any more: the next one is applied at once.
    label(log, (WALLET, "licit", "good"))
    drive_picky(log)
    assert (label_of(log, WALLET), entries(log, "wallet-graph")) == ("licit", [])


def test_what_was_given_up_is_named_by_verify_and_frees_those_behind_it(log: OwnLog, capsys: pytest.CaptureFixture[str]) -> None:
    label(log, (OTHER, "illicit", "bad"), (OTHER, "licit", "good"))
    drive_picky(log)
    first, second = entries(log, "wallet-graph")
    place = f"{first.record.topic}/{first.record.partition}/{first.record.offset}"
    assert run(["quarantine", "drop", place, "--projection", "wallet-graph", "--because", "ticket 812", "--actor", "ann"]) == exits.OK
    assert "1 records waited" in capsys.readouterr().err
    assert [found.is_applied for found in replay(log.composition, entries(log, "wallet-graph"), "test")] == [True]
    proof = log.verify(log.composition.graph())
    assert proof.is_ok and proof.excluded["dropped_from_quarantine"] == 1, proof.problems
    events = [(name, value) for name, value, *_ in log.composition.log.events(QUARANTINE_EVENTS) if name == "QuarantineDropped"]
    assert [(value["reason"], value["actor"], value["offset"]) for _, value in events] == [("ticket 812", "ann", first.record.offset)]
    assert give_up(log.composition, [first, second], "again", "ann") == [], "closed ones cannot be dropped"
    # A store that would take it now does not: the decision stands, and the proof with it.
    with log.composition.clients.neo4j.session() as session:
        session.run("MATCH (n) DETACH DELETE n").consume()
    log.composition.clients.neo4j.close()
    log.composition = log.fresh()
    log.drive("graph")
    proof = log.verify(log.composition.graph())
    assert proof.is_ok and proof.excluded["dropped_from_quarantine"] == 1, proof.problems
    assert label_of(log, OTHER) == "licit"


def test_a_large_value_goes_to_s3_first_and_comes_back_by_its_hash(log: OwnLog, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(LARGE) > INLINE_BYTES
    log.composition.producer.append([NewRecord(COMMANDS, b"k", LARGE), NewRecord(TRANSACTION_EVENTS, b"k", LARGE)])
    log.drive("command-handler")
    log.drive("warehouse")
    (command,), (event,) = entries(log, "command-handler"), entries(log, "warehouse")
    bucket = log.composition.settings.s3.bucket
    for entry in (command, event):
        assert entry.record.value is None and entry.stored is not None
        assert entry.stored.sha256 == hashlib.sha256(LARGE).hexdigest() and entry.stored.size == len(LARGE)
        key = entry.stored.uri.removeprefix(f"s3://{bucket}/")
        assert log.composition.clients.s3.get_object(Bucket=bucket, Key=key)["Body"].read() == LARGE
    assert command.stored is not None
    assert log.composition.payloads.put(command.stored.uri.split("/quarantine/")[1], LARGE) == command.stored.uri, "twice is once"
    assert log.verify(log.composition.warehouse()).is_ok
    place = f"commands/0/{command.record.offset}"
    capsys.readouterr()  # what the workers logged
    assert run(["quarantine", "show", place, "--json"]) == exits.OK
    (shown,) = json.loads(capsys.readouterr().out)
    assert shown["payload_hex"] is None and shown["payload_bytes"] == len(LARGE)
    assert run(["quarantine", "show", place, "--full", "--json"]) == exits.OK
    told = capsys.readouterr()
    assert bytes.fromhex(json.loads(told.out)[0]["payload_hex"]) == LARGE and "personal data" in told.err
    (back,) = replay(log.composition, [event], "test")
    assert back.outcome.startswith("unknown_schema_id"), "it was read back, and is still no record"
    # Another object under that key is not taken for it.
    key = command.stored.uri.removeprefix(f"s3://{bucket}/")
    log.composition.clients.s3.put_object(Bucket=bucket, Key=key, Body=b"forged")
    (forged,) = replay(log.composition, [command], "test")
    assert forged.outcome.startswith("payload_changed")
    log.composition.clients.s3.delete_object(Bucket=bucket, Key=key)
    (gone,) = replay(log.composition, [command], "test")
    assert gone.outcome.startswith("payload_gone")


def test_entries_are_found_by_reader_reason_and_time(log: OwnLog, capsys: pytest.CaptureFixture[str]) -> None:
    def listed(*options: str) -> int:
        assert run(["quarantine", "list", "--json", *options]) == exits.OK
        return len(json.loads(capsys.readouterr().out))

    capsys.readouterr()
    assert listed() == 2
    assert listed("--projection", "warehouse") == listed("--projection", "command-handler") == 1
    assert listed("--reason", "unknown_schema_id") == 2 and listed("--reason", "picky") == 0
    assert listed("--since", "1h") == 2 and listed("--until", "1h") == 0
    assert run(["quarantine", "list", "--since", "yesterday"]) == exits.USAGE
    assert run(["quarantine", "drop", "--reason", "unknown_schema_id", "--because", "noise", "--yes"]) == exits.OK
    capsys.readouterr()
    assert listed() == 0
    proof = log.verify(log.composition.warehouse())
    assert proof.is_ok and proof.excluded["dropped_from_quarantine"] == 1, proof.problems
