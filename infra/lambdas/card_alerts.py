"""Card alerts: scores of card payments at or above a threshold, kept in a table of a relational store and in DynamoDB.

The table decides, DynamoDB follows: a batch's alerts are added to the table in one transaction, and then everything that the table
holds of the batch is put into DynamoDB. Both writes leave alone what is there, and the batch is done after the second. So a function
that dies in between, or is started again with another threshold or beside a second one, leaves the same alerts in both, each once.
A record that is no score goes to quarantine whole, before the batch is done.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from domain.errors import InvalidValue, LogError
from domain.log import NewRecord, Record
from domain.values import EPOCH, identifier
from infra.lambdas.metrics import metrics_line
from projections.quarantine import PayloadStore, QuarantineEntry, as_record, offloaded
from schema_registry.errors import UndecodableRecord
from schema_registry.record_codec import RecordCodec

CARD_ALERTS = "card-alerts"
"""The function; and who put its records into quarantine."""
NETWORK = "card"
SCORED = "TransactionScored"
SCORE_DECIMALS = 6  # those that the scorer writes
_MOST_VERSION_BYTES = 512  # DynamoDB's sort key, of which it is a part, has at most 1,024
_MOST_SEQ = (1 << 63) - 1

AlertKey = tuple[str, int, str]
"""(tx_id, tx_seq, model_version): one score of one revision of a transaction."""


@dataclass(frozen=True, slots=True)
class CardAlert:
    """A score that reached the threshold. `features_only_score` is what the model says without the graph."""

    tx_id: str
    tx_seq: int
    model_version: str
    score: float
    features_only_score: float
    threshold: float
    scored_at: datetime

    @property
    def key(self) -> AlertKey:
        return (self.tx_id, self.tx_seq, self.model_version)


class AlertTable(Protocol):
    """The relational store's part."""

    def keep(self, alerts: Sequence[CardAlert], of: Sequence[AlertKey]) -> list[CardAlert]:
        """Add those whose key is not there; returns what the table then holds of the keys `of`. One transaction.

        Raises:
            StoreUnavailable: it does not answer.
            ProjectionError: it refuses, or is not there.
        """


class AlertItems(Protocol):
    """DynamoDB's part."""

    def put(self, alerts: Sequence[CardAlert]) -> int:
        """Put those whose key is not there; returns how many were not.

        Raises:
            StoreUnavailable: it does not answer, or refuses.
        """


class Appender(Protocol):
    """Appends to the log; see `infra.kafka.producer.TrackedProducer`."""

    def append(self, records: Sequence[NewRecord]) -> dict[int, str]: ...


class RefusedScore(InvalidValue):
    """A record of `score-events` that no alert can be made of. `reason` is a stable code."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(name, message)
        self.reason = f"invalid_{name}"


@dataclass(slots=True)
class CardAlertsReport:
    """What became of a batch: records, card scores among them, alerts, those of them that DynamoDB did not have yet."""

    records: int = 0
    scores: int = 0
    alerts: int = 0
    put: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    lag_ms: float = 0.0

    def line(self, seconds: float, now_ms: int) -> str:
        """The figures for CloudWatch."""
        figures = {
            "Records": (self.records, "Count"), "Scores": (self.scores, "Count"), "Alerts": (self.alerts, "Count"),
            "Refused": (self.refused.total(), "Count"), "LagMs": (round(self.lag_ms, 1), "Milliseconds"),
            "HandlingMs": (round(seconds * 1000, 1), "Milliseconds"),
        }  # fmt: skip
        return metrics_line({"Function": CARD_ALERTS}, figures, now_ms)

    def answer(self) -> dict[str, Any]:
        """What the function returns. Lambda looks at nothing of it: a batch from Kafka is done, or the call raises."""
        return {"records": self.records, "alerts": self.alerts, "refused": self.refused.total()}


class CardAlerts:
    """Handles batches of `score-events`. Not for several threads.

    Args:
        threshold: the score from which a card payment is an alert.
        payloads: where refused records go whole that are too large for the quarantine topic.
    """

    def __init__(
        self, codec: RecordCodec, threshold: float, table: AlertTable, items: AlertItems, log: Appender, payloads: PayloadStore
    ) -> None:
        self._codec, self._threshold, self._table, self._items = codec, threshold, table, items
        self._log, self._payloads = log, payloads

    def handle(self, records: Sequence[Record]) -> CardAlertsReport:
        """Keep the alerts of one batch. Safe to repeat.

        Raises:
            StoreUnavailable, ProjectionError: a store does not take them: the whole batch comes again.
            LogError: the quarantine does not take a refused record: likewise.
        """
        report = CardAlertsReport(records=len(records))
        scores: dict[AlertKey, CardAlert] = {}
        entries: list[QuarantineEntry] = []
        for record in records:
            try:
                score = self._score(record)
            except (UndecodableRecord, RefusedScore) as error:
                report.refused[error.reason] += 1
                entries.append(QuarantineEntry(CARD_ALERTS, record, error.reason, str(error), 1))
                continue
            if score is not None:
                scores.setdefault(score.key, score)
        report.scores = len(scores)
        if scores:
            reached = sorted((score for score in scores.values() if score.score >= self._threshold), key=lambda score: score.key)
            alerts = self._table.keep(reached, list(scores))
            report.put = self._items.put(alerts)
            report.alerts = len(alerts)
        self._set_aside(entries)  # last: while a store is away the batch comes again and again, and each time would leave a copy
        if records:
            report.lag_ms = max(0.0, time.time() * 1000 - min(record.timestamp_ms for record in records))
        return report

    def _score(self, record: Record) -> CardAlert | None:
        """The record as an alert that it may be; none for scores of other networks."""
        name, value = self._codec.decode(record.value)
        if name != SCORED or value["network"] != NETWORK:
            return None
        for text in ("tx_id", "model_version"):
            try:
                identifier(text, value[text])
            except InvalidValue as error:
                raise RefusedScore(text, str(error).removeprefix(f"{text}: ")) from None
        if len(value["model_version"].encode()) > _MOST_VERSION_BYTES:
            raise RefusedScore("model_version", f"expected at most {_MOST_VERSION_BYTES} bytes")
        if not 0 <= value["tx_seq"] <= _MOST_SEQ:
            raise RefusedScore("tx_seq", f"expected a number from 0 on, found {value['tx_seq']}")
        for score in ("score", "features_only_score"):
            if not 0.0 <= value[score] <= 1.0:  # NaN is not between them either
                raise RefusedScore(score, f"expected a number in [0, 1], found {value[score]}")
        try:
            at = EPOCH + timedelta(milliseconds=record.timestamp_ms)
        except OverflowError:
            raise RefusedScore("timestamp", f"expected milliseconds since 1970, found {record.timestamp_ms}") from None
        return CardAlert(
            value["tx_id"], value["tx_seq"], value["model_version"], round(value["score"], SCORE_DECIMALS),
            round(value["features_only_score"], SCORE_DECIMALS), self._threshold, at,
        )  # fmt: skip

    def _set_aside(self, entries: Sequence[QuarantineEntry]) -> None:
        if not entries:
            return
        failed = self._log.append(offloaded(self._codec, [as_record(self._codec, entry) for entry in entries], self._payloads))
        if failed:
            raise LogError(f"{len(failed)} refused records are not in quarantine: {next(iter(failed.values()))}")
