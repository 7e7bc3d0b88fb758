"""Generations beside each other, and the swap that people see as one step."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from projections.errors import ProjectionError, StoreUnavailable
from projections.warehouse import WarehouseGenerations, WarehouseProjection
from tests.unit.projections.warehouse.databases import fresh_database, query
from tests.unit.projections.warehouse.events import Placed, batch_of, position_after, rescored, transaction


@pytest.fixture
def dsn(postgres_dsn: str) -> Iterator[str]:
    with fresh_database(postgres_dsn) as address:
        yield address


def fill(dsn: str, generation: int, count: int) -> None:
    placed = [Placed(transaction(i), 0, i) for i in range(count)]
    projection = WarehouseProjection(dsn, generation)
    projection.apply(batch_of(placed), {}, position_after(placed))
    projection.close()


def test_nothing_is_live_before_the_first_publish(dsn: str) -> None:
    generations = WarehouseGenerations(dsn)
    assert (generations.generations(), generations.live()) == ((), None)


def test_a_swap_shows_the_other_generation_and_swaps_back(dsn: str) -> None:
    fill(dsn, 1, 3)
    fill(dsn, 12, 5)
    generations = WarehouseGenerations(dsn)
    assert generations.generations() == (1, 12)
    for generation, rows in ((1, 3), (12, 5), (12, 5), (1, 3)):
        generations.publish(generation)
        assert generations.live() == generation
        assert query(dsn, "SELECT count(*) FROM warehouse.fact_transaction") == [(rows,)]
        assert query(dsn, "SELECT count(*) FROM warehouse.v_fraud_features") == [(rows,)]


def test_a_generation_that_does_not_exist_is_not_published(dsn: str) -> None:
    fill(dsn, 1, 1)
    generations = WarehouseGenerations(dsn)
    generations.publish(1)
    with pytest.raises(ProjectionError, match=r"expected one of the warehouse generations \[1\], found 2"):
        generations.publish(2)
    assert generations.live() == 1


def test_a_generation_of_before_gets_the_table_that_came_later_and_readers_are_shown_it(dsn: str) -> None:
    fill(dsn, 1, 3)
    query(dsn, "DROP TABLE warehouse_g1.fact_rescore")
    generations = WarehouseGenerations(dsn)
    generations.publish(1)
    assert generations.shows(1) and not generations.shows(2)
    projection = WarehouseProjection(dsn, 1)
    before = projection.load_position()
    assert not generations.shows(1)
    generations.publish(1)
    assert generations.shows(1)
    assert query(dsn, "SELECT count(*) FROM warehouse.fact_rescore") == [(0,)]
    placed = [Placed(rescored(0), 0, 0), Placed(rescored(1), 0, 1)]
    projection.apply(batch_of(placed), before, position_after(placed))
    projection.close()
    assert query(dsn, "SELECT tx_seq, model_version, log_topic FROM warehouse.fact_rescore ORDER BY 1") == [
        (0, "m1", "rescore-events"), (1, "m1", "rescore-events"),
    ]  # fmt: skip
    assert query(dsn, "SELECT count(*) FROM warehouse.fact_transaction") == [(3,)]


def test_the_live_generation_is_not_dropped(dsn: str) -> None:
    fill(dsn, 1, 1)
    fill(dsn, 2, 1)
    generations = WarehouseGenerations(dsn)
    generations.publish(2)
    with pytest.raises(ProjectionError, match="publish another first"):
        generations.drop(2)
    generations.drop(1)
    generations.drop(1)
    assert generations.generations() == (2,)


def test_a_server_that_is_not_there_is_store_unavailable() -> None:
    with pytest.raises(StoreUnavailable):
        WarehouseGenerations("postgresql://nobody@127.0.0.1:1/none").generations()
