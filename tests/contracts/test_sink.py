"""What every sink must do once, run against the raw archive, the curated table, the warehouse and the wallet graph on real servers,
and against the fake of tests."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from decimal import Decimal
from itertools import count
from typing import Any

import boto3
import neo4j
import numpy as np
import pytest
from botocore.config import Config

from domain.log import Position, Record, TopicPartition
from infra.settings import Neo4jSettings, S3Settings
from projections.archive import RawArchive
from projections.curated import CuratedCatalog, CuratedProjection
from projections.decoding import decode
from projections.errors import StalePosition
from projections.fingerprint import canonical_lines
from projections.records import RecordBatch, seq_header
from projections.verify import raw_table
from projections.wallet_graph import WalletGraphProjection
from projections.warehouse import WarehouseProjection
from schema_registry.catalog import SchemaCatalog
from schema_registry.column_codec import ColumnCodec
from schema_registry.contracts import TRANSACTION_EVENTS
from schema_registry.record_codec import RecordCodec
from tests.unit.domain.facts import transaction
from tests.unit.projections.fakes import MemorySink, MemoryTable
from tests.unit.projections.warehouse.databases import fresh_database

CATALOG = SchemaCatalog.numbered()
ARRIVED_MS = 1_800_000_000_000
Cut = tuple[RecordBatch, Position, Position]


def record_of(number: int) -> Record:
    """Transaction `number` among nine wallets, in three partitions by its source."""
    event = transaction(
        tx_id=f"ethereum:{number}:0", source_wallet_id=f"ethereum:s{number % 3}", target_wallet_id=f"ethereum:t{number % 9}",
        amount=Decimal(f"{number}.000000000000000001"),
    )  # fmt: skip
    value = RecordCodec(CATALOG).encode_event(event)
    return Record(TRANSACTION_EVENTS, number % 3, number // 3, ARRIVED_MS + number, b"k", value, (seq_header(number),))


RECORDS = [record_of(number) for number in range(90)]


def cuts(size: int, start: Position | None = None, records: Sequence[Record] = tuple(RECORDS)) -> list[Cut]:
    """The log from a position on, cut into batches of `size` records."""
    reached: dict[TopicPartition, int] = dict(start or {})
    left = [r for r in records if r.offset >= reached.get((r.topic, r.partition), 0)]
    found: list[Cut] = []
    for at in range(0, len(left), size):
        batch = RecordBatch.of(left[at : at + size])
        after = batch.next_offsets()
        found.append((batch, {tp: reached[tp] for tp in after if tp in reached}, after))
        reached.update(after)
    return found


END = {(TRANSACTION_EVENTS, partition): 30 for partition in range(3)}


class SinkContract(ABC):
    """Subclasses open sinks on one store and say how a crash comes about."""

    @pytest.fixture
    @abstractmethod
    def open_sink(self, *args: Any) -> Callable[[], Any]:
        """Opens one more writer on the same empty store."""

    @abstractmethod
    def fresh(self, sink: Any) -> Any:
        """An empty generation beside or in place of this one."""

    @abstractmethod
    def crash_before_commit(self, sink: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Make the next write die after its effects and before its commit."""

    def apply(self, sink: Any, cut: Cut) -> None:
        batch, before, after = cut
        events, rejections = decode(ColumnCodec(CATALOG, sink.reads), [batch])
        assert rejections == []
        assert not sink.screen(events)
        sink.apply(events, before, after)

    def rows(self, sink: Any) -> list[str]:
        return sorted(f"{name} {line}" for name, table in sink.read_back() for line in canonical_lines(table))

    def whole(self, sink: Any) -> list[str]:
        """What the store holds, which must be all of the log once."""
        assert sink.load_position() == END
        rows = self.rows(sink)
        assert len(set(rows)) == len(rows)
        for number in range(90):
            assert sum(f"_offset={number // 3} _partition={number % 3} " in row for row in self.facts(rows)) == 1
        return rows

    def facts(self, rows: list[str]) -> list[str]:
        return rows

    def test_the_same_batch_twice_changes_nothing(self, open_sink: Callable[[], Any]) -> None:
        sink = open_sink()
        for cut in cuts(40):
            self.apply(sink, cut)
            with suppress(StalePosition):
                self.apply(sink, cut)
        self.whole(sink)

    def test_a_crash_before_the_commit_leaves_neither_rows_nor_position(
        self, open_sink: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sink = open_sink()
        first, *rest = cuts(45)
        with monkeypatch.context() as patched:
            self.crash_before_commit(sink, patched)
            with pytest.raises(KeyboardInterrupt):
                self.apply(sink, first)
        again = open_sink()
        assert (again.load_position(), self.rows(again)) == ({}, [])
        for cut in (first, *rest):
            self.apply(again, cut)
        self.whole(again)

    def test_the_position_never_falls(self, open_sink: Callable[[], Any]) -> None:
        sink = open_sink()
        for cut in cuts(90):
            self.apply(sink, cut)
        rows = self.whole(sink)
        for late in (*cuts(30)[:2], *cuts(7, dict.fromkeys(END, 5))[:1]):
            with suppress(StalePosition):
                self.apply(open_sink(), late)
        assert self.whole(sink) == rows

    def test_of_two_writers_each_record_is_written_by_one(self, open_sink: Callable[[], Any]) -> None:
        sinks = [open_sink(), open_sink()]
        for sink in sinks:
            sink.load_position()
        failures: list[BaseException] = []

        def write(sink: Any, size: int) -> None:
            try:
                for cut in cuts(size):
                    self.apply(sink, cut)
            except StalePosition:
                pass  # the runner of a real worker stops here
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=write, args=args) for args in zip(sinks, (31, 17), strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        last = open_sink()
        for cut in cuts(90, last.load_position()):
            self.apply(last, cut)
        self.whole(last)

    def test_a_writer_that_fell_behind_cannot_write_over_the_one_that_went_on(self, open_sink: Callable[[], Any]) -> None:
        slow, fast = open_sink(), open_sink()
        slow.load_position()
        for cut in cuts(60):
            self.apply(fast, cut)
        for cut in cuts(24):
            try:
                self.apply(slow, cut)
            except StalePosition:
                break
        self.whole(open_sink())

    @pytest.mark.parametrize("size", [7, 64])
    def test_a_rebuild_in_other_cuts_equals_the_live_one(self, open_sink: Callable[[], Any], size: int) -> None:
        live = open_sink()
        for cut in cuts(20):
            self.apply(live, cut)
        rows = self.whole(live)
        rebuilt = self.fresh(live)
        for cut in cuts(size):
            self.apply(rebuilt, cut)
        assert self.whole(rebuilt) == rows


class TestMemory(SinkContract):
    """The fake that tests of the loop and of the checkpoint protocol use: it must be no better and no worse than a real store."""

    @pytest.fixture
    def open_sink(self) -> Callable[[], MemorySink]:
        table = MemoryTable()
        return lambda: MemorySink(table)

    def fresh(self, sink: MemorySink) -> MemorySink:
        return MemorySink()

    def crash_before_commit(self, sink: MemorySink, monkeypatch: pytest.MonkeyPatch) -> None:
        def die() -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(sink, "at_commit", die)


class TestArchive(SinkContract):
    _generations = count(100)

    @pytest.fixture
    def open_sink(self, s3_settings: S3Settings) -> Iterator[Callable[[], RawArchive]]:
        client = boto3.client("s3", config=Config(signature_version="s3v4"), **s3_settings.client_config())
        generation = next(self._generations)
        yield lambda: RawArchive(client, s3_settings.bucket, generation, prefix="contract")
        RawArchive(client, s3_settings.bucket, generation, prefix="contract").remove()

    def fresh(self, sink: RawArchive) -> RawArchive:
        return RawArchive(sink._s3, sink._bucket, next(self._generations), prefix="contract")

    def crash_before_commit(self, sink: RawArchive, monkeypatch: pytest.MonkeyPatch) -> None:
        def die(**arguments: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(sink._s3, "put_object", die)

    def apply(self, sink: RawArchive, cut: Cut) -> None:
        batch, before, after = cut
        sink.apply_records([batch], before, after)

    def rows(self, sink: RawArchive) -> list[str]:
        assert sink.gaps() == []
        return sorted(line for batch in sink.read() for line in canonical_lines(raw_table(batch)))


class TestCurated(SinkContract):
    @pytest.fixture
    def open_sink(self, s3_settings: S3Settings, postgres_dsn: str) -> Iterator[Callable[[], CuratedProjection]]:
        client = boto3.client("s3", config=Config(signature_version="s3v4"), **s3_settings.client_config())
        opened: list[CuratedProjection] = []
        with fresh_database(postgres_dsn) as dsn:

            def one_more(generation: int = 1) -> CuratedProjection:
                catalog = CuratedCatalog(dsn, s3_settings.iceberg_config())
                opened.append(CuratedProjection(catalog, client, s3_settings.bucket, generation))
                return opened[-1]

            self.open = one_more
            yield one_more
            for sink in opened:
                sink.remove()
                sink.close()

    def fresh(self, sink: CuratedProjection) -> CuratedProjection:
        return self.open(2)

    def crash_before_commit(self, sink: CuratedProjection, monkeypatch: pytest.MonkeyPatch) -> None:
        def die(*_: object) -> None:
            raise KeyboardInterrupt

        sink.load_position()  # the table itself is there before
        monkeypatch.setattr(sink._catalog.open(), "commit_table", die)


class TestWarehouse(SinkContract):
    @pytest.fixture
    def open_sink(self, postgres_dsn: str) -> Iterator[Callable[[], WarehouseProjection]]:
        opened: list[WarehouseProjection] = []
        with fresh_database(postgres_dsn) as dsn:

            def one_more() -> WarehouseProjection:
                opened.append(WarehouseProjection(dsn, generation=1))
                return opened[-1]

            self.dsn = dsn
            yield one_more
            for sink in opened:
                sink.close()

    def fresh(self, sink: WarehouseProjection) -> WarehouseProjection:
        return WarehouseProjection(self.dsn, generation=2)

    def crash_before_commit(self, sink: WarehouseProjection, monkeypatch: pytest.MonkeyPatch) -> None:
        dies_after(sink, "_advance", monkeypatch)

    def facts(self, rows: list[str]) -> list[str]:
        return [row for row in rows if row.startswith("fact_transaction ")]


class TestWalletGraph(SinkContract):
    @pytest.fixture
    def open_sink(self, neo4j_settings: Neo4jSettings) -> Iterator[Callable[[], WalletGraphProjection]]:
        assert neo4j_settings.password is not None
        auth = (neo4j_settings.user, neo4j_settings.password.get_secret_value())
        with neo4j.GraphDatabase.driver(neo4j_settings.uri or "", auth=auth) as driver:
            sink = WalletGraphProjection(driver, neo4j_settings.database)
            _empty(sink)
            sink.prepare()
            yield lambda: WalletGraphProjection(driver, neo4j_settings.database)
            _empty(sink)

    def fresh(self, sink: WalletGraphProjection) -> WalletGraphProjection:
        _empty(sink)
        return sink

    def crash_before_commit(self, sink: WalletGraphProjection, monkeypatch: pytest.MonkeyPatch) -> None:
        def die(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("projections.wallet_graph._place_scores", die)

    def facts(self, rows: list[str]) -> list[str]:
        return [row for row in rows if row.startswith("sent ")]


def dies_after(sink: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    done = getattr(sink, name)

    def die(*args: Any) -> None:
        done(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(sink, name, die)


def _empty(sink: WalletGraphProjection) -> None:
    with sink._driver.session(database=sink._database) as session:
        session.run("MATCH ()-[r]->() CALL (r) { DELETE r } IN TRANSACTIONS").consume()
        session.run("MATCH (n) CALL (n) { DELETE n } IN TRANSACTIONS").consume()


def test_the_cuts_of_this_suite_hold_the_whole_log() -> None:
    for size in (7, 40, 90):
        assert sum(len(batch) for batch, _, _ in cuts(size)) == 90
        assert np.unique([batch.partitions.max() for batch, _, _ in cuts(size)]).tolist() == [2]
