"""The curated table in its place: driven by its worker, proven equal to the log, rebuilt, shown by status, given its quarantine back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pyiceberg.expressions import EqualTo

from domain.log import NewRecord
from infra.log_setup import ALWAYS
from infra.quarantine_replay import replay
from infra.rebuild import rebuild
from infra.status import READERS
from projections.curated import CuratedCatalog, CuratedProjection
from projections.curated.catalog import NAMESPACE
from schema_registry.contracts import TRANSACTION_EVENTS
from tests.integration.infra.own_log import OwnLog, own_log
from tests.shared_servers import SharedServers

COUNT = 400


@pytest.fixture(scope="module")
def log(shared_servers: SharedServers) -> Iterator[OwnLog]:
    """Simulated transactions and one record of noise, projected."""
    with own_log(shared_servers, ["kafka", "registry", "s3", "postgres"]) as found:
        found.simulate(COUNT, seed=3)
        found.composition.producer.append([NewRecord(TRANSACTION_EVENTS, b"k", b"\x00noise")])
        assert READERS["curated"](found.composition, 1) == ((TRANSACTION_EVENTS,), {})
        assert not found.composition.curated().exists()  # asking for its status has made nothing
        found.drive("curated")
        yield found


def catalog_of(log: OwnLog) -> CuratedCatalog:
    return CuratedCatalog(log.composition.warehouse_dsn, log.composition.settings.s3.iceberg_config())


def live(log: OwnLog) -> CuratedProjection:
    found: CuratedProjection = log.fresh().curated()
    return found


def test_it_equals_the_log_and_its_bad_record_is_in_quarantine(log: OwnLog) -> None:
    proof = log.fresh().verifier().projection(live(log))
    assert (proof.problems, proof.rows, proof.quarantined) == ([], {"transactions": COUNT}, 1)
    assert READERS["curated"](log.fresh(), 1)[1] == log.ends([TRANSACTION_EVENTS])


def test_up_starts_its_worker_with_the_others() -> None:
    assert "curated" in ALWAYS


def test_a_row_changed_by_hand_makes_it_red_and_names_the_row(log: OwnLog) -> None:
    table = catalog_of(log).open().load_table((NAMESPACE, "transactions_g1"))
    before = table.current_snapshot()
    assert before is not None
    row = table.scan(limit=1).to_arrow()
    (tx_id,) = row["tx_id"].to_pylist()
    table.overwrite(row.set_column(row.column_names.index("asset"), "asset", [["forged"]]), EqualTo("tx_id", tx_id))
    try:
        proof = log.fresh().verifier().projection(live(log))
        assert not proof.is_ok
        assert tx_id in proof.problems[0]
        assert "forged" in proof.problems[0]
    finally:
        table.refresh().manage_snapshots().set_current_snapshot(before.snapshot_id).commit()
    assert log.fresh().verifier().projection(live(log)).is_ok


def test_a_rebuild_is_the_next_table_and_readers_are_told(log: OwnLog) -> None:
    before = log.fresh().generations.get("curated", 1)
    assert catalog_of(log).live() == f"transactions_g{before}"
    result = rebuild(log.fresh(), log.stack, "curated", actor="test")
    assert result.proof is not None and result.proof.is_ok
    assert (result.generation, result.old) == (before + 1, f"Iceberg table tidemark.transactions_g{before}")
    assert catalog_of(log).live() == f"transactions_g{before + 1}"
    assert live(log).generation == before + 1
    # The one before is kept: the way back.
    assert catalog_of(log).tables() == [f"transactions_g{before}", f"transactions_g{before + 1}"]


def test_a_record_that_can_be_taken_later_is_taken_once(log: OwnLog) -> None:
    sink = live(log)
    sink.load_position()
    (entry,) = [entry for entry in log.fresh().log.quarantine().values() if entry.projection == "curated"]
    (stays,) = replay(log.fresh(), [entry], actor="test")
    assert not stays.is_applied
    assert "not_framed" in stays.outcome or "schema" in stays.outcome or "malformed" in stays.outcome
    assert log.fresh().verifier().projection(live(log)).is_ok
