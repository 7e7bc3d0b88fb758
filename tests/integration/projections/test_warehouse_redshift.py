"""The warehouse on Redshift: Amazon's driver, SQLAlchemy's dialect, COPY from S3, against a proxy before a real Postgres."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from infra.settings import S3Settings
from projections.errors import ProjectionError, StalePosition, StoreUnavailable
from projections.failpoints import APPLIED
from projections.fingerprint import fingerprints
from projections.warehouse.redshift import run
from projections.warehouse.redshift_connection import redshift_translated
from projections.warehouse.redshift_generations import RedshiftGenerations
from projections.warehouse.redshift_sink import RedshiftWarehouse
from projections.warehouse.repair import RepairableWarehouse
from projections.work import _apply
from tests.integration.projections.redshift_proxy import Lost
from tests.integration.projections.redshift_store import RedshiftStore, redshift_store
from tests.integration.projections.test_warehouse_sink import WALLET, one_of_each, transactions
from tests.integration.projections.test_warehouse_verify import every_event_type
from tests.unit.projections.warehouse.comparison import expected_rows, stored_rows
from tests.unit.projections.warehouse.databases import query
from tests.unit.projections.warehouse.events import Placed, batch_of, described, position_after, transaction


@pytest.fixture
def store(postgres_dsn: str, s3_settings: S3Settings) -> Iterator[RedshiftStore]:
    with redshift_store(postgres_dsn, s3_settings) as found:
        yield found


def load(warehouse: RedshiftWarehouse, placed: list[Placed]) -> None:
    warehouse.apply(batch_of(placed), {}, position_after(placed))


def test_rows_of_every_event_type_and_checkpoint_are_stored_together_and_equal_the_log(store: RedshiftStore) -> None:
    warehouse = store.warehouse()
    placed = every_event_type()
    load(warehouse, placed)
    assert warehouse.load_position() == position_after(placed)
    assert stored_rows(warehouse) == expected_rows(warehouse, batch_of(placed))
    assert any(statement.startswith("COPY stage_fact_transaction FROM 's3://") for statement in store.proxy.statements)
    assert store.staged() == []


def test_several_batches_fold_dimensions_as_one_would(store: RedshiftStore) -> None:
    warehouse = store.warehouse()
    first, second = one_of_each(), [*transactions(120, 60), Placed(described(WALLET, "between", 3), 1, 2)]
    load(warehouse, first)
    before = warehouse.load_position()
    warehouse.apply(batch_of(second), before, position_after(second, before))
    warehouse.refresh()
    assert stored_rows(warehouse) == expected_rows(warehouse, batch_of(first), batch_of(second))
    assert query(store.behind, "SELECT count(*) > 0 FROM warehouse_g1.mv_hourly_volume") == [(True,)]


@pytest.mark.parametrize(("when", "is_stored"), [("before", False), ("after", True)])
def test_a_lost_answer_to_commit_neither_loses_nor_doubles(store: RedshiftStore, when: Lost, is_stored: bool) -> None:
    warehouse = store.warehouse()
    placed = one_of_each()
    batch, after = batch_of(placed), position_after(placed)
    store.proxy.lose_next_commit(when)
    with pytest.raises(StoreUnavailable):
        warehouse.apply(batch, {}, after)
    assert warehouse.load_position() == (after if is_stored else {})
    if is_stored:
        with pytest.raises(StalePosition):
            warehouse.apply(batch, {}, after)
    else:
        warehouse.apply(batch, {}, after)
    assert stored_rows(warehouse) == expected_rows(warehouse, batch)


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_worker_goes_on_by_itself_after_a_lost_answer_to_commit(store: RedshiftStore, when: Lost) -> None:
    warehouse = store.warehouse()
    placed = one_of_each()
    batch, after = batch_of(placed), position_after(placed)
    store.proxy.lose_next_commit(when)
    _apply(warehouse.load_position, lambda: warehouse.apply(batch, {}, after), {}, after)
    assert warehouse.load_position() == after
    assert stored_rows(warehouse) == expected_rows(warehouse, batch)


def test_a_serializable_conflict_is_tried_again(store: RedshiftStore) -> None:
    warehouse = store.warehouse()
    placed = one_of_each()
    batch, after = batch_of(placed), position_after(placed)
    warehouse.load_position()
    store.proxy.refuse_next_insert()
    with pytest.raises(StoreUnavailable, match="1023"):
        warehouse.apply(batch, {}, after)
    warehouse.apply(batch, {}, after)
    assert stored_rows(warehouse) == expected_rows(warehouse, batch)


@pytest.mark.parametrize("kind", [".parquet", ".manifest"])
def test_a_staged_file_that_is_gone_is_staged_again(store: RedshiftStore, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    warehouse = store.warehouse()
    placed = one_of_each()
    advance = warehouse._advance

    def delete_then_advance(*arguments: object) -> None:
        for key in store.staged():
            if key.endswith(kind):
                store.s3.delete_object(Bucket=store.bucket, Key=key)
        advance(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(warehouse, "_advance", delete_then_advance)
        with pytest.raises(StoreUnavailable, match="does not exist"):
            load(warehouse, placed)
    assert (warehouse.load_position(), stored_rows(warehouse)) == ({}, {})
    load(warehouse, placed)
    assert stored_rows(warehouse) == expected_rows(warehouse, batch_of(placed))


def test_what_a_crash_left_in_s3_goes_when_the_next_worker_starts(store: RedshiftStore, monkeypatch: pytest.MonkeyPatch) -> None:
    warehouse = store.warehouse()
    placed = one_of_each()

    def die(point: str) -> None:
        assert point == APPLIED
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("projections.warehouse.redshift_sink.reach", die)
        with pytest.raises(KeyboardInterrupt):
            load(warehouse, placed)
    left = store.staged()
    assert left
    again = store.warehouse()
    assert again.clean_up() == len(left)
    assert (store.staged(), again.load_position(), stored_rows(again)) == ([], {}, {})


def test_a_role_that_the_cluster_has_not_is_an_error_and_text_that_is_no_role_never_reaches_it(store: RedshiftStore) -> None:
    stranger = RedshiftWarehouse(store.database("arn:aws:iam::999999999999:role/other"))
    with pytest.raises(ProjectionError, match="not authorized"):
        load(stranger, one_of_each())
    with pytest.raises(ProjectionError, match="found something else"):
        store.database("x' CREDENTIALS 'y")
    stranger.close()


def test_rows_past_the_checkpoint_that_another_wrote_are_replaced(store: RedshiftStore) -> None:
    warehouse = store.warehouse()
    placed = one_of_each()
    load(warehouse, placed)
    query(store.behind, "DELETE FROM warehouse_g1.checkpoints")
    load(warehouse, placed)
    assert stored_rows(warehouse) == expected_rows(warehouse, batch_of(placed))


def test_every_row_that_is_changed_doubled_or_deleted_shows(store: RedshiftStore) -> None:
    warehouse = store.warehouse()
    placed = every_event_type()
    load(warehouse, placed)
    wanted = fingerprints(warehouse.expected(iter([batch_of(placed)]), None))  # type: ignore[arg-type]
    assert fingerprints(warehouse.read_back()) == wanted
    changes = (
        "UPDATE warehouse_g1.fact_transaction SET amount = amount + 0.000000000000000001 WHERE log_offset = 0",
        "INSERT INTO warehouse_g1.fact_transaction SELECT * FROM warehouse_g1.fact_transaction WHERE log_offset = 0 LIMIT 1",
        "DELETE FROM warehouse_g1.dim_wallet WHERE wallet_id = (SELECT min(wallet_id) FROM warehouse_g1.dim_wallet)",
    )
    seen = [wanted]
    for change in changes:
        query(store.behind, change)
        found = fingerprints(warehouse.read_back())
        assert found not in seen
        seen.append(found)


def test_a_snapshot_has_the_checkpoint_of_its_rows(store: RedshiftStore) -> None:
    warehouse = store.warehouse()
    load(warehouse, one_of_each())
    position, found = store.warehouse().snapshot()
    assert position == warehouse.load_position()
    assert found == fingerprints(warehouse.read_back())
    query(store.behind, "ANALYZE")
    assert warehouse.stored_counts()["fact_transaction"] == 120


def test_generations_are_listed_published_swapped_and_dropped(store: RedshiftStore) -> None:
    generations = RedshiftGenerations(store.database())
    assert (generations.generations(), generations.live()) == ((), None)
    for number, count in ((1, 6), (2, 12)):
        load(store.warehouse(number), transactions(0, count))
    with pytest.raises(ProjectionError, match="expected one of the warehouse generations"):
        generations.publish(3)
    for number, count in ((1, 6), (2, 12)):
        generations.publish(number)
        assert generations.live() == number
        assert query(store.behind, "SELECT count(*) FROM warehouse.fact_transaction") == [(count,)]
    with pytest.raises(ProjectionError, match="not live"):
        generations.drop(2)
    generations.drop(1)
    assert generations.generations() == (2,)
    assert query(store.behind, "SELECT count(*) FROM warehouse.v_fraud_features") == [(12,)]


def test_a_layout_that_was_cut_short_is_completed(store: RedshiftStore) -> None:
    store.warehouse().load_position()
    query(store.behind, "DROP VIEW warehouse_g1.v_fraud_features")
    query(store.behind, "DROP MATERIALIZED VIEW warehouse_g1.mv_hourly_volume")
    warehouse = store.warehouse()
    load(warehouse, transactions(0, 6))
    warehouse.refresh()
    assert query(store.behind, "SELECT count(*) FROM warehouse_g1.v_fraud_features") == [(6,)]


def test_a_layout_of_a_newer_tidemark_is_not_touched(store: RedshiftStore) -> None:
    store.warehouse().load_position()
    query(store.behind, "COMMENT ON TABLE warehouse_g1.checkpoints IS 'tidemark layout 99'")
    with pytest.raises(ProjectionError, match="has layout 99, made by a newer Tidemark"):
        store.warehouse().load_position()


def test_what_redshift_has_not_is_refused_by_the_stand_in(store: RedshiftStore) -> None:
    store.warehouse().load_position()
    for statement, word in (
        ("INSERT INTO checkpoints VALUES ('t', 1, 2) ON CONFLICT DO NOTHING", "ON CONFLICT"),
        ("DELETE FROM checkpoints RETURNING topic", "RETURNING"),
        ("SELECT DISTINCT ON (topic) topic FROM checkpoints", "DISTINCT ON"),
        ("CREATE INDEX i ON checkpoints (topic)", "CREATE INDEX"),
    ):
        with (
            pytest.raises(ProjectionError, match=word),
            redshift_translated("trying"),
            store.database().connect("warehouse_g1") as connection,
        ):
            run(connection, statement)


def test_text_longer_than_its_column_is_one_record_s_trouble(store: RedshiftStore) -> None:
    warehouse = store.warehouse()
    long = replace(transaction(1), payment=replace(transaction(2).payment, location="é" * 33_000))  # type: ignore[type-var]
    batch = batch_of([Placed(transaction(0), 0, 0), Placed(long, 0, 1)])
    (rejection,) = warehouse.screen(batch)
    assert (rejection.partition, rejection.offset, rejection.reason) == (0, 1, "too_long_for_redshift")
    assert "65535 bytes in payment.location" in rejection.message


def test_repair_in_place_says_that_it_needs_postgres(store: RedshiftStore) -> None:
    with pytest.raises(ProjectionError, match="works on PostgreSQL alone"):
        RepairableWarehouse(store.dsn)
