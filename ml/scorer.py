"""The scorer: every transaction, in order of seq, gets features and embeddings of both wallets as of it, and a score.

Its state is a pure function of the log. It asks the endpoint through a port, and appends `TransactionScored` and, when a wallet's
count of transactions doubles, `WalletEmbedded`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from domain.errors import TidemarkError
from domain.log import Headers, Position
from graph.features import FEATURE_SET_VERSION, FeatureState, Snapshot, TransactionColumns
from graph.restatement import Restatement
from ml.fields import TRANSACTION_FIELDS
from ml.network import EMBEDDING_DIM
from ml.rows import scoring_rows_of
from ml.serving_encoder import ServingEncoder
from projections.merge import SeqMerge
from projections.protocol import EventBatch, Rejection
from projections.records import NO_SEQ, RecordBatch, seq_header
from projections.work import Append
from schema_registry.catalog import SchemaCatalog
from schema_registry.column_codec import ColumnCodec, arrow_schema
from schema_registry.column_encoder import ColumnEncoder
from schema_registry.contracts import EMBEDDING_EVENTS, TOPIC_BY_EVENT_TYPE, TRANSACTION_EVENTS
from schema_registry.record_codec import RecordCodec

OUTDATED_EVERY_S = 600.0
"""How often the scorer may make its features anew: that takes as long as a restart, which grows with the log."""
FEW_ROWS = 64
"""Fewer are encoded one by one: a call for whole columns has a cost of its own, about a millisecond."""
_NOTHING_LEFT_OUT = Restatement()
FEATURE_SET = f"tidemark-{FEATURE_SET_VERSION}"


class FeaturesOutdated(TidemarkError):
    """The features know what was taken back meanwhile. Not a fault: whoever keeps the worker starts it again."""


@dataclass(frozen=True, slots=True)
class Scores:
    """What the endpoint answers for rows [m]: the score and the score without embeddings, both float64 [m]."""

    score: NDArray[np.float64]
    features_only: NDArray[np.float64]


class Endpoint(Protocol):
    """Scores rows of `ml.head.ROW_NAMES`."""

    def score(self, rows: NDArray[np.float32]) -> Scores:
        """Score rows [m, ROW_WIDTH].

        Raises:
            StoreUnavailable: the endpoint does not answer.
        """


class Scorer:
    """A transformer of `transaction-events` in order of seq. Call `restore` before the first `process`.

    Args:
        endpoint: the deployed head.
        encoder: the network of the same package.
        model_version: the package's version, written into every event.
        from_seq: the first transaction to score; earlier ones only enter the features.
        scores_transactions: whether the model learned labels of transactions; then a transaction's score is its first row's, else the
            larger of its wallets'.
        restatement: what the features leave out; it begins at or before the first transaction to score.
        is_outdated: whether something was taken back that the features still know; asked every `OUTDATED_EVERY_S`.
    """

    name = "scorer"
    topics: tuple[str, ...] = (TRANSACTION_EVENTS,)
    ordered_topic: str | None = TRANSACTION_EVENTS
    reads: Mapping[str, tuple[str, ...]] = {"TransactionRecorded": TRANSACTION_FIELDS}
    is_raw = False

    def __init__(
        self,
        catalog: SchemaCatalog,
        endpoint: Endpoint,
        encoder: ServingEncoder,
        model_version: str,
        from_seq: int,
        scores_transactions: bool = False,
        restatement: Restatement = _NOTHING_LEFT_OUT,
        is_outdated: Callable[[], bool] = lambda: False,
    ) -> None:
        self._catalog = catalog
        self._codec = RecordCodec(catalog)
        self._encoder_of_scores = ScoreEncoder(catalog)
        self._endpoint, self._encoder, self._model_version = endpoint, encoder, model_version
        self._from_seq, self._scores_transactions = from_seq, scores_transactions
        self._next_seq = from_seq
        self._restatement, self._is_outdated = restatement, is_outdated
        self._asked_at = time.monotonic()
        self.state = FeatureState()

    def next_seq(self) -> int:
        """The first seq that is not scored yet."""
        return self._next_seq

    def restore(self, read: Callable[[Sequence[str], Position], Iterator[RecordBatch]], committed: Position) -> Position:
        """Bring features back from the log, up to what is scored already.

        Args:
            read: committed records of topics from a position to the end.
            committed: the stored position, empty before the first score.

        Returns:
            The position to go on from.
        """
        codec = ColumnCodec(self._catalog, self.reads)
        left_out = self._restatement
        merge = SeqMerge(0)
        start: dict[tuple[str, int], int] = dict(committed)
        reached = self._from_seq
        for batch in read(self.topics, {}):
            seqs = batch.seqs()
            if committed:
                ends = np.array([committed.get((batch.topic, p), 0) for p in batch.partitions.tolist()])
                is_past = batch.offsets < ends
                if (is_past & (seqs != NO_SEQ)).any():
                    reached = max(reached, int(seqs[is_past].max()) + 1)
            else:
                is_past = (seqs < self._from_seq) & (seqs != NO_SEQ)
                for partition in np.unique(batch.partitions).tolist():
                    mine = batch.partitions == partition
                    done = batch.offsets[mine & is_past]
                    first = int(done.max()) + 1 if len(done) else int(batch.offsets[mine].min())
                    start[(batch.topic, partition)] = (
                        max(start.get((batch.topic, partition), 0), first) if len(done) else start.get((batch.topic, partition), first)
                    )
            for ready in merge.push(batch.take(np.flatnonzero(is_past)))[0]:
                found = codec.decode(ready.values).tables.get("TransactionRecorded")
                if found is not None:
                    table = left_out.kept(found.table, ready.seqs()[found.indexes])
                    self.state.observe(TransactionColumns.from_arrow(table), emit="none", neighbourhoods=False)
        self._next_seq = reached
        self.state.skip_to(reached)
        return start

    def process(self, events: EventBatch, batches: Sequence[RecordBatch]) -> tuple[list[Append], list[Rejection]]:
        """Score transactions in the order given. See `projections.work.Transformer`."""
        table = events.tables.get("TransactionRecorded")
        if table is None or not table.num_rows:
            return [], []
        table = table.sort_by("_seq")
        snapshot = self.state.observe(TransactionColumns.from_arrow(table))
        assert snapshot.neighbourhoods is not None
        own = self._encoder.embed(snapshot.neighbourhoods)
        scores = self._endpoint.score(scoring_rows_of(snapshot, own))
        seqs = table["_seq"].to_numpy()
        self._next_seq = int(seqs[-1]) + 1
        scored = scored_events(
            self._encoder_of_scores, table, snapshot, scores, self._model_version, takes_first_side=self._scores_transactions
        )
        return [scored, self._embedded(seqs, snapshot, own)], []

    def committed(self) -> None:
        """The state is in memory and comes back from the log: without what was taken back, once that is found.

        Raises:
            FeaturesOutdated: start again.
        """
        if time.monotonic() - self._asked_at > OUTDATED_EVERY_S:
            self._asked_at = time.monotonic()
            if self._is_outdated():
                raise FeaturesOutdated(
                    f"transactions were taken back: the scorer starts again at seq {self._next_seq} with features that leave them out"
                )

    def _embedded(self, seqs: NDArray[np.int64], snapshot: Snapshot, own: NDArray[np.float32]) -> Append:
        """Embeddings at a wallet's 1st, 2nd, 4th, 8th … transaction: what the log holds grows with the logarithm of activity."""
        partner = snapshot.partner()
        is_repeated = (snapshot.side == 1) & (partner >= 0) & (snapshot.wallet[partner] == snapshot.wallet)  # a self-transfer
        is_due = (snapshot.wallet >= 0) & ((snapshot.k & (snapshot.k - 1)) == 0) & ~is_repeated
        places = np.flatnonzero(is_due)
        ids = [self.state.wallet_ids[wallet] for wallet in snapshot.wallet[places].tolist()]
        as_of = seqs[snapshot.transaction[places]].tolist()
        values = [
            embedded_value(self._codec, wallet_id, own[place], self._model_version, seq)
            for wallet_id, place, seq in zip(ids, places.tolist(), as_of, strict=True)
        ]
        headers: list[Headers] = [(seq_header(seq),) for seq in as_of]
        return Append(EMBEDDING_EVENTS, [wallet_id.encode() for wallet_id in ids], values, headers)


