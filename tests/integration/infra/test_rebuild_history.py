"""The archive is the log's memory: what Kafka has forgotten is read from there, up to the exact offset, or is missed by name."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from domain.log import Position
from infra.history_source import HistoryIncomplete
from infra.rebuild import rebuild
from infra.simulator.delivery import commands
from infra.simulator.generator import SimulatorOptions, simulate
from schema_registry.contracts import COMMAND_RESULTS, COMMANDS, TRANSACTION_EVENTS
from tests.integration.infra.own_log import OwnLog, own_log
from tests.shared_servers import SharedServers

OLD, NEW, LATE = 400, 150, 100


@pytest.fixture(scope="module")
def log(shared_servers: SharedServers) -> Iterator[OwnLog]:
    with own_log(shared_servers, ["kafka", "registry", "s3", "postgres", "neo4j"]) as found:
        found.simulate(OLD, seed=3)
        for name in ("archive", "warehouse", "graph"):
            found.drive(name)
        found.simulate(NEW, seed=4)  # not archived yet: a rebuild has to go on in Kafka
        yield found


def forget(log: OwnLog, up_to: Position) -> None:
    """Do what retention does: remove the records before these offsets."""
    admin = AdminClient(log.composition.clients.kafka)
    for future in admin.delete_records([TopicPartition(*tp, offset) for tp, offset in up_to.items() if offset]).values():
        future.result()


def offsets(log: OwnLog) -> list[tuple[int, int]]:
    """(partition, offset) of every transaction that a reader gets, in the order in which it gets them."""
    batches = log.fresh().log.read([TRANSACTION_EVENTS], {})
    return [place for batch in batches for place in zip(batch.partitions.tolist(), batch.offsets.tolist(), strict=True)]


def test_what_kafka_has_forgotten_comes_from_the_archive_and_the_rest_from_exactly_there(log: OwnLog) -> None:
    before = offsets(log)
    archived = log.fresh().archive().load_position()
    forget(log, archived)
    after = offsets(log)
    assert sorted(after) == sorted(before) and len(set(after)) == OLD + NEW
    for partition in {p for p, _ in after}:
        own = [offset for p, offset in after if p == partition]
        assert own == sorted(own), "a partition's records are in order across the seam"


@pytest.mark.parametrize("name", ["warehouse", "graph", "archive"])
def test_a_rebuild_from_the_first_event_equals_the_log_although_kafka_is_cut(log: OwnLog, name: str) -> None:
    result = rebuild(log.fresh(), log.stack, name, actor="test")
    assert result.proof is not None and result.proof.is_ok, result.proof
    assert result.records >= OLD + NEW
    composition = log.composition = log.fresh()
    log.drive(name)  # the swap is an event too
    verifier = composition.verifier()
    if name == "archive":
        proof = verifier.archive(composition.archive())
        assert proof.excluded["kept_by_the_archive_alone"] > 0
    else:
        proof = verifier.projection(composition.warehouse() if name == "warehouse" else composition.graph())
    assert proof.is_ok, proof.problems


def test_the_handlers_state_comes_back_from_the_archive(log: OwnLog) -> None:
    shutil.rmtree(log.stack.state.folder / "command-handler")
    composition = log.fresh()
    log.composition = composition
    before = sum(composition.log.ends([TRANSACTION_EVENTS]).values())
    for chunk in commands(simulate(SimulatorOptions(count=OLD, seed=3)), composition.clients.catalog):
        composition.producer.send(COMMANDS, chunk.keys, chunk.values)
    composition.producer.flush()
    log.drive("command-handler")
    assert sum(composition.log.ends([TRANSACTION_EVENTS]).values()) == before, "every one was known, though Kafka has them no longer"
    assert composition.verifier().log().excluded["duplicates"] == OLD


def test_all_may_be_forgotten_and_a_live_worker_still_starts(log: OwnLog) -> None:
    for name in ("archive", "warehouse", "graph"):
        log.drive(name)
    composition = log.fresh()
    # Up to the very end: the marker of the last transaction goes too, and stands in no archive.
    ends = composition.clients.admin.ends(composition.archive().topics)
    forget(log, ends)
    assert composition.archive().load_position() != ends, "a marker stands between"
    log.composition = log.fresh()
    log.simulate(LATE, seed=5)
    for name in ("archive", "warehouse", "graph"):
        log.drive(name)
    verifier = log.fresh().verifier()
    for store in (log.composition.warehouse(), log.composition.graph()):
        proof = verifier.projection(store)
        assert proof.is_ok, proof.problems
    assert len(set(offsets(log))) == OLD + NEW + LATE


def test_commands_may_be_forgotten_with_their_results(log: OwnLog) -> None:
    composition = log.fresh()
    forget(log, dict(composition.log.ends([COMMANDS, COMMAND_RESULTS]).items()))
    log.composition = log.fresh()
    log.simulate(LATE, seed=6)
    proof = log.fresh().verifier().log()
    assert proof.is_ok, proof.problems
    assert proof.records == LATE and proof.excluded["commands_cut_by_retention"] > OLD


def test_records_that_neither_has_are_named_and_nothing_is_read_over_them(log: OwnLog) -> None:
    archive = log.fresh().archive()
    place, objects = next(iter(archive.objects([TRANSACTION_EVENTS]).items()))
    composition = log.fresh()
    for found in objects:
        composition.clients.s3.delete_object(Bucket=composition.settings.s3.bucket, Key=found.key)
    with pytest.raises(HistoryIncomplete, match=f"{place[0]}-{place[1]}: the archive ends at .* offsets between are in neither"):
        list(log.fresh().log.read([TRANSACTION_EVENTS], {}))
    live = log.fresh().generations.get("warehouse", 1)
    with pytest.raises(HistoryIncomplete, match="is not whole any more"):
        rebuild(log.fresh(), log.stack, "warehouse", actor="test")
    assert log.fresh().generations.get("warehouse", 1) == live
