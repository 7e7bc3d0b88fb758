"""How far a source reaches, and what is a hole in it: from archives of hand-made objects."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from domain.log import Record
from infra.batch_sources import ArchiveSource, SourceIncomplete, Survey
from projections.records import RecordBatch, seq_header
from schema_registry.catalog import SchemaCatalog
from schema_registry.contracts import TRANSACTION_EVENTS
from tests.unit.projections.fakes import batch_of

START = datetime(2026, 1, 1, tzinfo=UTC)


def survey(*objects: list[int | None], partitions: int = 2, times: tuple[datetime, ...] = ()) -> Survey:
    """Of an archive of these objects, each with its seqs; every second one is of partition 1, and each record came a minute after its
    number."""

    def batches(*_: Any) -> Iterator[RecordBatch]:
        for number, seqs in enumerate(objects):
            at = [round((START + timedelta(minutes=seq or 0)).timestamp() * 1000) for seq in seqs]
            headers = [() if seq is None else (seq_header(seq),) for seq in seqs]
            records = zip(at, headers, strict=True)
            yield batch_of(*(Record(TRANSACTION_EVENTS, number % 2, i, when, None, b"", given) for i, (when, given) in enumerate(records)))

    archive: Any = SimpleNamespace(objects=lambda topics: {}, end_of=lambda thing: 0, read_between=batches)
    return ArchiveSource(archive, 1, SchemaCatalog.numbered()).survey(times, partitions, lambda done: None)


def test_a_whole_archive_ends_behind_its_last_seq() -> None:
    assert survey([0, 2, 3], [1, 4, 5], [6]).end == 7
    assert survey([3, 4], [0, 1, 2]).end == 5, "whatever comes first"
    assert survey().end == 0
    assert survey([0, None, 1], [2, 2, 3]).end == 4, "records without a place, and one twice"


def test_what_one_partition_has_not_brought_yet_is_waited_for() -> None:
    found = survey([0, 1, 2, 5, 6], [3])
    assert (found.end, found.waiting) == (4, 2)
    assert survey([0, 1, 3], partitions=2).end == 2, "a partition of which nothing is there may have it"


def test_a_seq_that_every_partition_has_passed_is_a_hole() -> None:
    with pytest.raises(
        SourceIncomplete, match=r"the archive has no transaction with seq 2, and later ones of every partition.*--from wareh"
    ):
        survey([0, 1, 4], [3, 5])


def test_a_time_is_the_first_seq_that_came_then_or_later() -> None:
    times = (START, START + timedelta(minutes=2, seconds=1), START + timedelta(days=1))
    assert survey([0, 2, 3], [1, 4], times=times).since == (0, 3, 5)
