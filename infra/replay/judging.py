"""What a replay does with each transaction: features once, every model's scores, every policy's alerts, every strategy's trades.

It is driven by the one consume loop, from the sandbox's topics and into them. Features and rules of a flush are counted while the one
before is scored and committed in another thread: they share nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from domain.log import Headers, Position
from domain.policy import TEXT_FIELDS
from domain.rules import Hit
from graph.features import FeatureState, Snapshot, TransactionColumns
from infra.replay.errors import ReplayError
from infra.replay.outcome import Variant
from infra.replay.sandbox import Sandbox
from infra.replay.strategy import PaperTrader
from infra.rule_alerts import rule_rows
from ml.fields import TRANSACTION_FIELDS
from ml.rescorer import PackagedModel
from ml.scorer import ScoreEncoder, scored_rows
from projections.decoding import decode
from projections.protocol import Rejection
from projections.records import RecordBatch, seq_header
from projections.work import Append, Done, Step, TransactionalLog
from schema_registry.catalog import SchemaCatalog
from schema_registry.column_codec import ColumnCodec
from schema_registry.record_codec import RecordCodec

READS = tuple(dict.fromkeys((*TRANSACTION_FIELDS, *TEXT_FIELDS, "counter_amount", "counter_asset")))
_TRADER_FIELDS = ("tx_id", "network", "kind", "source_wallet_id", "target_wallet_id", "amount", "asset", "counter_amount", "counter_asset",
                  "occurred_at")  # fmt: skip


class ReplayWork:
    """A `projections.work.StagedWork` over the sandbox. Its state is the replay's: it is never resumed.

    Args:
        state: features as of the replay's start.
        models: by version; the first one's scores are what strategies see.
        variants: each of a model's version or none.
        latencies: told, for each commit, when the broker had each transaction and how long it took until its score was durable, both in
            milliseconds, [n]; only where there is a model.
    """

    name = "replay"

    def __init__(
        self,
        sandbox: Sandbox,
        catalog: SchemaCatalog,
        log: TransactionalLog,
        state: FeatureState,
        models: dict[str, PackagedModel],
        variants: Sequence[Variant],
        traders: Sequence[PaperTrader],
        latencies: Callable[[NDArray[np.int64], NDArray[np.float64]], None] = lambda at_ms, took_ms: None,
    ) -> None:
        self.topics: tuple[str, ...] = (sandbox.transactions,)
        self.ordered_topic: str | None = sandbox.transactions
        self._sandbox, self._log, self._state = sandbox, log, state
        self._models, self._variants, self._traders = models, variants, traders
        self._codec = ColumnCodec(catalog, {"TransactionRecorded": READS})
        self._records = RecordCodec(catalog)
        self._scores = ScoreEncoder(catalog, topic=sandbox.scores)
        self._has_rules = any(variant.has_rules for variant in variants)
        self._latencies = latencies
        self.done = 0

    def load_position(self) -> Position:
        """The sandbox's beginning."""
        return {}

    def next_seq(self) -> int:
        """The sandbox counts from 0."""
        return 0

    def process(self, batches: Sequence[RecordBatch], strays: Sequence[Rejection], before: Position, after: Position) -> Done:
        """See `projections.work.Work`."""
        return self.prepare(batches)(before, after)

    def prepare(self, batches: Sequence[RecordBatch]) -> Step:
        """See `StagedWork`: features and rules.

        Raises:
            ReplayError: a record of the sandbox is not one of ours.
        """
        events, rejections = decode(self._codec, batches)
        if rejections:
            raise ReplayError(f"{rejections[0].topic} holds a record that the replay did not write: {rejections[0].message}")
        table = events.tables["TransactionRecorded"].sort_by("_seq")
        snapshot = self._state.observe(TransactionColumns.from_arrow(table)) if self._models else None
        rows = list(rule_rows(table)) if self._has_rules else []
        return partial(self._complete, table, snapshot, [variant.ruled(rows) for variant in self._variants])

    def _complete(
        self, table: pa.Table, snapshot: Snapshot | None, hits: Sequence[list[tuple[int, list[Hit]]]], before: Position, after: Position
    ) -> Done:
        scored: dict[str | None, list[dict[str, Any]]] = {}
        appends: list[Append] = []
        for version, model in self._models.items():
            assert snapshot is not None
            rows = scored[version] = scored_rows(
                table, snapshot, model.scores(snapshot), version, takes_first_side=model.takes_first_side
            )  # fmt: skip
            appends.append(self._scores.events(rows))
        for variant, topic, spoken in zip(self._variants, self._sandbox.cases, hits, strict=True):
            events = variant.take(table, spoken, scored.get(variant.model_version)) if variant.is_active else []
            if events:
                values = [self._records.encode_event(event) for event, _ in events]
                own: list[Headers] = [(seq_header(seq),) for _, seq in events]
                appends.append(Append(topic, [event.case_id.encode() for event, _ in events], values, own))
        self._trade(table, next(iter(scored.values()), None))
        if appends:
            self._log.commit(appends, (), {})  # the sandbox has no place to go on from: a replay that is killed begins anew
        if self._models:
            at_ms = table["_timestamp_ms"].to_numpy()
            self._latencies(at_ms, time.time() * 1000 - at_ms)
        self.done += table.num_rows
        return Done(table.num_rows, 0, after)

    def _trade(self, table: pa.Table, scored: list[dict[str, Any]] | None) -> None:
        if not self._traders:
            return
        times = np.asarray(table["occurred_at"].cast(pa.int64()))
        if not any(trader.sees_transactions for trader in self._traders):
            for trader in self._traders:
                trader.advance(int(times.max()))
            return
        statuses = table["status"].to_pylist()
        for index, row in enumerate(table.select(_TRADER_FIELDS).to_pylist()):
            for trader in self._traders:
                trader.advance(int(times[index]))
                if statuses[index] == "settled":
                    trader.transaction(row, scored[index]["score"] if scored is not None else None)
