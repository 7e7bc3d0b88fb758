"""The warehouse as a sink on a real Postgres: once or not at all, one writer, equal on rebuild."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace

import adbc_driver_manager
import psycopg
import pytest

from projections.errors import ProjectionError, StalePosition, StoreUnavailable
from projections.protocol import EventBatch
from projections.warehouse import WarehouseProjection, dimensions
from projections.warehouse import statements as sql
from projections.warehouse.sink import schema_of
from schema_registry.contracts import TRANSACTION_EVENTS
from tests.unit.projections.warehouse.comparison import expected_rows, stored_rows
from tests.unit.projections.warehouse.databases import fresh_database, query
from tests.unit.projections.warehouse.events import (
    Placed,
    batch_of,
    deployed,
    described,
    embedded,
    position_after,
    scored,
    trained,
    transaction,
)

WALLET = transaction(1).source_wallet_id or ""
UNMET = "exchange:never-in-a-transaction"


@pytest.fixture
def dsn(postgres_dsn: str) -> Iterator[str]:
    with fresh_database(postgres_dsn) as address:
        yield address


@pytest.fixture
def warehouse(dsn: str) -> Iterator[WarehouseProjection]:
    projection = WarehouseProjection(dsn, generation=1)
    yield projection
    projection.close()


def transactions(first: int, count: int) -> list[Placed]:
    return [Placed(transaction(i), i % 6, i // 6) for i in range(first, first + count)]


def one_of_each() -> list[Placed]:
    return [
        *transactions(0, 120),
        Placed(described(WALLET, "second", 5), 1, 0),
        Placed(described(WALLET, "first", 2), 1, 1),
        Placed(described(UNMET, "only", 2), 3, 0),
        Placed(scored(5), 2, 0),
        Placed(scored(6), 2, 1),
        Placed(embedded("ethereum:0xembedded"), 2, 0),
        Placed(trained("m1", 3, "newer"), 2, 0),
        Placed(trained("m1", 1, "older"), 2, 1),
        Placed(deployed("m3", 4), 2, 2),
    ]


def test_a_new_store_has_no_checkpoint(warehouse: WarehouseProjection) -> None:
    assert warehouse.load_position() == {}
    assert stored_rows(warehouse) == {}


def test_rows_and_checkpoint_are_stored_together_and_equal_the_log(warehouse: WarehouseProjection) -> None:
    placed = one_of_each()
    batch, after = batch_of(placed), position_after(placed)
    warehouse.apply(batch, {}, after)
    assert warehouse.load_position() == after
    assert stored_rows(warehouse) == expected_rows(warehouse, batch)


def test_the_same_batch_twice_changes_nothing(warehouse: WarehouseProjection) -> None:
    placed = one_of_each()
    batch, after = batch_of(placed), position_after(placed)
    warehouse.apply(batch, {}, after)
    before = stored_rows(warehouse)
    with pytest.raises(StalePosition, match="a second worker has written"):
        warehouse.apply(batch, {}, after)
    assert stored_rows(warehouse) == before
    assert warehouse.load_position() == after


@pytest.mark.parametrize("is_copying", [False, True], ids=["between-statements", "while-it-copies"])
@pytest.mark.parametrize("is_first", [False, True], ids=["with-a-checkpoint", "before-its-first"])
def test_an_owner_that_stands_still_in_its_transaction_is_ended_by_the_next(
    warehouse: WarehouseProjection, dsn: str, monkeypatch: pytest.MonkeyPatch, is_copying: bool, is_first: bool
) -> None:
    monkeypatch.setattr(sql, "LOCK_TIMEOUT_S", 1)
    warehouse.load_position()
    before = {} if is_first else {(TRANSACTION_EVENTS, 0): 3, (TRANSACTION_EVENTS, 1): 3}
    if before:
        warehouse.apply(EventBatch({}), {}, before)
    started = [Placed(transaction(i), 0, 3 + i) for i in range(2)]
    with psycopg.connect(dsn, autocommit=True) as frozen, psycopg.connect(dsn) as bystander:
        for session in (frozen, bystander):
            session.execute(f"SET search_path TO {schema_of(1)}")
        bystander.execute("SELECT * FROM checkpoints")  # a reader whose transaction stays open is in nobody's way
        frozen.execute("BEGIN")
        if before:
            frozen.execute("UPDATE checkpoints SET next_offset = 4 WHERE topic = %s AND partition = 0", (TRANSACTION_EVENTS,))
        else:
            frozen.execute("INSERT INTO checkpoints VALUES (%s, 0, 4)", (TRANSACTION_EVENTS,))
        copying = frozen.cursor().copy("COPY dim_asset (network, asset) FROM STDIN") if is_copying else nullcontext()
        with pytest.raises(psycopg.OperationalError), copying as rows:
            if rows is not None:
                rows.write(b"ethereum\tETH\n")
            with pytest.raises(StoreUnavailable):
                warehouse.apply(batch_of(started), before, position_after(started))
            warehouse.apply(batch_of(started), before, position_after(started))
            if rows is None:
                frozen.execute("COMMIT")
        bystander.commit()
    assert warehouse.load_position()[TRANSACTION_EVENTS, 0] == 5
    assert query(dsn, f"SELECT count(*) FROM {schema_of(1)}.fact_transaction") == [(2,)]


def test_a_crash_before_commit_leaves_nothing(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    warehouse = WarehouseProjection(dsn)
    placed = one_of_each()

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("projections.warehouse.sink.load_dimensions", crash)
        with pytest.raises(KeyboardInterrupt):
            warehouse.apply(batch_of(placed), {}, position_after(placed))
    assert stored_rows(warehouse) == {}
    assert warehouse.load_position() == {}
    warehouse.apply(batch_of(placed), {}, position_after(placed))
    assert stored_rows(warehouse) == expected_rows(warehouse, batch_of(placed))


def test_a_session_killed_in_the_middle_is_store_unavailable_and_leaves_nothing(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    warehouse = WarehouseProjection(dsn)
    placed = one_of_each()
    load = dimensions.load_dimensions

    def kill_then_load(*arguments: object) -> None:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'tidemark-warehouse' AND datname = current_database()"
            )
        load(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr("projections.warehouse.sink.load_dimensions", kill_then_load)
        with pytest.raises(StoreUnavailable) as caught:
            warehouse.apply(batch_of(placed), {}, position_after(placed))
    assert isinstance(caught.value.__cause__, adbc_driver_manager.Error)
    assert warehouse.load_position() == {}  # and it has connected again by itself
    assert stored_rows(warehouse) == {}


def test_a_wallet_that_another_worker_adds_meanwhile_is_there_once(dsn: str, warehouse: WarehouseProjection) -> None:
    placed = transactions(0, 60)
    batch, after = batch_of(placed), position_after(placed)
    warehouse.load_position()
    with psycopg.connect(dsn) as other, ThreadPoolExecutor(1) as pool:
        columns = "wallet_id, description_number, network, kind, is_current"
        other.execute(f"INSERT INTO warehouse_g1.dim_wallet ({columns}) VALUES (%s, 0, 'ethereum', 'unknown', true)", (WALLET,))
        applied = pool.submit(warehouse.apply, batch, {}, after)
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        deadline = time.monotonic() + 180
        while not query(dsn, waiting)[0][0]:
            assert time.monotonic() < deadline and not applied.done(), "the worker was expected to wait for the other"
            time.sleep(0.02)
        other.commit()
        applied.result(30)
    assert warehouse.load_position() == after
    assert stored_rows(warehouse) == expected_rows(warehouse, batch)


def test_of_two_writers_one_wins(dsn: str) -> None:
    first, second = WarehouseProjection(dsn), WarehouseProjection(dsn)
    start = transactions(0, 60)
    first.apply(batch_of(start), {}, position_after(start))
    before = second.load_position()
    more = transactions(60, 60)
    after = position_after(more, before)
    first.apply(batch_of(more), before, after)
    with pytest.raises(StalePosition):
        second.apply(batch_of(more), before, after)
    assert stored_rows(first) == expected_rows(first, batch_of(start), batch_of(more))


@pytest.mark.parametrize("other", [1, None])
def test_one_partition_that_stands_elsewhere_stops_the_batch_of_all(warehouse: WarehouseProjection, other: int | None) -> None:
    start, more = transactions(0, 60), transactions(60, 60)
    warehouse.apply(batch_of(start), {}, position_after(start))
    rows, position = stored_rows(warehouse), dict(warehouse.load_position())
    topic, partition = elsewhere = max(position)
    believed = {place: offset for place, offset in position.items() if place != elsewhere}
    if other is not None:
        believed[elsewhere] = other
    with pytest.raises(StalePosition, match=f"at {other} for {topic}-{partition}, found another"):
        warehouse.apply(batch_of(more), believed, position_after(more, position))
    assert (stored_rows(warehouse), warehouse.load_position()) == (rows, position)


# A row that another writer moves, and one that it makes: each while this writer waits for it.
@pytest.mark.parametrize(
    "change",
    [
        "UPDATE checkpoints SET next_offset = next_offset + 1 WHERE partition = 5",
        "INSERT INTO checkpoints (topic, partition, next_offset) VALUES ('transaction-events', 5, 3)",
    ],
    ids=["moved", "made"],
)
def test_a_writer_that_waited_for_another_finds_that_it_is_too_late(dsn: str, change: str) -> None:
    is_made = change.startswith("INSERT")
    warehouse = WarehouseProjection(dsn)
    start = [one for one in transactions(0, 60) if not is_made or one.partition != 5]
    warehouse.apply(batch_of(start), {}, position_after(start))
    rows, position = stored_rows(warehouse), dict(warehouse.load_position())
    more = transactions(60, 60)
    failures: list[BaseException] = []

    def write() -> None:
        try:
            warehouse.apply(batch_of(more), position, position_after(more, position))
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=write)
    with psycopg.connect(dsn) as rival:
        rival.execute(f"SET search_path TO {schema_of(1)}".encode())
        rival.execute(change.encode())
        thread.start()
        deadline = time.monotonic() + 180
        while not query(dsn, "SELECT 1 FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE NOT granted AND datname = current_database()"):
            assert time.monotonic() < deadline, "it does not wait for the other"
            time.sleep(0.02)
    thread.join(180)
    assert [type(failure) for failure in failures] == [StalePosition]
    assert "transaction-events-5" in str(failures[0])
    assert stored_rows(warehouse) == rows
    assert {place: offset for place, offset in warehouse.load_position().items() if place[1] != 5} == {
        place: offset for place, offset in position.items() if place[1] != 5
    }


def test_two_workers_of_different_partitions_share_dimensions(dsn: str) -> None:
    first, second = WarehouseProjection(dsn), WarehouseProjection(dsn)
    placed = transactions(0, 240)
    even = [one for one in placed if one.partition % 2 == 0]
    odd = [one for one in placed if one.partition % 2]
    first.apply(batch_of(even), {}, position_after(even))
    second.apply(batch_of(odd), {}, position_after(odd))
    assert stored_rows(first) == expected_rows(first, batch_of(placed))


def test_a_checkpoint_of_zero_is_the_same_as_none(warehouse: WarehouseProjection) -> None:
    placed = transactions(0, 6)
    warehouse.apply(batch_of(placed), dict.fromkeys(position_after(placed), 0), position_after(placed))
    assert warehouse.load_position() == position_after(placed)


def test_a_checkpoint_never_falls(warehouse: WarehouseProjection) -> None:
    placed = transactions(0, 60)
    after = position_after(placed)
    warehouse.apply(batch_of(placed), {}, after)
    with pytest.raises(ValueError, match="expected a checkpoint that rises"):
        warehouse.apply(batch_of([]), after, dict.fromkeys(after, 3))
    assert warehouse.load_position() == after


def test_a_position_moves_over_records_that_give_no_rows(warehouse: WarehouseProjection) -> None:
    place = ("transaction-events", 4)
    warehouse.apply(batch_of([]), {}, {place: 7})
    warehouse.apply(batch_of([]), {place: 7}, {place: 9})
    assert warehouse.load_position() == {place: 9}


def test_a_rebuild_in_other_cuts_equals_the_live_generation(dsn: str) -> None:
    live, rebuilt = WarehouseProjection(dsn, generation=1), WarehouseProjection(dsn, generation=2)
    placed = one_of_each()
    live.apply(batch_of(placed), {}, position_after(placed))
    position: dict[tuple[str, int], int] = {}
    by_offset = sorted(placed, key=lambda one: (one.offset, one.topic, one.partition))
    for start in range(0, len(by_offset), 7):
        piece = by_offset[start : start + 7]
        after = position_after(piece)
        rebuilt.apply(batch_of(piece), {place: position[place] for place in after if place in position}, after)
        position.update(after)
    assert rebuilt.load_position() == live.load_position()
    assert stored_rows(rebuilt) == stored_rows(live)


def test_a_wallet_met_first_is_a_placeholder_until_it_is_described(dsn: str, warehouse: WarehouseProjection) -> None:
    history = f"""
        SELECT description_number, name, valid_from IS NULL, valid_to IS NULL, is_current FROM warehouse_g1.dim_wallet
        WHERE wallet_id = '{WALLET}' ORDER BY description_number
    """
    met = transactions(0, 60)
    warehouse.apply(batch_of(met), {}, position_after(met))
    assert query(dsn, history) == [(0, None, True, True, True)]
    told = [Placed(described(WALLET, "later", 5), 1, 0)]
    warehouse.apply(batch_of(told), {}, position_after(told))
    assert query(dsn, history) == [(0, None, True, False, False), (1, "later", False, True, True)]
    late = [Placed(described(WALLET, "earlier", 1), 1, 1)]
    warehouse.apply(batch_of(late), position_after(told), position_after(late))
    assert query(dsn, history) == [
        (0, None, True, False, False),
        (1, "earlier", False, False, False),
        (2, "later", False, True, True),
    ]
    assert stored_rows(warehouse) == expected_rows(warehouse, batch_of([*met, *told, *late]))


def test_a_wallet_described_before_it_is_met_needs_no_placeholder_later(warehouse: WarehouseProjection) -> None:
    told = [Placed(described(WALLET, "known", 1), 1, 0)]
    met = transactions(0, 60)
    warehouse.apply(batch_of(told), {}, position_after(told))
    warehouse.apply(batch_of(met), {}, position_after(met))
    assert stored_rows(warehouse) == expected_rows(warehouse, batch_of([*told, *met]))


HOSTILE = {
    "quotes": "' OR '1'='1'; DROP TABLE fact_transaction; --",
    "backslashes": "\\\\.\\n\\x00 \\. %s $1 {0}",
    "newlines": "first\nsecond\r\n\tthird\u2028",
    "markup": "<script>alert(1)</script> =HYPERLINK(1) [bold]\x1b[31m",
    "emoji": "\U0001f9ff\u202e\u0301 ظمر",
    "long": "é" * 5_000_000,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_text_is_stored_as_it_is(warehouse: WarehouseProjection, text: str) -> None:
    placed = [Placed(described(UNMET, text, 1), 0, 0)]
    warehouse.apply(batch_of(placed), {}, position_after(placed))
    assert stored_rows(warehouse) == expected_rows(warehouse, batch_of(placed))


def test_hostile_ids_are_keys_like_any_other(warehouse: WarehouseProjection) -> None:
    odd = "ethereum:'; DELETE FROM dim_wallet; -- \U0001f9ff"
    placed = [
        Placed(transaction(1, source_wallet_id=odd, asset="A'\"B", counter_asset="\\."), 0, 0),
        Placed(described(odd, "odd", 1), 0, 0),
    ]
    warehouse.apply(batch_of(placed), {}, position_after(placed))
    assert stored_rows(warehouse) == expected_rows(warehouse, batch_of(placed))


def test_two_rows_for_one_place_in_the_log_are_refused_whole(warehouse: WarehouseProjection) -> None:
    placed = transactions(0, 6)
    warehouse.apply(batch_of(placed), {}, position_after(placed))
    again = [replace(one, offset=0) for one in transactions(6, 6)]
    position = position_after(placed)
    with pytest.raises(ProjectionError, match="duplicate key") as caught:
        warehouse.apply(batch_of(again), position, {place: offset + 1 for place, offset in position.items()})
    assert not isinstance(caught.value, StoreUnavailable)
    assert warehouse.load_position() == position


def test_the_index_of_wallets_takes_more_of_them_than_a_range_of_blocks_can_tell_apart(dsn: str, warehouse: WarehouseProjection) -> None:
    warehouse.apply(batch_of(transactions(0, 1)), {}, {(TRANSACTION_EVENTS, 0): 1})
    index = f"{schema_of(1)}.ix_fact_transaction_wallets"
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT split_part(pg_get_indexdef(%s::regclass), ' USING ', 2)", (index,)).fetchone()
        assert row is not None and "bloom" in row[0]
        # The same index on narrow rows: some ten thousand different wallets a column in one range, several times what facts come to.
        connection.execute("CREATE TABLE narrow (source_wallet_id text, target_wallet_id text)")
        connection.execute(f"CREATE INDEX ix_narrow ON narrow USING {row[0]}")
        for _ in ("summed up when full", "added one by one afterwards"):
            connection.execute("INSERT INTO narrow SELECT 'e:' || md5('a' || n), 'e:' || md5('b' || n) FROM generate_series(1, 20000) n")
            connection.execute("SELECT brin_summarize_new_values('ix_narrow'::regclass)")
        found = connection.execute("SELECT count(*) FROM narrow WHERE source_wallet_id = 'e:' || md5('a7')").fetchone()
    assert found == (2,)


def test_a_server_that_is_not_there_is_store_unavailable() -> None:
    warehouse = WarehouseProjection("postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(StoreUnavailable, match="did not answer while reading the checkpoint") as caught:
        warehouse.load_position()
    assert caught.value.__cause__ is not None
