"""Replay: a record is applied once, wherever the replay dies, and the store equals the log afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from threading import Event
from typing import Any

import pytest

from domain.commands import LabelWallet
from domain.log import NewRecord, Record
from infra import quarantine_replay
from infra.kafka.source import KafkaSource
from infra.quarantine_replay import replay
from infra.rebuild import rebuild
from projections.protocol import EventBatch, Rejection
from projections.quarantine import QuarantineEntry, as_record
from projections.runner import FlushPolicy, Runner
from projections.wallet_graph import PROJECTION as GRAPH
from projections.warehouse import WarehouseProjection
from projections.work import SinkWork
from schema_registry.contracts import COMMANDS, WALLET_EVENTS
from schema_registry.record_codec import RecordCodec
from tests.integration.infra.own_log import OwnLog, own_log
from tests.shared_servers import SharedServers

COUNT = 200
WALLET = "ethereum:0xabc"


class Strict:
    """A sink that refuses every tenth transaction and every label of `WALLET` but the last, as a stricter rule would."""

    def __init__(self, sink: Any) -> None:
        self._sink = sink
        self.name, self.topics, self.reads = sink.name, sink.topics, sink.reads
        self.load_position, self.apply = sink.load_position, sink.apply

    def screen(self, batch: EventBatch) -> Sequence[Rejection]:
        found = []
        table = batch.tables.get("TransactionRecorded")
        for row in table.select(["_topic", "_partition", "_offset", "_seq"]).to_pylist() if table is not None else ():
            if row["_seq"] % 10 == 0:
                found.append(Rejection(row["_topic"], row["_partition"], row["_offset"], "too_strict", "every tenth"))
        labels = batch.tables.get("WalletLabelled")
        for row in labels.to_pylist() if labels is not None else ():
            if row["wallet_id"] == WALLET and row["label"] == "illicit":
                found.append(Rejection(row["_topic"], row["_partition"], row["_offset"], "too_strict", "a label"))
        return found


@pytest.fixture(scope="module")
def log(shared_servers: SharedServers) -> Iterator[OwnLog]:
    with own_log(shared_servers, ["kafka", "registry", "s3", "postgres", "neo4j"]) as found:
        codec = RecordCodec(found.composition.clients.catalog)
        now = datetime.now(UTC)
        for label in ("illicit", "licit"):
            command = LabelWallet(WALLET, label, "test", now)
            found.composition.producer.append([NewRecord(COMMANDS, WALLET.encode(), codec.encode_event(command))])
        found.composition.producer.append([NewRecord(COMMANDS, None, b"\x1b[2Jno command")])
        found.simulate(COUNT, seed=5)
        for sink in (found.composition.warehouse(), found.composition.graph()):
            if sink.name == GRAPH:
                sink.prepare()
            strict = Strict(sink)
            work = SinkWork(strict, found.composition.clients.catalog, found.composition.producer)
            source = KafkaSource(found.composition.clients.kafka, sink.topics, "t", "", is_alone=True)
            Runner(source, work, FlushPolicy()).run(Event(), until=found.ends(sink.topics))
        yield found
        found.composition.clients.neo4j.close()


def entries(log: OwnLog, projection: str) -> list[QuarantineEntry]:
    return [entry for key, entry in sorted(log.composition.log.quarantine().items()) if key[0] == projection]


def test_the_warehouse_takes_each_record_once(log: OwnLog) -> None:
    found = entries(log, "warehouse")
    assert len(found) == COUNT // 10 + 1
    store = log.composition.warehouse()
    assert log.verify(store).is_ok, "what is in quarantine is not missing"
    # A replay that dies after the store has it and before the log does: the next one finds it there.
    sinks: dict[str, Any] = {}
    assert quarantine_replay._give_back(log.composition, found[0], sinks) == "applied"
    replayed = replay(log.composition, found, "test")
    assert all(item.is_applied for item in replayed)
    assert entries(log, "warehouse") == []
    proof = log.verify(log.composition.warehouse())
    assert proof.is_ok, proof.problems
    assert proof.rows["fact_transaction"] == COUNT
    assert isinstance(store, WarehouseProjection)


def test_the_graph_takes_what_is_not_outdated(log: OwnLog) -> None:
    found = entries(log, GRAPH)
    sinks: dict[str, Any] = {}
    transaction = next(entry for entry in found if entry.record.topic != WALLET_EVENTS)
    assert quarantine_replay._give_back(log.composition, transaction, sinks) == "applied"
    replayed = replay(log.composition, found, "test")
    stays = [item for item in replayed if not item.is_applied]
    assert [item.entry.record.topic for item in stays] == [WALLET_EVENTS], "the older of two labels"
    assert "rebuild graph" in stays[0].outcome
    proof = log.verify(log.composition.graph())
    assert proof.is_ok, proof.problems


def test_a_rebuild_takes_what_a_replay_could_not(log: OwnLog) -> None:
    composition = log.fresh()
    if not entries(log, GRAPH):
        replay(composition, entries(log, GRAPH), "test")
    left = len(entries(log, GRAPH))
    result = rebuild(composition, log.stack, "graph", actor="test")
    assert result.released == left
    assert entries(log, GRAPH) == []
    fresh = log.fresh()
    proof = fresh.verifier().projection(fresh.graph())
    assert proof.is_ok, proof.problems
    fresh.clients.neo4j.close()


def test_bytes_that_are_no_command_stay_and_say_why(log: OwnLog) -> None:
    found = entries(log, "command-handler")
    assert len(found) == 1
    (item,) = replay(log.composition, found, "test")
    assert not item.is_applied and "still no command" in item.outcome
    assert len(entries(log, "command-handler")) == 1


def test_a_command_goes_back_to_the_command_topic_and_changes_nothing_twice(log: OwnLog) -> None:
    codec = RecordCodec(log.composition.clients.catalog)
    (batch, *_) = log.composition.log.read([COMMANDS], {})
    index = len(batch) - 1
    record = batch.record(index)
    log.composition.producer.append([as_record(codec, QuarantineEntry("command-handler", record, "test", "test", 1))])
    found = [entry for entry in entries(log, "command-handler") if entry.reason == "test"]
    (item,) = replay(log.composition, found, "test")
    assert item.is_applied
    log.drive("command-handler")
    proof = log.composition.verifier().log()
    assert proof.is_ok, proof.problems
    assert proof.excluded["duplicates"] == 1
    assert proof.rows["transactions"] == COUNT


def test_a_row_of_a_file_says_what_to_do(log: OwnLog) -> None:
    codec = RecordCodec(log.composition.clients.catalog)
    row = Record("file:a.csv", 0, 7, 0, None, b"1,2,3")
    log.composition.producer.append([as_record(codec, QuarantineEntry("ingest", row, "bad_amount", "amount: x", 1))])
    (item,) = replay(log.composition, entries(log, "ingest"), "test")
    assert not item.is_applied and "ingest it again" in item.outcome
