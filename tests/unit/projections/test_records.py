"""Records in columns: nothing is lost on the way in or out."""

from __future__ import annotations

import numpy as np
import pytest

from domain.log import Record
from projections.records import NO_SEQ, RecordBatch, by_topic, seq_header
from tests.unit.projections.fakes import T, W, batch_of, record

FOUR = [record(0, 5), record(3, partition=1), record(1, 6), record(9, partition=1)]


def test_a_record_comes_out_as_it_went_in() -> None:
    odd = Record(T, 2, 7, 99, None, None, (("a", None), ("seq", b"short")))
    batch = batch_of(*FOUR, odd)
    assert [batch.record(i) for i in range(len(batch))] == [*FOUR, odd]


def test_positions_are_those_of_each_partition() -> None:
    batch = batch_of(*FOUR)
    assert batch.first_offsets() == {(T, 0): 0, (T, 1): 3}
    assert batch.next_offsets() == {(T, 0): 2, (T, 1): 10}


def test_rows_are_taken_in_the_order_asked_for() -> None:
    taken = batch_of(*FOUR).take(np.array([3, 0]))
    assert [taken.record(i) for i in range(2)] == [FOUR[3], FOUR[0]]


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
    assert batch.seqs().tolist() == [seq]


def test_seqs_are_the_same_whatever_stands_beside_them_in_the_batch() -> None:
    odd: list[tuple[tuple[str, bytes | None], ...]] = [(), (("other", b"x"), seq_header(7)), (("seq", None),), (("seq", b"123456789"),)]
    plain = [Record(T, 0, i, 0, None, b"", (seq_header(i * 2**33),)) for i in range(5)]
    assert batch_of(*plain).seqs().tolist() == [i * 2**33 for i in range(5)]
    for headers, seq in zip(odd, [NO_SEQ, 7, NO_SEQ, NO_SEQ], strict=True):
        assert batch_of(*plain, Record(T, 0, 5, 0, None, b"", headers)).seqs().tolist() == [*(i * 2**33 for i in range(5)), seq]


def test_headers_that_the_client_leaves_out_are_none() -> None:
    batch = RecordBatch(T, np.zeros(1, np.int32), np.zeros(1, np.int64), np.zeros(1, np.int64), [None], [b""], [None])
    assert batch.seqs().tolist() == [NO_SEQ]
    assert batch.record(0).headers == ()


def test_polls_of_one_topic_become_one_batch_in_order_of_arrival() -> None:
    wallet = record(0, topic=W)
    merged = by_topic([batch_of(FOUR[0]), batch_of(wallet), batch_of(FOUR[2])])
    assert [(batch.topic, batch.offsets.tolist()) for batch in merged] == [(T, [0, 1]), (W, [0])]
