"""The base of a projection of one's own: rows a record, rows that add up, values that Postgres refuses, layouts of another version."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any, ClassVar

import pyarrow as pa
import pytest
import sqlalchemy as sa

from domain.log import Position
from projections.errors import BatchRefused, ProjectionError
from projections.fingerprint import canonical_lines
from projections.protocol import EventBatch, Excluded
from projections.table_projection import PLACE, TableProjection
from projections.warehouse import SchemaGenerations, WarehouseProjection
from projections.warehouse.store import LAYOUT_VERSION
from schema_registry.contracts import WALLET_EVENTS
from tests.unit.projections.warehouse.databases import fresh_database, query

LAYOUT = sa.MetaData()
LABELLED = sa.Table(
    "labelled",
    LAYOUT,
    *(
        sa.Column(name, kind, primary_key=True, autoincrement=False)
        for name, kind in zip(PLACE, (sa.Text, sa.Integer, sa.BigInteger), strict=True)
    ),
    sa.Column("wallet_id", sa.Text, nullable=False),
    sa.Column("label", sa.Text),
    sa.Column("share", sa.Numeric, sa.CheckConstraint("share >= 0")),
    sa.Column("known_at", sa.DateTime(timezone=True)),
)
COUNTED = sa.Table("counted", LAYOUT, sa.Column("wallet_id", sa.Text, primary_key=True), sa.Column("labels", sa.BigInteger, nullable=False))
MET = sa.Table("met", LAYOUT, sa.Column("wallet_id", sa.Text, primary_key=True))
AT = 1_700_000_000_000_000


class Labels(TableProjection):
    """A row for each label, a count for each wallet, and the wallets met."""

    name = "labels-by-wallet"
    topics = (WALLET_EVENTS,)
    reads: ClassVar = {"WalletLabelled": ()}
    layout = LAYOUT

    def rows(self, batch: EventBatch, excluded: Excluded) -> Iterator[tuple[sa.Table, pa.Table]]:
        events = batch.tables["WalletLabelled"]
        yield LABELLED, events
        wallets = pa.table({"wallet_id": events["wallet_id"]})
        yield MET, wallets
        yield COUNTED, wallets.append_column("labels", pa.repeat(pa.scalar(1, pa.int64()), len(wallets)))


def labelled(*rows: tuple[str, str | None, str], start: int = 0) -> EventBatch:
    """Events of (wallet, label, share) in one partition."""
    wallets, labels, shares = zip(*rows, strict=True)
    return EventBatch(
        {
            "WalletLabelled": pa.table(
                {
                    "_topic": [WALLET_EVENTS] * len(rows),
                    "_partition": pa.array([2] * len(rows), pa.int32()),
                    "_offset": range(start, start + len(rows)),
                    "wallet_id": wallets,
                    "label": pa.array(labels, pa.string()),
                    "share": pa.array([Decimal(share) for share in shares], pa.decimal128(38, 18)),
                    "known_at": pa.array([AT] * len(rows), pa.timestamp("us", "UTC")),
                }
            )
        }
    )


def at(offset: int) -> Position:
    return {(WALLET_EVENTS, 2): offset}


@pytest.fixture
def dsn(postgres_dsn: str) -> Iterator[str]:
    with fresh_database(postgres_dsn) as found:
        yield found


@pytest.fixture
def labels(dsn: str) -> Iterator[Labels]:
    found = Labels(dsn)
    yield found
    found.close()


def lines(tables: Iterator[tuple[str, pa.Table]]) -> list[str]:
    return sorted(f"{name} {line}" for name, table in tables for line in canonical_lines(table))


FIRST = labelled(("test:a", "illicit", "0.5"), ("test:b", None, "0.000000000000000001"), ("test:a", 'quo"te', "100"))
SECOND = labelled(("test:a", "licit", "0"), ("test:c", "licit", "1"), start=3)


def test_rows_a_record_keep_their_place_and_the_others_add_up(labels: Labels) -> None:
    labels.apply(FIRST, {}, at(3))
    labels.apply(SECOND, at(3), at(5))
    stored = lines(labels.read_back())
    assert stored == lines(labels.expected(iter([FIRST, SECOND]), Excluded()))
    assert [row for row in stored if row.startswith(("counted", "met"))] == [
        'counted labels=1 wallet_id="test:b"', 'counted labels=1 wallet_id="test:c"', 'counted labels=3 wallet_id="test:a"',
        'met wallet_id="test:a"', 'met wallet_id="test:b"', 'met wallet_id="test:c"',
    ]  # fmt: skip
    assert (
        f'labelled _offset=1 _partition=2 _topic="{WALLET_EVENTS}" known_at={AT} label=∅ share="0.000000000000000001" wallet_id="test:b"'
        in stored
    )


@pytest.mark.parametrize(
    "row", [pytest.param(("test:a", "nul\x00", "1"), id="a zero byte"), pytest.param(("test:a", "x", "-1"), id="a broken constraint")]
)
def test_a_value_that_postgres_refuses_leaves_nothing_and_is_for_the_quarantine(row: tuple[str, str, str], labels: Labels) -> None:
    labels.apply(FIRST, {}, at(3))
    with pytest.raises(BatchRefused):
        labels.apply(labelled(row, start=3), at(3), at(4))
    assert labels.load_position() == at(3)
    assert lines(labels.read_back()) == lines(labels.expected(iter([FIRST]), Excluded()))


def test_the_same_record_twice_is_an_error_even_with_another_checkpoint(labels: Labels) -> None:
    labels.apply(FIRST, {}, at(3))
    with pytest.raises(BatchRefused, match="duplicate key"):
        labels.apply(FIRST, at(3), at(6))


def test_a_snapshot_is_of_one_position_and_generations_stand_beside_each_other(labels: Labels, dsn: str) -> None:
    labels.apply(FIRST, {}, at(3))
    position, found = labels.snapshot()
    assert (position, found["labelled"].rows, found["counted"].rows) == (at(3), 3, 2)
    generations = SchemaGenerations(dsn, "labels_by_wallet")
    second = Labels(dsn, 2)
    second.apply(labelled(("test:z", "licit", "1")), {}, at(1))
    second.close()
    generations.publish(1)
    assert query(dsn, "SELECT count(*) FROM labels_by_wallet.labelled") == [(3,)]
    generations.publish(2)
    assert query(dsn, "SELECT wallet_id FROM labels_by_wallet.labelled") == [("test:z",)]
    assert (generations.generations(), generations.live()) == ((1, 2), 2)
    # Another read model's schemas are none of its own.
    WarehouseProjection(dsn).load_position()
    assert generations.generations() == (1, 2)


@pytest.mark.parametrize("make", [Labels, WarehouseProjection])
def test_a_layout_of_a_newer_tidemark_is_refused_and_one_without_a_number_goes_on(make: Any, dsn: str) -> None:
    store = make(dsn)
    store.load_position()
    store.close()
    query(dsn, f"COMMENT ON SCHEMA {store.schema} IS NULL")  # as those have that were made before there was a number
    assert make(dsn).load_position() == {}
    query(dsn, f"COMMENT ON SCHEMA {store.schema} IS 'tidemark layout {LAYOUT_VERSION + 1}'")
    with pytest.raises(ProjectionError, match=f"{store.schema} has layout {LAYOUT_VERSION + 1}, made by a newer Tidemark"):
        make(dsn).load_position()
