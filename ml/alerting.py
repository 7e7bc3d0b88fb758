"""From scores to alerts: the strongest scores within the budget ask for a look at their wallet.

It only asks (`RaiseAlert` on the command topic); the case aggregate decides whether that is a new alert or joins an open one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from domain.commands import RaiseAlert
from domain.events import AlertReason
from domain.log import Position
from domain.policy import AlertPolicy, PolicyReplaced
from domain.values import EPOCH
from graph.features_names import FEATURE_NAMES
from ml.policy import RunningThreshold
from projections.merge import SeqMerge
from projections.protocol import EventBatch, Rejection
from projections.records import NO_SEQ, RecordBatch
from projections.work import Append
from schema_registry.catalog import SchemaCatalog
from schema_registry.column_codec import ColumnCodec
from schema_registry.contracts import COMMANDS, SCORE_EVENTS
from schema_registry.record_codec import RecordCodec

READS = (
    "tx_id", "tx_seq", "source_wallet_id", "target_wallet_id", "score", "source_score", "target_score", "features", "model_version",
)  # fmt: skip


class Alerting:
    """A transformer of `score-events` in order of seq. Call `restore` before the first `process`.

    Args:
        from_seq: the first transaction that was scored.
        is_replaced: whether another policy holds meanwhile; asked before each batch.
    """

    name = "alerts"
    topics: tuple[str, ...] = (SCORE_EVENTS,)
    ordered_topic: str | None = SCORE_EVENTS
    reads: Mapping[str, tuple[str, ...]] = {"TransactionScored": READS}
    is_raw = False

    def __init__(self, catalog: SchemaCatalog, policy: AlertPolicy, from_seq: int, is_replaced: Callable[[], bool] = lambda: False) -> None:
        self._catalog = catalog
        self._codec = RecordCodec(catalog)
        self._threshold = RunningThreshold(policy)
        self._is_replaced = is_replaced
        self._next_seq = from_seq

    def next_seq(self) -> int:
        """The first seq that was not looked at yet."""
        return self._next_seq

    def restore(self, read: Callable[[Sequence[str], Position], Iterator[RecordBatch]], committed: Position) -> None:
        """Bring the threshold back from the scores that were looked at already."""
        if not committed:
            return
        codec = ColumnCodec(self._catalog, {"TransactionScored": ("tx_seq", "score")})
        merge = SeqMerge(self._next_seq)
        for batch in read(self.topics, {}):
            ends = np.array([committed.get((batch.topic, p), 0) for p in batch.partitions.tolist()])
            past = np.flatnonzero((batch.offsets < ends) & (batch.seqs() != NO_SEQ))
            for ready in merge.push(batch.take(past))[0]:
                found = codec.decode(ready.values).tables.get("TransactionScored")
                for score in found.table["score"].to_pylist() if found is not None else ():
                    self._threshold.next(score)
        self._next_seq = merge.next_seq

    def process(self, events: EventBatch, batches: Sequence[RecordBatch]) -> tuple[list[Append], list[Rejection]]:
        """Ask for alerts. See `projections.work.Transformer`.

        Raises:
            PolicyReplaced: start again, with the policy that holds.
        """
        if self._is_replaced():
            raise PolicyReplaced("another policy holds: the alerts start again with its budget")
        table = events.tables.get("TransactionScored")
        if table is None or not table.num_rows:
            return [], []
        table = table.sort_by("_seq")
        requests: list[RaiseAlert] = []
        thresholds = [self._threshold.next(score) for score in table["score"].to_pylist()]
        passing = np.flatnonzero(np.array(table["score"].to_pylist()) >= np.array(thresholds))
        for index, row in zip(passing.tolist(), table.take(pa.array(passing)).to_pylist(), strict=True):
            requests += score_requests(row, thresholds[index], EPOCH + timedelta(milliseconds=row["_timestamp_ms"]))
        self._next_seq = int(table["_seq"].to_numpy()[-1]) + 1
        if not requests:
            return [], []
        keys = [request.wallet_id.encode() for request in requests]
        return [Append(COMMANDS, keys, [self._codec.encode_event(request) for request in requests], [()] * len(requests))], []

    def committed(self) -> None:
        """Nothing to do: the state comes back from the log."""


def score_requests(row: Mapping[str, Any], threshold: float, at: datetime) -> Iterator[RaiseAlert]:
    """One request for each wallet of a scored transaction whose own score reaches the threshold.

    Args:
        row: what `TransactionScored` says of it, fields of `READS`.
        at: when that became known.
    """
    vectors = np.frombuffer(row["features"], "<f4").reshape(-1, len(FEATURE_NAMES))
    place = 0
    raised: set[str] = set()
    for side in ("source", "target"):
        wallet_id, score = row[f"{side}_wallet_id"], row[f"{side}_score"]
        if wallet_id is None or score is None:
            continue
        vector = vectors[place]
        place += 1
        if score >= threshold and wallet_id not in raised:
            raised.add(wallet_id)
            yield RaiseAlert(
                wallet_id, AlertReason.SCORE, score, threshold, row["tx_id"], row["tx_seq"], explain(vector),
                row["model_version"], at,
            )  # fmt: skip


def explain(vector: NDArray[np.float32]) -> str:
    """The strongest facts of a wallet's feature vector in words: what an analyst reads first.

    Args:
        vector: float32 [F], the features of `graph.features` as of the transaction.
    """
    value = dict(zip(FEATURE_NAMES, vector.tolist(), strict=True))

    def count(name: str) -> int:
        return round(max(float(value[name]), 0.0))

    facts = [f"received {count('n_in')} times from {count('parties_in')} wallets, sent {count('n_out')} times to {count('parties_out')}"]
    if value["life"] > 0.0:
        facts.append(f"active for {_span(float(np.expm1(value['life'])))}")
    if value["forwarded"] >= 0.9 and count("n_out"):
        facts.append("passed on nearly all that it received")
    if value["in_new_party"] >= 0.5:
        facts.append("most of its payers had never been seen before")
    if value["in_same_amount_ratio"] >= 0.5 and count("n_in") >= 3:
        facts.append("half or more of its receipts have the same amount")
    if value["dwell"] > 0 and float(np.expm1(value["dwell"])) < 3600 and count("n_out"):
        facts.append("money left within an hour of arriving")
    if value["round_in"] >= 0.8 and count("n_in") >= 3:
        facts.append("nearly all receipts are round amounts")
    return "; ".join(facts)


def _span(seconds: float) -> str:
    for unit, length in (("days", 86_400.0), ("hours", 3_600.0), ("minutes", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"
