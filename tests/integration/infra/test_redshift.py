"""The whole road to a Redshift warehouse by settings alone: worker, proof, rebuild, way back, status, doctor, against the stand-in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from pydantic import SecretStr

from infra.composition import Composition
from infra.doctor import postgres
from infra.rebuild import rebuild, rollback
from infra.settings import Settings, WarehouseSettings
from infra.stack import Stack
from infra.status import _tables
from schema_registry.contracts import TRANSACTION_EVENTS
from tests.integration.infra.own_log import OwnLog, own_log
from tests.integration.projections.redshift_store import ROLE, RedshiftStore, redshift_store
from tests.shared_servers import SharedServers
from tests.unit.projections.warehouse.databases import query

COUNT = 400


@dataclass
class OnRedshift(OwnLog):
    """A log whose warehouse is the stand-in for Redshift."""

    redshift: RedshiftStore

    def fresh(self) -> Composition:
        return Composition(with_redshift(self.stack.settings(), self.redshift))


def with_redshift(settings: Settings, store: RedshiftStore) -> Settings:
    warehouse = WarehouseSettings(dsn=SecretStr(store.dsn), iam_role=ROLE, staging_prefix=store.prefix)
    return settings.model_copy(update={"warehouse": warehouse})


@pytest.fixture(scope="module")
def log(shared_servers: SharedServers) -> Iterator[OnRedshift]:
    with own_log(shared_servers, ["kafka", "registry", "s3", "postgres"]) as found:
        stack: Stack = found.stack
        settings = stack.settings()
        assert settings.warehouse.dsn is not None
        with redshift_store(settings.warehouse.dsn.get_secret_value(), settings.s3) as store:
            on = OnRedshift(stack, Composition(with_redshift(settings, store)), store)
            on.simulate(COUNT, seed=3)
            on.drive("warehouse")
            yield on


def seen(log: OnRedshift) -> list[tuple[object, ...]]:
    return query(log.redshift.behind, "SELECT generation, (SELECT count(*) FROM warehouse.fact_transaction) FROM warehouse.live_generation")


def test_a_worker_loads_it_readers_see_it_and_verification_is_green(log: OnRedshift) -> None:
    assert seen(log) == [(1, COUNT)]
    proof = log.verify(log.fresh().warehouse())
    assert proof.is_ok, proof.problems
    assert log.redshift.staged() == []


def test_a_row_that_someone_changed_makes_verification_red(log: OnRedshift) -> None:
    change = "UPDATE warehouse_g1.fact_transaction SET amount = amount {} 1 WHERE log_offset = 0 AND log_partition = 0"
    query(log.redshift.behind, change.format("+"))
    assert not log.verify(log.fresh().warehouse()).is_ok
    query(log.redshift.behind, change.format("-"))
    assert log.verify(log.fresh().warehouse()).is_ok


def test_a_rebuild_is_proven_and_swapped_in_and_there_is_a_way_back(log: OnRedshift) -> None:
    result = rebuild(log.fresh(), log.stack, "warehouse", actor="test")
    assert result.proof is not None and result.proof.is_ok
    assert seen(log) == [(2, COUNT)]
    rollback(log.fresh(), log.stack, "warehouse", actor="test")
    assert seen(log) == [(1, COUNT)]


def test_status_and_doctor_ask_it(log: OnRedshift) -> None:
    composition = log.fresh()
    _, position = _tables("warehouse")(composition, 1)
    # Of the other topics `control-events` has gone on: it holds the swaps.
    assert {place: end for place, end in position.items() if place[0] == TRANSACTION_EVENTS} == log.ends([TRANSACTION_EVENTS])
    assert "Redshift 1.0" in postgres(composition)
