"""Records in columns: nothing is lost on the way in or out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from domain.log import Record
from projections.records import NO_SEQ, HeaderColumn, HeaderPairs, RecordBatch, by_topic, seq_header
from schema_registry.byte_column import ByteColumn
from tests.unit.projections.fakes import T, W, batch_of, in_columns, record

FOUR = [record(0, 5), record(3, partition=1), record(1, 6), record(9, partition=1)]


def test_a_record_comes_out_as_it_went_in() -> None:
    odd = Record(T, 2, 7, 99, None, None, (("a", None), ("seq", b"short")))
    batch = batch_of(*FOUR, odd)
    assert [batch.record(i) for i in range(len(batch))] == [*FOUR, odd]


def test_positions_are_those_of_each_partition() -> None:
    batch = batch_of(*FOUR)
    assert batch.first_offsets() == {(T, 0): 0, (T, 1): 3}
    assert batch.next_offsets() == {(T, 0): 2, (T, 1): 10}


@pytest.mark.parametrize("shape", [lambda batch: batch, in_columns], ids=["lists", "columns"])
def test_rows_are_taken_and_joined_in_the_order_asked_for(shape: Callable[[RecordBatch], RecordBatch]) -> None:
    odd = Record(T, 2, 7, 99, None, None, (("a", None), ("seq", b"short"), ("b", b"")))
    bare = Record(T, 2, 8, 99, b"", b"")
    kept = [*FOUR, odd, bare]
    for places in ([3, 0], [4, 5, 4], [1, 2, 3, 4], [5], []):
        taken = shape(batch_of(*kept)).take(np.array(places, np.int64))
        assert records_in(taken) == [kept[i] for i in places]
        for other in (taken, batch_of(odd), shape(batch_of(bare, FOUR[0])).take(np.array([1]))):
            assert records_in(RecordBatch.concat([taken, other])) == records_in(taken) + records_in(other)


def records_in(batch: RecordBatch) -> list[Record]:
    return [batch.record(i) for i in range(len(batch))]


def test_headers_in_columns_show_what_a_list_would() -> None:
    shown: list[HeaderPairs | None] = [[("a", None), ("seq", b"1")], None, [("\u00e9", b"")], [("seq", bytes(8))]]
    column = in_columns(batch_of(*(Record(T, 0, i, 0, None, b"", tuple(pairs or ())) for i, pairs in enumerate(shown)))).headers
    assert isinstance(column, HeaderColumn)
    assert list(column) == shown == [column[i] for i in range(4)] == [column[i - 4] for i in range(4)]
    assert [list(column[1:]), list(column[::-2]), list(column[4:])] == [shown[1:], shown[::-2], []]
    with pytest.raises(IndexError, match="row 4 of 4"):
        column[4]


def test_a_header_name_that_is_no_text_is_shown_with_a_mark() -> None:
    column = HeaderColumn(np.array([0, 1]), ByteColumn.of([b"a\xff"]), ByteColumn.of([b"1"]))
    assert list(column) == [[("a\ufffd", b"1")]]


@pytest.mark.parametrize(
    ("headers", "seq"),
    [
        ((seq_header(0),), 0),
        ((("other", b"x"), seq_header(2**40)), 2**40),
        ((), NO_SEQ),
        ((("seq", None),), NO_SEQ),
        ((("seq", b"1234567"),), NO_SEQ),
    ],
    ids=["zero", "beside-another", "none", "null", "seven-bytes"],
)
def test_a_seq_is_eight_bytes_in_its_header_or_there_is_none(headers: tuple[tuple[str, bytes | None], ...], seq: int) -> None:
    batch = batch_of(Record(T, 0, 0, 0, None, b"", headers))
    assert batch.seqs().tolist() == in_columns(batch).seqs().tolist() == [seq]


def test_seqs_are_the_same_whatever_stands_beside_them_in_the_batch() -> None:
    odd: list[tuple[tuple[str, bytes | None], ...]] = [(), (("other", b"x"), seq_header(7)), (("seq", None),), (("seq", b"123456789"),)]
    plain = [Record(T, 0, i, 0, None, b"", (seq_header(i * 2**33),)) for i in range(5)]
    assert batch_of(*plain).seqs().tolist() == [i * 2**33 for i in range(5)]
    for headers, seq in zip(odd, [NO_SEQ, 7, NO_SEQ, NO_SEQ], strict=True):
        batch = batch_of(*plain, Record(T, 0, 5, 0, None, b"", headers))
        assert batch.seqs().tolist() == in_columns(batch).seqs().tolist() == [*(i * 2**33 for i in range(5)), seq]
        cut = in_columns(batch).take(np.arange(1, 5))
        assert cut.seqs().tolist() == cut.headers[:].seqs().tolist() == [i * 2**33 for i in range(1, 5)]


def test_of_several_seqs_the_first_counts() -> None:
    batch = batch_of(Record(T, 0, 0, 0, None, b"", (("seq", b"short"), seq_header(4), seq_header(5))), record(1, 9))
    assert in_columns(batch).seqs().tolist() == batch.seqs().tolist() == [4, 9]


def test_headers_that_the_client_leaves_out_are_none() -> None:
    batch = RecordBatch(T, np.zeros(1, np.int32), np.zeros(1, np.int64), np.zeros(1, np.int64), [None], [b""], [None])
    assert batch.seqs().tolist() == [NO_SEQ]
    assert batch.record(0).headers == ()


def test_polls_of_one_topic_become_one_batch_in_order_of_arrival() -> None:
    wallet = record(0, topic=W)
    merged = by_topic([batch_of(FOUR[0]), batch_of(wallet), batch_of(FOUR[2])])
    assert [(batch.topic, batch.offsets.tolist()) for batch in merged] == [(T, [0, 1]), (W, [0])]
