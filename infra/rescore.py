"""History scored again with another trained model: `TransactionRescored` on a topic of its own, once for each model and transaction.

What the log says of the scores of a model is all that is remembered, so whoever runs this again goes on from there. The live scorer,
the alerts and whoever else reads `score-events` never see it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from domain.errors import InvalidValue
from infra.composition import Composition, NotReady
from infra.history import transactions_in_order
from infra.kafka.transactions import KafkaTransactions
from infra.repair import position_at
from infra.restated_history import counted_from, restated_history
from infra.restatements import restatements
from ml.rescorer import Rescorer
from projections.records import NO_SEQ
from schema_registry.column_codec import ColumnCodec
from schema_registry.contracts import RESCORE_EVENTS, SCORE_EVENTS, TRANSACTION_EVENTS

BATCH = 2_000  # transactions in one Kafka transaction: some MB, and about a second between two looks at `stopped`
OWNER = "tidemark-rescore"
"""One transactional id for all models: with two open transactions on the topic neither could see how far it had come."""

Progress = Callable[[str, int, int], None]
"""Told a stage in words, transactions done and transactions in all."""


@dataclass(slots=True)
class RescoreResult:
    """What was or would be done in [`from_seq`, `until_seq`): `scored` before, `added` now, `unreadable` where no record could be decoded.

    `replayed` counts transactions that only enter the features. Where it is stopped, running it again goes on.
    """

    model_version: str
    from_seq: int
    until_seq: int
    scored: int = 0
    added: int = 0
    unreadable: int = 0
    replayed: int = 0
    is_stopped: bool = False
    seconds: float = 0.0

    @property
    def left(self) -> int:
        """Transactions of the range that have no score of this model yet."""
        return self.until_seq - self.from_seq - self.scored - self.added - self.unreadable

    def as_json(self) -> dict[str, Any]:
        """The result as plain values."""
        return {**asdict(self), "left": self.left, "seconds": round(self.seconds, 2)}


def seq_at(composition: Composition, at_ms: int) -> int:
    """The first seq whose transaction was appended at a time (milliseconds since 1970) or later; the next one to come where there is none.

    Raises:
        HistoryIncomplete: the time lies before what Kafka holds, and the archive does not have it.
    """
    ends = dict(composition.log.ends([TRANSACTION_EVENTS]))
    found = composition.log.next_seq(TRANSACTION_EVENTS)
    for tp, offset in position_at(composition, (TRANSACTION_EVENTS,), at_ms).items():
        for batch in composition.log.read([TRANSACTION_EVENTS], {**ends, tp: offset}, {tp: ends[tp]}):
            seqs = batch.seqs()
            late = seqs[(batch.timestamps_ms >= at_ms) & (seqs != NO_SEQ)]
            if len(late):
                found = min(found, int(late[0]))  # within a partition they rise
                break
    return found


def plan(composition: Composition, model_version: str, from_seq: int, until_seq: int | None = None) -> RescoreResult:
    """What `rescore` would do. Reads the log and changes nothing.

    Raises:
        as `rescore`.
    """
    _package(composition, model_version)
    result = RescoreResult(model_version, from_seq, _end(composition, until_seq))
    _check(result)
    result.scored = int(_done(composition, result).sum())
    result.replayed = from_seq - counted_from(restatements(composition.log, result.until_seq), from_seq)
    return result


def rescore(
    composition: Composition,
    model_version: str,
    from_seq: int,
    until_seq: int | None = None,
    *,
    progress: Progress = lambda stage, done, total: None,
    stopped: Callable[[], bool] = lambda: False,
) -> RescoreResult:
    """Score the transactions of [`from_seq`, `until_seq`) with a trained model, each with the features that the scorer had as of it.

    Args:
        until_seq: at most, and by default, what the live scorer has scored (the log's end where no model was ever deployed): beyond
            it nobody has decided yet what the features leave out.
        stopped: asked between two Kafka transactions.

    Raises:
        NotReady: no such model was trained, or its package is gone.
        PackageError: the package is not what the log says, or is of another feature set.
        InvalidValue: the range is empty.
        Fenced: another one has begun meanwhile; nothing is there twice.
        HistoryIncomplete: transactions are neither in Kafka nor in the archive.
        LogError: Kafka does not answer.
    """
    started = time.monotonic()
    rescorer = Rescorer(composition.clients.catalog, *_package(composition, model_version))
    # Whoever did this before is fenced first and its open transaction gone: what is committed now is all that there will be of it.
    out = KafkaTransactions(composition.clients.kafka, OWNER, OWNER, (), composition.clients.admin)
    try:
        result = RescoreResult(model_version, from_seq, _end(composition, until_seq))
        _check(result)
        wanted = ~_done(composition, result)
        total = int(wanted.sum())
        result.scored = len(wanted) - total
        if total:
            first = from_seq + int(np.flatnonzero(wanted)[0])
            last = from_seq + int(np.flatnonzero(wanted)[-1])
            left_out = restatements(composition.log, result.until_seq)
            replays = first - counted_from(left_out, first)
            read = partial(transactions_in_order, composition)
            for table in restated_history(read, rescorer.state, left_out, first, last + 1, BATCH):
                for piece, is_wanted in _runs(table, wanted, from_seq):
                    if is_wanted:
                        out.commit([rescorer.score(piece)], (), {})
                        result.added += len(piece)
                        progress("scoring", result.added, total)
                    else:
                        rescorer.pass_over(piece)
                        result.replayed += len(piece)
                        if not result.added:
                            progress("reading the history before it", min(result.replayed, replays), replays)
                    if stopped():
                        result.is_stopped = result.added < total
                        result.seconds = time.monotonic() - started
                        return result
            result.unreadable = total - result.added
        result.seconds = time.monotonic() - started
        return result
    finally:
        out.close()


def _package(composition: Composition, model_version: str) -> tuple[bytes, str]:
    """A trained model's package and its hash.

    Raises:
        NotReady: there is none, or the log was set up before there was a topic for what it would say.
    """
    if composition.clients.admin.missing([RESCORE_EVENTS]):
        raise NotReady(f"there is no topic {RESCORE_EVENTS} yet: run `tidemark up` once, which creates it")
    return composition.trained_package(model_version)


def _end(composition: Composition, until_seq: int | None) -> int:
    log = composition.log
    head = log.next_seq(TRANSACTION_EVENTS)
    if log.deployed() is not None:
        head = min(head, max(log.first_scored_seq(), log.next_seq(SCORE_EVENTS)))
    return head if until_seq is None else min(head, until_seq)


def _check(result: RescoreResult) -> None:
    if not 0 <= result.from_seq < result.until_seq:
        raise InvalidValue("from", f"expected a seq before {result.until_seq}, where the range ends at the latest, found {result.from_seq}")


def _done(composition: Composition, result: RescoreResult) -> NDArray[np.bool_]:
    """Which transactions of the range have a score of this model: bool, by seq from `from_seq` on."""
    codec = ColumnCodec(composition.clients.catalog, {"TransactionRescored": ("tx_seq", "model_version")})
    found = np.zeros(result.until_seq - result.from_seq, np.bool_)
    for batch in composition.log.read([RESCORE_EVENTS], {}):
        decoded = codec.decode(batch.values).tables.get("TransactionRescored")
        if decoded is None:
            continue
        is_ours = np.asarray(decoded.table["model_version"].to_pylist()) == result.model_version
        places = decoded.table["tx_seq"].to_numpy()[is_ours] - result.from_seq
        found[places[(places >= 0) & (places < len(found))]] = True
    return found


def _runs(table: pa.Table, wanted: NDArray[np.bool_], from_seq: int) -> Iterator[tuple[pa.Table, bool]]:
    """A table cut where it changes whether its transactions are asked for."""
    places = table["_seq"].to_numpy() - from_seq
    is_inside = (places >= 0) & (places < len(wanted))
    is_wanted = is_inside & wanted[np.clip(places, 0, len(wanted) - 1)]
    cuts = [0, *(np.flatnonzero(np.diff(is_wanted)) + 1).tolist(), len(places)]
    for start, end in pairwise(cuts):
        if end > start:
            yield table.slice(start, end - start), bool(is_wanted[start])
