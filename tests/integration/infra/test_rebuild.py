"""A rebuild: the next generation equals the log, the live one is touched by the swap alone, and it may stop anywhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import psycopg
import pytest

from infra import rebuild as rebuild_module
from infra.composition import Composition
from infra.rebuild import RebuildRefused, rebuild
from infra.stack import neo4j as neo4j_part
from projections.verify import Proof, Verifier
from projections.warehouse import WarehouseGenerations
from tests.integration.infra.own_log import OwnLog, own_log
from tests.shared_servers import SharedServers

COUNT = 400


@pytest.fixture(scope="module")
def log(shared_servers: SharedServers) -> Iterator[OwnLog]:
    with own_log(shared_servers, ["kafka", "registry", "s3", "postgres", "neo4j"]) as found:
        found.simulate(COUNT, seed=3)
        found.drive("warehouse")
        yield found


def facts(composition: Composition) -> int:
    """Transactions that readers of the warehouse see."""
    with psycopg.connect(composition.warehouse_dsn) as connection:
        row = connection.execute("SELECT count(*) FROM warehouse.fact_transaction").fetchone()
    assert row is not None
    return int(row[0])


def test_the_warehouse_gets_a_generation_that_equals_the_log(log: OwnLog) -> None:
    live = log.fresh().generations.get("warehouse", 1)
    result = rebuild(log.fresh(), log.stack, "warehouse", actor="test")
    assert result.proof is not None and result.proof.is_ok
    assert (result.generation, result.replaced) == (live + 1, live)
    assert log.fresh().generations["warehouse"] == live + 1
    assert WarehouseGenerations(log.composition.warehouse_dsn).live() == live + 1
    assert facts(log.composition) == COUNT
    # The one before is kept: the way back.
    assert live in WarehouseGenerations(log.composition.warehouse_dsn).generations()


def test_it_refuses_to_swap_what_differs_and_begins_anew_afterwards(log: OwnLog, monkeypatch: pytest.MonkeyPatch) -> None:
    live = log.fresh().generations.get("warehouse", 1)
    with monkeypatch.context() as patch:
        patch.setattr(Verifier, "projection", lambda self, store: Proof("warehouse", False, problems=["a row differs"]))
        with pytest.raises(RebuildRefused, match="a row differs"):
            rebuild(log.fresh(), log.stack, "warehouse", actor="test")
    assert log.fresh().generations.get("warehouse", 1) == live
    assert WarehouseGenerations(log.composition.warehouse_dsn).live() == live
    result = rebuild(log.fresh(), log.stack, "warehouse", actor="test")
    assert not result.was_resumed and result.records >= COUNT
    assert log.fresh().generations["warehouse"] == live + 1


def test_an_interrupted_one_is_gone_on_with(log: OwnLog, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: Verifier, store: object) -> Proof:
        raise KeyboardInterrupt

    live = log.fresh().generations.get("warehouse", 1)
    with monkeypatch.context() as patch:
        patch.setattr(Verifier, "projection", interrupted)
        with pytest.raises(KeyboardInterrupt):
            rebuild(log.fresh(), log.stack, "warehouse", actor="test")
    result = rebuild(log.fresh(), log.stack, "warehouse", actor="test")
    assert result.was_resumed
    assert result.records == 0, "what was read before was not read again"
    assert log.fresh().generations["warehouse"] == live + 1
    assert facts(log.composition) == COUNT


def test_the_archive_gets_a_folder_of_its_own_and_its_worker_back(log: OwnLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebuild_module, "WAIT_S", 0.01)  # this worker never comes to where it could be compared
    log.stack.start_worker("archive", [sys.executable, "-c", "import time; time.sleep(900)"])
    log.stack.wait_ready(["archive"])
    pid = log.stack.status()["archive"].pid
    result = rebuild(log.fresh(), log.stack, "archive", actor="test")
    log.stack.wait_ready(["archive"])
    assert log.stack.status()["archive"].pid != pid, "it was stopped meanwhile"
    log.stack.stop_worker("archive")
    assert result.proof is not None and result.proof.is_ok
    assert log.fresh().generations["archive"] == result.generation
    archive = log.fresh().archive()
    assert sum(len(batch) for batch in archive.read()) == result.proof.records


def test_the_graph_moves_to_a_new_data_folder(log: OwnLog) -> None:
    log.drive("graph")
    before = neo4j_part.current_generation(log.stack.state)
    result = rebuild(log.fresh(), log.stack, "graph", actor="test")
    assert result.proof is not None and result.proof.is_ok
    assert neo4j_part.current_generation(log.stack.state) == before + 1
    composition = log.fresh()
    proof = composition.verifier().projection(composition.graph())
    assert proof.is_ok and proof.rows["wallet"] > 0
    composition.clients.neo4j.close()


@pytest.mark.parametrize("step", ["infra.graph_import.import_sheets", "infra.rebuild.Verifier.projection"])
def test_a_graph_that_was_killed_while_it_was_imported_begins_anew_and_afterwards_goes_on(
    log: OwnLog, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    before = neo4j_part.current_generation(log.stack.state)
    with monkeypatch.context() as patch:
        patch.setattr(step, killed)
        with pytest.raises(KeyboardInterrupt):
            rebuild(log.fresh(), log.stack, "graph", actor="test")
    result = rebuild(log.fresh(), log.stack, "graph", actor="test")
    assert result.was_resumed
    assert (result.records >= COUNT) == ("import_sheets" in step), "a half import is read again, a whole one is not"
    assert result.proof is not None and result.proof.is_ok
    assert neo4j_part.current_generation(log.stack.state) == before + 1


def test_an_unknown_name_is_refused(log: OwnLog) -> None:
    with pytest.raises(ValueError, match="expected one of"):
        rebuild(log.fresh(), log.stack, "nonsense", actor="test")