def scored_events(
    encoder: ScoreEncoder,
    table: pa.Table,
    snapshot: Snapshot,
    scores: Scores,
    model_version: str,
    *,
    takes_first_side: bool,
) -> Append:
    """One event for each transaction. Arguments but the first as `scored_rows` takes them."""
    rows = scored_rows(table, snapshot, scores, model_version, takes_first_side=takes_first_side)
    return encoder.events(rows)


class ScoreEncoder:
    """Turns what is said of transactions into events: record by record where they are few, in columns where that is faster.

    Args:
        event_type: `TransactionScored`, or another with the same fields.
        topic: where they are appended, by default the event type's own topic.
    """

    def __init__(self, catalog: SchemaCatalog, event_type: str = "TransactionScored", topic: str | None = None) -> None:
        self._event_type, self._topic = event_type, topic or TOPIC_BY_EVENT_TYPE[event_type]
        self._records, self._columns = RecordCodec(catalog), ColumnEncoder(catalog, event_type)
        self._schema = arrow_schema(event_type)

    def events(self, rows: list[dict[str, Any]]) -> Append:
        """One event for each of `scored_rows`."""
        keys = [(row["source_wallet_id"] or row["target_wallet_id"] or row["tx_id"]).encode() for row in rows]
        if len(rows) < FEW_ROWS:
            values = [self._records.encode(self._event_type, row) for row in rows]
        else:
            values = self._columns.encode(pa.Table.from_pylist(rows, schema=self._schema))
        headers: list[Headers] = [(seq_header(row["tx_seq"]),) for row in rows]
        return Append(self._topic, keys, values, headers)


