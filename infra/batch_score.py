"""Scoring a batch outside of the log: transactions from the warehouse or from S3, a trained package's own code, scores to S3 and a table.

Features, network and head are those of the live scorer, fed in order of seq and restated where the log says so; neither its endpoint nor
Kafka's own transactions are asked for. The run's id names its inputs: the same command again finds what is there and does what is left.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa

from domain.errors import InvalidValue
from graph.restatement import Restatement
from infra.batch_results import Part, ResultFolder
from infra.batch_sources import Survey, TransactionSource, transaction_source
from infra.composition import NO_MODEL, Composition, NotReady
from infra.restated_history import counted_from, restated_history
from infra.restatements import restatements
from ml.rescorer import Rescorer
from projections.warehouse.batch_score import ROWS, BatchRun, BatchScores, PostgresBatchScores, RedshiftBatchScores
from schema_registry.contracts import TRANSACTION_EVENTS

BATCH = 2_000  # transactions scored between two looks at `stopped`: about a second
PART_ROWS = 50_000  # transactions in one object: about 4 MB, and what a crash costs at most, some twenty seconds
FORMAT = 1  # of what a run's id stands for

Progress = Callable[[str, int, int], None]
"""Told a stage in words, transactions done and transactions in all (0 where that is not known)."""
Bound = int | datetime
"""A seq, or the time at which Kafka took transactions in."""


@dataclass(slots=True)
class BatchResult:
    """What was done for [`from_seq`, `until_seq`): `scored` in all, `added` of them now, `unreadable` where no record could be decoded.

    `waiting` counts transactions of the source that were left out, for one before them has not come yet. `is_loaded` says whether the
    table has the run, `is_new` whether this call put it there.
    """

    run_id: str
    model_version: str
    source: str
    from_seq: int
    until_seq: int
    waiting: int
    manifest_uri: str
    scored: int = 0
    added: int = 0
    unreadable: int = 0
    replayed: int = 0
    is_loaded: bool = False
    is_new: bool = False
    is_stopped: bool = False
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """The result as plain values."""
        return {**asdict(self), "seconds": round(self.seconds, 2)}


@dataclass(frozen=True, slots=True)
class _Job:
    """A run that is not finished: what it reads, and the parts that it is to have."""

    source: TransactionSource
    rescorer: Rescorer
    left_out: list[Restatement]
    folder: ResultFolder
    bounds: list[tuple[int, int]]


def batch_score(
    composition: Composition,
    kind: str,
    *,
    model_version: str | None = None,
    since: Bound = 0,
    until: Bound | None = None,
    loads: bool = True,
    progress: Progress = lambda stage, done, total: None,
    stopped: Callable[[], bool] = lambda: False,
) -> BatchResult:
    """Score the transactions of a source from `since` up to `until`, each with the features that the scorer has as of it.

    Args:
        kind: one of `batch_sources.SOURCES`.
        model_version: by default the one deployed.
        until: at most, and by default, the end of what the source has without a gap.
        loads: whether the warehouse's table gets the rows too.
        stopped: asked between two batches.

    Raises:
        NotReady: no such model was trained, or its package is gone.
        PackageError: the package is not what the log says, or is of another feature set.
        InvalidValue: the range is empty.
        SourceIncomplete: a transaction is missing in the source.
        StoreDisagrees: an object cannot be read, or is not the one that was put.
        StoreUnavailable: warehouse or S3 does not answer. What is done is kept.
    """
    started = time.monotonic()
    version = model_version or _deployed(composition)
    package, sha256 = composition.trained_package(version)
    rescorer = Rescorer(composition.clients.catalog, package, sha256)
    source = transaction_source(composition, kind)
    survey = _survey(composition, source, since, until, progress)
    from_seq, until_seq = _range(survey, since, until)
    left_out = restatements(composition.log, until_seq - 1)  # one that begins behind the last changes nothing of it
    inputs = _inputs(version, sha256, source.kind, from_seq, until_seq, left_out)
    run_id = _run_id(inputs)
    folder = ResultFolder(composition.clients.s3, composition.settings.s3.bucket, run_id)
    result = BatchResult(run_id, version, source.kind, from_seq, until_seq, survey.waiting, folder.manifest_uri)
    manifest = folder.manifest()
    if manifest is None:
        bounds = [(at, min(at + PART_ROWS, until_seq)) for at in range(from_seq, until_seq, PART_ROWS)]
        parts = _scored_parts(_Job(source, rescorer, left_out, folder, bounds), result, progress, stopped)
        if result.is_stopped:
            result.seconds = time.monotonic() - started
            return result
        position = {f"{topic}/{partition}": offset for (topic, partition), offset in sorted(survey.position.items())}
        facts = {"run_id": run_id, **inputs, "generation": source.generation, "position": position}
        manifest = folder.put_manifest(facts, parts)
    result.scored = int(manifest.facts["scored"])
    result.unreadable = until_seq - from_seq - result.scored
    if loads:
        batch_run = BatchRun(run_id, version, source.kind, from_seq, until_seq, result.scored, folder.manifest_uri, manifest.sha256)
        pieces = _told(folder.rows(manifest), result.scored, progress)
        result.is_new = _store(composition).load(batch_run, pieces, folder.copy_manifest_uri)
        result.is_loaded = True
    result.seconds = time.monotonic() - started
    return result


def _deployed(composition: Composition) -> str:
    deployed = composition.log.deployed()
    if deployed is None:
        raise NotReady(f"{NO_MODEL}; or name a trained one with --model")
    return deployed.model_version


def _survey(composition: Composition, source: TransactionSource, since: Bound, until: Bound | None, progress: Progress) -> Survey:
    times = [at for at in (since, until) if isinstance(at, datetime)]
    partitions = len(composition.partitions.of([TRANSACTION_EVENTS]))
    return source.survey(times, partitions, lambda done: progress(f"looking at what the {source.kind} has", done, 0))


def _range(survey: Survey, since: Bound, until: Bound | None) -> tuple[int, int]:
    found = iter(survey.since)
    from_seq = next(found) if isinstance(since, datetime) else since
    if until is None:
        until_seq = survey.end
    else:
        until_seq = min(survey.end, next(found) if isinstance(until, datetime) else until)
    if not 0 <= from_seq < until_seq:
        raise InvalidValue("since", f"expected a seq before {until_seq}, where the range ends at the latest, found {from_seq}")
    return from_seq, until_seq


def _inputs(version: str, sha256: str, kind: str, from_seq: int, until_seq: int, left_out: list[Restatement]) -> dict[str, Any]:
    """All that the scores depend on."""
    voids = [[one.from_seq, sorted(one.void_up_to.items())] for one in left_out]
    return {
        "model_version": version, "package_sha256": sha256, "source": kind, "from_seq": from_seq, "until_seq": until_seq,
        "part_rows": PART_ROWS, "restated_from": [one.from_seq for one in left_out], "left_out_sha256": _digest(voids),
    }  # fmt: skip


def _run_id(inputs: dict[str, Any]) -> str:
    return f"b-{_digest([FORMAT, inputs])[:16]}"


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _scored_parts(job: _Job, result: BatchResult, progress: Progress, stopped: Callable[[], bool]) -> list[Part]:
    """Every part of the run: those that are there already, and those that are missing, scored now."""
    there = {first: part for first, _ in job.bounds if (part := job.folder.part(first)) is not None}
    missing = [(first, end) for first, end in job.bounds if first not in there]
    if not missing:
        return [there[first] for first, _ in job.bounds]
    total = sum(end - first for first, end in missing)
    first, last = missing[0][0], missing[-1][1]
    replays = first - counted_from(job.left_out, first)
    writer = _PartWriter(job.folder, missing)
    for table in restated_history(lambda at: job.source.read(at, last), job.rescorer.state, job.left_out, first, last, BATCH):
        for piece, bound in _cut(table, missing):
            if bound is None:
                job.rescorer.pass_over(piece)
                result.replayed += len(piece)
                if not result.added:
                    progress("reading the history before it", min(result.replayed, replays), replays)
            else:
                rows = pa.Table.from_pylist(job.rescorer.rows(piece), schema=ROWS)
                writer.add(bound, rows, piece["_seq"][-1].as_py() + 1)
                result.added += len(piece)
                progress("scoring", result.added, total)
            if stopped() and writer.left:
                result.is_stopped = True
                return []
    there.update(writer.finish())
    return [there[at] for at, _ in job.bounds]


class _PartWriter:
    """Gathers rows in order of seq and puts each part as soon as it is whole."""

    def __init__(self, folder: ResultFolder, bounds: list[tuple[int, int]]) -> None:
        self._folder, self.left = folder, list(bounds)
        self._rows: list[pa.Table] = []
        self._put: dict[int, Part] = {}

    def add(self, bound: tuple[int, int], rows: pa.Table, next_seq: int) -> None:
        """Take rows of a part; those of the parts before it have all come, but for what could not be decoded."""
        while self.left[0] != bound:
            self._close()
        self._rows.append(rows)
        if next_seq == bound[1]:
            self._close()

    def finish(self) -> dict[int, Part]:
        """Put what is left, and say what was put, by first seq."""
        while self.left:
            self._close()
        return self._put

    def _close(self) -> None:
        first, end = self.left.pop(0)
        self._put[first] = self._folder.put_part(first, end, pa.concat_tables([ROWS.empty_table(), *self._rows]))
        self._rows = []


def _cut(table: pa.Table, bounds: list[tuple[int, int]]) -> Iterator[tuple[pa.Table, tuple[int, int] | None]]:
    """A table cut where a part begins or ends, each piece with the part that it belongs to."""
    seqs = table["_seq"].to_numpy()
    edges = np.unique([0, len(seqs), *np.searchsorted(seqs, [edge for bound in bounds for edge in bound]).tolist()])
    for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        at = int(seqs[start])
        yield table.slice(start, stop - start), next((bound for bound in bounds if bound[0] <= at < bound[1]), None)


def _told(pieces: Iterator[pa.Table], total: int, progress: Progress) -> Iterator[pa.Table]:
    done = 0
    for rows in pieces:
        yield rows
        done += rows.num_rows
        progress("loading", done, total)


def _store(composition: Composition) -> BatchScores:
    database = composition.redshift
    return PostgresBatchScores(composition.warehouse_dsn) if database is None else RedshiftBatchScores(database)
