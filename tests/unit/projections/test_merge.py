"""The one total order comes out of any interleaving of the partitions."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.log import Record
from projections.merge import SeqMerge
from projections.records import RecordBatch, seq_header
from tests.unit.projections.fakes import T, batch_of


def of_seq(seq: int | None, partition: int = 0, offset: int = 0) -> Record:
    return Record(T, partition, offset, 0, None, b"", () if seq is None else (seq_header(seq),))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 5), max_size=60), st.integers(0, 100), st.randoms(use_true_random=False))
def test_any_interleaving_of_partitions_gives_the_order(partitions: list[int], first: int, random: object) -> None:
    queues: dict[int, list[Record]] = {}
    for i, partition in enumerate(partitions):
        queue = queues.setdefault(partition, [])
        queue.append(of_seq(first + i, partition, len(queue)))
    merge = SeqMerge(first)
    seen: list[int] = []
    while queues:
        polled: list[Record] = []
        for partition in random.sample(sorted(queues), random.randint(1, len(queues))):  # type: ignore[attr-defined]
            count = random.randint(1, len(queues[partition]))  # type: ignore[attr-defined]
            polled += queues[partition][:count]
            queues[partition] = queues[partition][count:]
            if not queues[partition]:
                del queues[partition]
        ready, strays = merge.push(batch_of(*polled))
        assert strays is None
        seen += [seq for batch in ready for seq in batch.seqs().tolist()]
        assert seen == list(range(first, first + len(seen)))
    assert seen == list(range(first, first + len(partitions)))
    assert merge.waiting == 0


def test_a_later_record_waits_for_the_one_before() -> None:
    merge = SeqMerge(0)
    assert merge.push(batch_of(of_seq(1), of_seq(2))) == ([], None)
    assert (merge.waiting, merge.next_seq) == (2, 0)
    (ready,), strays = merge.push(batch_of(of_seq(0, 1)))
    assert (ready.seqs().tolist(), ready.partitions.tolist(), strays) == ([0, 1, 2], [1, 0, 0], None)
    assert (merge.waiting, merge.next_seq) == (0, 3)


def test_what_has_no_place_in_the_order_is_a_stray() -> None:
    merge = SeqMerge(5)
    (ready,), strays = merge.push(batch_of(of_seq(None, offset=0), of_seq(5, offset=1), of_seq(4, offset=2), of_seq(-7, offset=3)))
    assert ready.offsets.tolist() == [1]
    assert strays is not None
    assert strays.offsets.tolist() == [0, 2, 3]


def test_a_seq_that_comes_twice_is_let_through_once_whether_waiting_or_gone() -> None:
    merge = SeqMerge(0)
    merge.push(batch_of(of_seq(1, offset=0), of_seq(1, offset=1)))
    (ready,), strays = merge.push(batch_of(of_seq(0, offset=2), of_seq(0, offset=3)))
    assert ready.offsets.tolist() == [2, 0]
    assert strays is not None
    assert sorted(strays.offsets.tolist()) == [1, 3]
    assert merge.push(batch_of(of_seq(1, offset=9)))[1] is not None
    assert merge.next_seq == 2


@settings(max_examples=200, deadline=None)
@given(st.lists(st.none() | st.integers(-2, 12), max_size=30), st.integers(0, 30))
def test_nothing_is_lost_and_nothing_is_let_through_twice(seqs: list[int | None], cut: int) -> None:
    records = [of_seq(seq, offset=i) for i, seq in enumerate(seqs)]
    merge = SeqMerge(0)
    out: list[RecordBatch] = []
    strays: list[RecordBatch] = []
    for part in (records[:cut], records[cut:]):
        if part:
            ready, bad = merge.push(batch_of(*part))
            out += ready
            strays += [bad] if bad is not None else []
    ordered = [seq for batch in out for seq in batch.seqs().tolist()]
    assert ordered == list(range(merge.next_seq))
    assert len(ordered) + sum(map(len, strays)) + merge.waiting == len(records)
    assert len({int(o) for batch in [*out, *strays] for o in np.asarray(batch.offsets)}) == sum(map(len, [*out, *strays]))