def scored_rows(table: pa.Table, snapshot: Snapshot, scores: Scores, model_version: str, *, takes_first_side: bool) -> list[dict[str, Any]]:
    """What `TransactionScored` says of each transaction, field by field.

    Args:
        table: the transactions in order of `_seq`.
        snapshot: of exactly these transactions.
        scores: of the snapshot's rows.
        takes_first_side: a transaction's score is its first row's, else the larger of its wallets'.
    """
    rows: list[dict[str, Any]] = table.select(["tx_id", "network", "source_wallet_id", "target_wallet_id"]).to_pylist()
    for row, seq in zip(rows, table["_seq"].to_pylist(), strict=True):
        row.update(
            tx_seq=seq, score=0.0, features_only_score=0.0, source_score=None, target_score=None, source_k=None, target_k=None,
            source_features_only_score=None, target_features_only_score=None, source_embedding_seq=None, target_embedding_seq=None,
            feature_set=FEATURE_SET, model_version=model_version, features=b"",
        )  # fmt: skip
    columns = zip(
        snapshot.transaction.tolist(), snapshot.side.tolist(), snapshot.wallet.tolist(), snapshot.k.tolist(),
        scores.score.tolist(), scores.features_only.tolist(), snapshot.features, strict=True,
    )  # fmt: skip
    for place, side, wallet, k, score, features_only, features in columns:
        row = rows[place]
        if not takes_first_side or not row["features"]:
            # Where labels are per wallet, a transaction is as suspicious as the more suspicious of its wallets.
            row["score"] = max(row["score"], score)
            row["features_only_score"] = max(row["features_only_score"], features_only)
        row["features"] += features.tobytes()
        if wallet >= 0:
            name = "target" if side else "source"
            row[f"{name}_score"], row[f"{name}_features_only_score"] = score, features_only
            row[f"{name}_k"], row[f"{name}_embedding_seq"] = k, row["tx_seq"]
    return rows


def embedded_value(codec: RecordCodec, wallet_id: str, vector: NDArray[np.float32], model_version: str, as_of_seq: int) -> bytes:
    """A `WalletEmbedded` as bytes; `vector` is float32 [EMBEDDING_DIM]."""
    value = {
        "wallet_id": wallet_id, "vector": vector.astype("<f4").tobytes(), "dimensions": EMBEDDING_DIM,
        "model_version": model_version, "as_of_seq": as_of_seq,
    }  # fmt: skip
    return codec.encode("WalletEmbedded", value)
