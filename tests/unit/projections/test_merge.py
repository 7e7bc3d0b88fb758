"""The one total order comes out of any interleaving of the partitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.log import Record
from projections import merge as merge_module
from projections.merge import MOST_HELD, SeqMerge
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


def test_many_small_pushes_that_wait_are_joined_in_order_of_arrival() -> None:
    merge = SeqMerge(0)
    for n in range(1, 400):
        assert merge.push(batch_of(of_seq(n, n % 5, n), of_seq(n, 5, 1_000 + n))) == ([], None)
        assert merge.waiting == 2 * n
    assert merge.first_waiting() == {0: 5, 1: 1, 2: 2, 3: 3, 4: 4, 5: 1_001}
    assert len(merge._held) <= MOST_HELD
    ready, strays = merge.push(batch_of(of_seq(0, 0, 0)))
    assert [seq for batch in ready for seq in batch.seqs().tolist()] == list(range(400))
    assert [offset for batch in ready for offset in batch.offsets.tolist()] == list(range(400)), "of two the one that came first"
    assert strays is not None and len(strays) == 399 and merge.waiting == 0


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 40), max_size=80), st.integers(1, 5))
def test_windows_and_joins_of_any_size_change_nothing(seqs: list[int], window: int) -> None:
    """The same records, one a push, with windows and joins as small as they may be."""
    found: list[tuple[list[int], list[int], int]] = []
    for width, held in ((merge_module.WINDOW, merge_module.MOST_HELD), (window, 2)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(merge_module, "WINDOW", width)
            patch.setattr(merge_module, "MOST_HELD", held)
            merge = SeqMerge(0)
            out: list[int] = []
            strays: list[int] = []
            for offset, seq in enumerate(seqs):
                ready, bad = merge.push(batch_of(of_seq(seq, offset=offset)))
                out += [int(o) for batch in ready for o in batch.offsets]
                strays += [int(o) for o in bad.offsets] if bad is not None else []
            found.append((out, sorted(strays), merge.waiting))
    assert found[0] == found[1]
