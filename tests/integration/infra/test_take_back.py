"""Taking a run back on a real log: what was voided may be corrected, and no restart, retry or second call changes the outcome."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from domain.commands import VoidTransaction
from domain.events import Origin
from infra.composition import Composition
from infra.restatements import outdated, restate_features, restatements
from infra.take_back import NothingToVoid, void_run
from schema_registry.contracts import COMMANDS, TRANSACTION_EVENTS
from schema_registry.record_codec import RecordCodec
from tests.integration.infra.own_log import own_log
from tests.integration.infra.test_command_handler import counts, encoded, run, send
from tests.shared_servers import SharedServers
from tests.unit.domain.facts import AT, transaction


@pytest.fixture(scope="module")
def composition(shared_servers: SharedServers) -> Iterator[Composition]:
    with own_log(shared_servers, ["kafka", "registry", "s3"]) as log:
        yield log.composition


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "seen"


def of_run(run_id: str, numbers: range, **changes: Any) -> list[Any]:
    return [
        transaction(tx_id=f"ethereum:{run_id[:4]}{n}:0", origin=Origin("transfers.csv", "ethereum@1", run_id, n), **changes)
        for n in numbers
    ]


def voids(composition: Composition) -> dict[str, int]:
    return dict(composition.log.voids())


def amounts(composition: Composition, prefix: str) -> list[tuple[int, str, Decimal]]:
    """What the log holds of some transactions, in order of seq: (seq, tx_id, amount)."""
    codec = RecordCodec(composition.clients.catalog)
    found = []
    for batch in composition.log.read([TRANSACTION_EVENTS], {}):
        for seq, value in zip(batch.seqs().tolist(), batch.values, strict=True):
            record = codec.decode(value)[1]
            if record["tx_id"].startswith(prefix):
                found.append((seq, record["tx_id"], record["amount"]))
    return sorted(found)


@pytest.mark.parametrize("disk", ["kept", "lost", "older"])
def test_a_run_taken_back_can_be_corrected_whatever_became_of_the_disk(composition: Composition, folder: Path, disk: str) -> None:
    run_id, prefix = f"{disk}-first", f"ethereum:{disk[:4]}"
    wrong = of_run(run_id, range(30), amount=Decimal(1000))
    right = of_run(run_id, range(30), amount=Decimal(1))
    right = [replace(tx, origin=replace(tx.origin, ingest_id=f"{disk}-second")) for tx in right]
    other = of_run("other-run", range(3))
    send(composition, *encoded(composition, *wrong, *other))
    run(composition, folder)
    if disk == "older":
        shutil.copytree(folder, folder.with_name("older"))

    assert void_run(composition, run_id, reason="unit", actor="ann", is_dry=True).sent == 30
    assert void_run(composition, run_id, reason="unit", actor="ann").sent == 30
    send(composition, *encoded(composition, *wrong[:5]))  # a producer's retry, right behind
    run(composition, folder)
    assert set(voids(composition)) >= {tx.tx_id for tx in wrong}
    assert not set(voids(composition)) & {tx.tx_id for tx in other}
    assert len(amounts(composition, prefix)) == 30

    if disk != "kept":
        shutil.rmtree(folder)
    if disk == "older":
        folder.with_name("older").rename(folder)
    again = void_run(composition, run_id, reason="unit", actor="ann")
    assert (again.recorded, again.void_before, again.sent) == (30, 30, 0)
    send(composition, *encoded(composition, *wrong, *right, *wrong, *right))
    run(composition, folder)
    found = amounts(composition, prefix)
    assert [amount for _, _, amount in found] == [Decimal(1000)] * 30 + [Decimal(1)] * 30
    shutil.rmtree(folder)  # once more from the log alone: the corrected ones stand, so the wrong ones conflict now
    before = counts(composition)
    send(composition, *encoded(composition, *wrong, *right))
    run(composition, folder)
    after = counts(composition)
    assert {name: after[name] - before[name] for name in ("recorded", "duplicates", "refused")} == {
        "recorded": 0, "duplicates": 30, "refused": 30,
    }  # fmt: skip
    assert amounts(composition, prefix) == found


def test_a_void_of_what_was_replaced_meanwhile_takes_nothing_back(composition: Composition, folder: Path) -> None:
    (wrong,), (right,) = of_run("stale-run", range(1), amount=Decimal(5)), of_run("stale-run", range(1), amount=Decimal(6))
    send(composition, *encoded(composition, wrong))
    run(composition, folder)
    ((seq, tx_id, _),) = amounts(composition, wrong.tx_id)
    stale = VoidTransaction(tx_id, seq, "late", None, "ann", AT)
    before = counts(composition)
    send(composition, *encoded(composition, stale, right, stale, stale, replace(stale, tx_id="ethereum:never:0", seq=None)))
    run(composition, folder)
    after = counts(composition)
    assert {name: after[name] - before[name] for name in ("recorded", "decided", "refused")} == {"recorded": 1, "decided": 1, "refused": 3}
    assert voids(composition)[tx_id] == seq
    assert [amount for *_, amount in amounts(composition, wrong.tx_id)] == [Decimal(5), Decimal(6)]


def test_a_run_that_nothing_came_of_is_said_to_be_unknown(composition: Composition) -> None:
    ends = composition.log.ends([COMMANDS])
    with pytest.raises(NothingToVoid, match="no recorded transaction has the ingest id"):
        void_run(composition, "typo", reason="unit", actor="ann")
    assert composition.log.ends([COMMANDS]) == ends


def test_features_leave_out_the_same_whoever_asks_later(composition: Composition, folder: Path) -> None:
    run_id = "feat-run"
    send(composition, *encoded(composition, *of_run(run_id, range(10))))
    run(composition, folder)
    void_run(composition, run_id, reason="unit", actor="ann")
    run(composition, folder)
    log, clients, producer = composition.log, composition.clients, composition.producer
    too_early = log.next_seq(TRANSACTION_EVENTS)  # others may still be voided after the same seq
    before = len(log.restated_from())
    first = restate_features(log, clients, producer, too_early)
    assert not any(tx_id.startswith("ethereum:feat") for tx_id in first.void_up_to)
    is_outdated = outdated(log, first, lambda: log.next_seq(TRANSACTION_EVENTS))
    assert not is_outdated()
    send(composition, *encoded(composition, *of_run("feat-later", range(10, 13))))
    send(composition, *encoded(composition, VoidTransaction("ethereum:feat10:0", None, "late", None, "ann", AT)))
    run(composition, folder)
    assert is_outdated()
    from_seq = log.next_seq(TRANSACTION_EVENTS)
    found = restate_features(log, clients, producer, from_seq)
    assert {tx_id for tx_id in found.void_up_to if tx_id.startswith("ethereum:feat")} == {f"ethereum:feat{n}:0" for n in range(10)}
    assert restate_features(log, clients, producer, from_seq) == found
    assert restatements(log, from_seq)[-1] == found
    assert log.restated_from()[-1] == from_seq
    assert len(log.restated_from()) - before in (1, 2)  # the first call may have found voids of the tests before
