"""The curated table on a real catalog and object store: the fence of two writers, upkeep, evolution, and what other engines leave."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from datetime import date
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.expressions import EqualTo
from sqlalchemy.exc import OperationalError

from domain.log import Record
from infra.settings import S3Settings
from projections.curated import CuratedProjection, Upkeep
from projections.curated.table import POSITION
from projections.decoding import decode
from projections.errors import StalePosition, StoreDisagrees, StoreUnavailable
from projections.protocol import EventBatch, Excluded
from projections.quarantine import QuarantineLog
from projections.records import RecordBatch
from projections.work import SinkWork
from schema_registry.catalog import SchemaCatalog
from schema_registry.column_codec import ColumnCodec
from schema_registry.contracts import TRANSACTION_EVENTS, Contract, contracts
from schema_registry.record_codec import RecordCodec
from tests.contracts.test_sink import CATALOG, RECORDS, cuts
from tests.integration.projections.curated_table import OwnTable, lines, own_table, write

P0 = [record for record in RECORDS if record.partition == 0]
P1 = [record for record in RECORDS if record.partition == 1]
NOW = Upkeep(every_commits=1_000_000, min_files=3, snapshot_age_s=0.0, min_snapshots=1)
"""Upkeep that waits for nothing but the age of orphans."""


@pytest.fixture
def own(postgres_dsn: str, s3_settings: S3Settings) -> Iterator[OwnTable]:
    with own_table(postgres_dsn, s3_settings) as found:
        yield found


def before_the_next_commit(sink: CuratedProjection, monkeypatch: pytest.MonkeyPatch, happens: Callable[[], Any]) -> None:
    """Let something happen after a writer has written its files and before it commits."""
    catalog = sink._catalog.open()
    commit = catalog.commit_table

    def late(*args: Any) -> Any:
        monkeypatch.setattr(catalog, "commit_table", commit)
        happens()
        return commit(*args)

    monkeypatch.setattr(catalog, "commit_table", late)


def test_a_writer_overtaken_between_its_check_and_its_commit_adds_nothing(own: OwnTable, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, fast = own.writer(), own.writer()
    slow.load_position()
    before_the_next_commit(slow, monkeypatch, lambda: write(fast, CATALOG, P0[:20]))
    with pytest.raises(StalePosition, match="a second worker has written"):
        write(slow, CATALOG, P0[:10])
    assert slow.load_position() == {(TRANSACTION_EVENTS, 0): 20}
    assert len(lines(slow)) == 20


def test_workers_of_different_partitions_overtake_each_other_without_loss(own: OwnTable, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = own.writer(), own.writer()
    one.load_position()
    before_the_next_commit(one, monkeypatch, lambda: write(other, CATALOG, P1))
    write(one, CATALOG, P0)
    assert own.writer().load_position() == {(TRANSACTION_EVENTS, 0): 30, (TRANSACTION_EVENTS, 1): 30}
    assert len(set(lines(one))) == len(lines(one)) == 60


def test_upkeep_by_another_process_does_not_stop_a_writer(own: OwnTable, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = own.writer()
    at = None
    for start in range(0, 20, 5):
        at = write(writer, CATALOG, P0[start : start + 5], at)
    before_the_next_commit(writer, monkeypatch, own.writer(NOW).refresh)
    write(writer, CATALOG, P0[20:], at)
    assert len(set(lines(writer))) == len(lines(writer)) == 30
    assert writer.load_position() == {(TRANSACTION_EVENTS, 0): 30}


def test_a_lost_answer_to_a_commit_neither_loses_nor_doubles(own: OwnTable, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = own.writer()
    work = SinkWork(sink, CATALOG, _NoQuarantine())
    work.load_position()
    catalog = sink._catalog.open()
    commit = catalog.commit_table

    def answer_lost(*args: Any) -> None:
        commit(*args)
        monkeypatch.setattr(catalog, "commit_table", commit)
        raise OperationalError("COMMIT", {}, Exception("server closed the connection"))

    monkeypatch.setattr(catalog, "commit_table", answer_lost)
    for batch, before, after in cuts(45):
        assert work.process([batch], [], before, after).records == 45
    assert len(set(lines(sink))) == len(lines(sink)) == 90


class _NoQuarantine(QuarantineLog):
    def append(self, records: Any) -> None:
        raise AssertionError(f"nothing is bad here, found {records}")


def test_a_batch_without_transactions_moves_the_position_alone(own: OwnTable) -> None:
    sink = own.writer()
    sink.apply(EventBatch({}), {}, {(TRANSACTION_EVENTS, 2): 4})
    assert own.writer().load_position() == {(TRANSACTION_EVENTS, 2): 4}
    assert lines(sink) == []


def test_rows_carry_their_place_in_the_log_and_lie_in_the_day_they_happened(own: OwnTable) -> None:
    sink = own.writer()
    write(sink, CATALOG, P1)
    row = own.table().scan(EqualTo("log_offset", 3)).to_arrow().to_pylist()[0]
    record = P1[3]
    assert (row["log_topic"], row["log_partition"], row["log_offset"], row["seq"]) == (TRANSACTION_EVENTS, 1, 3, 10)
    assert row["ingested_at"].timestamp() * 1_000 == record.timestamp_ms
    (task,) = own.table().scan().plan_files()
    assert task.file.partition[0] == (row["occurred_at"].date() - date(1970, 1, 1)).days


def test_a_transaction_of_a_year_that_no_calendar_has_is_set_aside(own: OwnTable) -> None:
    sink = own.writer()
    events, _ = decode(ColumnCodec(CATALOG, sink.reads), [RecordBatch.of(P0[:2])])
    table = events.tables["TransactionRecorded"]
    assert sink.screen(events) == []
    times = pa.array([253_402_300_799_999_999, 253_402_300_800_000_000]).cast(table["occurred_at"].type)
    events = EventBatch({"TransactionRecorded": table.set_column(table.column_names.index("occurred_at"), "occurred_at", times)})
    (rejection,) = sink.screen(events)
    assert (rejection.partition, rejection.offset, rejection.reason) == (0, 1, "time_out_of_range")


def test_upkeep_merges_small_files_expires_snapshots_and_really_deletes_what_they_named(own: OwnTable) -> None:
    sink = own.writer(NOW)
    at = None
    for start in range(0, 30, 5):
        at = write(sink, CATALOG, P0[start : start + 5], at)
    rows, position, files = lines(sink), sink.load_position(), own.objects()
    assert own.data_files() == 6
    sink.refresh()
    assert own.data_files() == 1
    assert (lines(sink), own.writer().load_position()) == (rows, position)
    assert len(own.table().metadata.snapshots) == 1
    assert own.objects() == own.needed()
    assert len(files - own.objects()) >= 6 + 6  # the small files and the lists of the snapshots that are gone
    write(sink, CATALOG, P1, at)
    assert len(lines(sink)) == 60


def test_snapshots_within_their_age_stay_readable(own: OwnTable) -> None:
    sink = own.writer(replace(NOW, snapshot_age_s=3_600.0))
    at = None
    for start in range(0, 30, 5):
        at = write(sink, CATALOG, P0[start : start + 5], at)
    sink.refresh()
    table = own.table()
    counts = [table.scan(snapshot_id=snapshot.snapshot_id).to_arrow().num_rows for snapshot in table.metadata.snapshots]
    assert counts == [5, 10, 15, 20, 25, 30, 30]


def test_files_of_commits_that_died_go_once_they_are_old_and_not_before(own: OwnTable, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = own.writer(NOW)
    at = write(sink, CATALOG, P0)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sink._catalog.open(), "commit_table", die)
        with pytest.raises(KeyboardInterrupt):
            write(sink, CATALOG, P1, at)
    left = own.objects() - own.needed()
    assert any("/data/" in key for key in left)
    sink.refresh()
    assert own.objects() - own.needed() == left
    own.writer(replace(NOW, orphan_age_s=-1.0)).refresh()
    assert own.objects() == own.needed()
    assert len(lines(sink)) == 30


def test_a_worker_keeps_the_table_in_order_by_itself(own: OwnTable) -> None:
    sink = own.writer(replace(NOW, every_commits=4))
    at = None
    for start in range(0, 30, 3):
        at = write(sink, CATALOG, P0[start : start + 3], at)
    assert own.data_files() < 5
    assert len(set(lines(sink))) == len(lines(sink)) == 30


def test_a_worker_goes_on_when_upkeep_fails(own: OwnTable, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = own.writer(replace(NOW, every_commits=1))

    def down(*_: object) -> None:
        raise StoreUnavailable("S3: out")

    monkeypatch.setattr("projections.curated.sink.maintain", down)
    at = write(sink, CATALOG, P0[:10])
    write(sink, CATALOG, P0[10:], at)
    assert len(lines(sink)) == 30


def test_a_field_that_the_contract_gains_becomes_an_optional_column(own: OwnTable, monkeypatch: pytest.MonkeyPatch) -> None:
    old = own.writer()
    at = write(old, CATALOG, P0[:10])
    first = contracts()["TransactionRecorded"]
    second = deepcopy(first.latest)
    second["fields"].append({"name": "memo", "type": ["null", "string"], "default": None, "doc": "Words of the sender.", "pii": "none"})
    with monkeypatch.context() as patch:
        patch.setitem(contracts(), "TransactionRecorded", Contract("TransactionRecorded", (first.latest, second)))  # type: ignore[arg-type]
        catalog = SchemaCatalog.numbered()
        codec = RecordCodec(catalog)
        new = own.writer()
        assert new.load_position() == at
        written = [replace(r, value=codec.encode("TransactionRecorded", {**_value(r), "memo": "rent"})) for r in P0[10:20]]
        at = write(new, catalog, written, at)
        found = [row["memo"] for row in own.table().scan().to_arrow().sort_by("log_offset").to_pylist()]
        assert found == [None] * 10 + ["rent"] * 10
        expected = sum(table.num_rows for _, table in new.expected(iter([]), Excluded()))
        assert (expected, len(lines(new))) == (0, 20)
        assert sum('memo="rent"' in line for line in lines(new)) == 10
    # Code that does not know the field yet goes on beside it.
    at = write(old, CATALOG, P0[20:], at)
    assert len(lines(old)) == 30
    field = own.table().schema().find_field("memo")
    assert (field.required, field.doc) == (False, "Words of the sender.")


def _value(record: Record) -> dict[str, Any]:
    return RecordCodec(CATALOG).decode(record.value)[1]


def test_a_snapshot_of_another_engine_leaves_the_position_where_it_was(own: OwnTable) -> None:
    sink = own.writer()
    at = write(sink, CATALOG, P0[:10])
    table = own.table()
    table.overwrite(table.scan().to_arrow())
    assert POSITION not in table.current_snapshot().summary.additional_properties  # type: ignore[union-attr]
    assert sink.load_position() == at
    write(sink, CATALOG, P0[10:], at)
    assert json.loads(own.table().current_snapshot().summary.additional_properties[POSITION]) == {  # type: ignore[union-attr]
        f"{TRANSACTION_EVENTS}/0": 30
    }
    assert len(lines(sink)) == 30


def test_a_table_whose_snapshots_say_no_position_is_refused_instead_of_filled_again(own: OwnTable) -> None:
    sink = own.writer()
    write(sink, CATALOG, P0)
    table = own.table()
    table.overwrite(table.scan().to_arrow())
    others = [s.snapshot_id for s in table.metadata.snapshots if POSITION in s.summary.additional_properties]  # type: ignore[union-attr]
    table.maintenance.expire_snapshots().by_ids(others).commit()
    with pytest.raises(StoreDisagrees, match="tidemark rebuild curated"):
        sink.load_position()


def test_a_data_file_deleted_from_s3_is_named(own: OwnTable) -> None:
    sink = own.writer()
    write(sink, CATALOG, P0)
    (key,) = [key for key in own.objects() if "/data/" in key]
    own.s3.delete_object(Bucket=own.settings.bucket, Key=key)
    with pytest.raises(StoreDisagrees, match=key.rsplit("/", 1)[1]):
        lines(sink)


def test_a_catalog_that_is_down_is_named_and_the_writer_goes_on_afterwards(own: OwnTable, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = own.writer()
    at = write(sink, CATALOG, P0[:10])
    catalog = sink._catalog.open()

    def down(*_: object) -> None:
        raise OperationalError("SELECT", {}, Exception("connection refused"))

    with monkeypatch.context() as patch:
        patch.setattr(catalog, "load_table", down)
        with pytest.raises(StoreUnavailable, match="the catalog did not answer"):
            write(sink, CATALOG, P0[10:], at)
    write(sink, CATALOG, P0[10:], at)
    assert len(lines(sink)) == 30


def test_a_table_that_is_removed_leaves_nothing_in_s3(own: OwnTable) -> None:
    sink = own.writer()
    write(sink, CATALOG, P0)
    keys = own.objects()
    assert sink.remove() == len(keys)
    listed = own.s3.list_objects_v2(Bucket=own.settings.bucket, Prefix=next(iter(keys)).split("/data/")[0].split("/metadata/")[0])
    assert [item["Key"] for item in listed.get("Contents", ()) if not item["Key"].endswith("/")] == []
    assert not sink.exists()
    assert sink.remove() == 0
