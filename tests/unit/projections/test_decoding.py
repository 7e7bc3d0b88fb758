"""From records to event tables, each row with its place in the log."""

from __future__ import annotations

from projections.decoding import decode, drop
from projections.protocol import COORDINATES, EventBatch, Rejection
from schema_registry.column_codec import ColumnCodec
from tests.unit.domain.facts import AT
from tests.unit.projections.fakes import CATALOG, CODEC, T, W, batch_of, record

READS = ColumnCodec(CATALOG, {"TransactionRecorded": ("tx_id",), "WalletLabelled": ()})
LABEL = CODEC.encode("WalletLabelled", {"wallet_id": "a:b", "label": "licit", "source": "s", "known_at": AT})
FROZEN = CODEC.encode("WalletFrozen", {"wallet_id": "a:b", "reason": "r", "actor": "ann", "known_at": AT})


def test_rows_carry_their_coordinates() -> None:
    events, rejections = decode(READS, [batch_of(record(4, 40, partition=2), record(7, partition=1))])
    assert rejections == []
    assert events.tables["TransactionRecorded"].select(["tx_id", *COORDINATES]).to_pylist() == [
        {"tx_id": "ethereum:40:0", "_topic": T, "_partition": 2, "_offset": 4, "_seq": 40, "_timestamp_ms": 1004},
        {"tx_id": "ethereum:7:0", "_topic": T, "_partition": 1, "_offset": 7, "_seq": -1, "_timestamp_ms": 1007},
    ]


def test_what_is_no_event_is_rejected_by_its_place_and_the_rest_goes_on() -> None:
    batches = [
        batch_of(record(0), record(1, value=b"noise"), record(2)),
        batch_of(record(5, topic=W, value=LABEL), record(6, topic=W, value=FROZEN), record(7, topic=W, value=LABEL + b"!")),
    ]
    events, rejections = decode(READS, batches)
    assert [(r.topic, r.partition, r.offset, r.reason) for r in rejections] == [
        (T, 0, 1, "not_framed"),
        (W, 0, 7, "trailing_bytes"),
    ]
    assert {name: table["_offset"].to_pylist() for name, table in events.tables.items()} == {
        "TransactionRecorded": [0, 2],
        "WalletLabelled": [5],
    }
    assert events.rows == 3


def test_rejected_rows_are_dropped_by_topic_partition_and_offset() -> None:
    events, _ = decode(READS, [batch_of(record(0), record(0, partition=1)), batch_of(record(0, topic=W, value=LABEL))])
    left = drop(events, [Rejection(T, 1, 0, "r", "m")])
    assert left.tables["TransactionRecorded"]["_partition"].to_pylist() == [0]
    assert left.tables["WalletLabelled"].num_rows == 1
    assert drop(events, []) is events
    assert drop(EventBatch({}), [Rejection(T, 0, 0, "r", "m")]).rows == 0
