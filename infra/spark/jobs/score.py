"""Scores the stream: committed records of the topic, from the position that the store holds, in micro-batches, until told to stop.

One batch is one transaction of the store; then its alerts go to DynamoDB. Spark's own checkpoint is thrown away with each start.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import boto3
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.errors import StreamingQueryException
from pyspark.ml import PipelineModel
from pyspark.ml.functions import vector_to_array
from pyspark.sql import DataFrame
from pyspark.sql.functions import coalesce, col, instr, is_valid_utf8, length, lit, when, year

from infra.spark.jobs import channel, session, wire
from infra.spark.jobs.alert_items import AlertItems, ItemsUnavailable
from infra.spark.jobs.features import with_features
from infra.spark.jobs.score_store import ScoreStore, StaleScores

TOPIC = "transaction-events"
_DELIVERED_AT_ONCE = 1_000
_LOOK_S = 0.5
_MOST_CHARACTERS = 256  # of an id, as `domain.values.identifier` has it
_END_S = 15.0  # that a micro-batch under way has to end, where the job is told to stop


class Scoring:
    """What happens to each micro-batch."""

    def __init__(self, spec: dict[str, Any], store: ScoreStore, items: AlertItems, tell: Callable[..., None]) -> None:
        self._spec, self._store, self._items, self._tell = spec, store, items, tell
        self._position = store.position(TOPIC)
        self.records = self.scored = self.refused = self.alerts = 0
        self.is_busy = self.is_ending = False
        self._pool = ThreadPoolExecutor(1)
        self._delivery: Future[None] | None = None

    @property
    def starts(self) -> dict[int, int]:
        """Where to go on."""
        return dict(self._position)

    def deliver(self) -> None:
        """Bring DynamoDB up to date with what the store holds, by a connection of its own."""
        store = ScoreStore(self._spec["dsn"])
        try:
            while waiting := store.undelivered(_DELIVERED_AT_ONCE):
                self._items.put(waiting)
                self._reach("put")
                store.delivered(waiting)
        finally:
            store.close()

    def settle(self) -> None:
        """Wait for the delivery that is under way; its error is raised here."""
        delivery, self._delivery = self._delivery, None
        if delivery is not None:
            delivery.result()

    def __call__(self, batch: DataFrame, number: int) -> None:
        if self.is_ending:  # between two batches the job was told to stop: this one is read again
            return
        self.is_busy = True
        try:
            self._score(batch, number)
        finally:
            self.is_busy = False

    def _score(self, batch: DataFrame, number: int) -> None:
        started = time.monotonic()
        rows = batch.toArrow()
        if not rows.num_rows:
            return
        read_s = time.monotonic() - started
        self._reach("read")
        self._keep(rows)
        self._reach("kept")
        # Beside the next micro-batch: the outbox remembers what is not there yet.
        self.settle()
        self._delivery = self._pool.submit(self.deliver)
        self.records += rows.num_rows
        self._tell(
            "batch", number=number, records=rows.num_rows, seconds=round(time.monotonic() - started, 3), read_s=round(read_s, 3),
            total=self.records, refused=self.refused, alerts=self.alerts,
        )  # fmt: skip

    def _reach(self, step: str) -> None:
        """Die here where a test says so: `read` (nothing stored), `kept` (stored, not in DynamoDB), `put` (in DynamoDB, not marked)."""
        if self._spec.get("dies_at") == step:
            os.killpg(0, signal.SIGKILL)

    def _keep(self, rows: pa.Table) -> None:
        last = rows.group_by("partition").aggregate([("offset", "max")])
        after = {row["partition"]: row["offset_max"] + 1 for row in last.to_pylist()}
        version, threshold = self._spec["model_version"], self._spec["threshold"]
        good = rows.filter(pc.and_(rows["is_ours"], pc.is_null(rows["reason"])))
        scores = pa.table(
            {
                "log_partition": good["partition"], "log_offset": good["offset"], "seq": good["seq"], "tx_id": good["tx_id"],
                "occurred_at": good["occurred_at"].cast(pa.timestamp("us", "UTC")),
                "model_version": pa.array([version] * good.num_rows, pa.string()),
                "score": good["score"],
                "threshold": pa.array([threshold] * good.num_rows, pa.float64()),
            }
        )  # fmt: skip
        reached = scores.filter(pc.greater_equal(scores["score"], threshold))
        columns = ["partition", "offset", "reason", "message", "value"]
        bad = rows.filter(pc.is_valid(rows["reason"])).select(columns).to_pylist()
        refused = [(row["partition"], row["offset"], row["reason"], row["message"], row["value"]) for row in bad]
        self._store.keep(TOPIC, self._position, after, scores, reached, refused)
        self._position.update(after)
        self.scored, self.refused, self.alerts = self.scored + good.num_rows, self.refused + len(refused), self.alerts + reached.num_rows


def scored(records: DataFrame, spec: dict[str, Any], model: PipelineModel) -> DataFrame:
    """The stream of records as rows to keep: each scored, or refused with its whole value. Planned once, not with each micro-batch."""
    decoded = wire.decoded(records, spec["schemas"], "TransactionRecorded", spec["latest"]["TransactionRecorded"])
    # What Postgres keeps as text and DynamoDB as a key; a foreign producer is not bound by our own rules for ids.
    tx_id = col("record.tx_id")
    is_fit = length(tx_id).between(1, _MOST_CHARACTERS) & (instr(tx_id, "\x00") == 0)
    is_read = col("reason").isNull() & col("is_ours")
    is_no_text, is_unfit = is_read & ~is_valid_utf8(tx_id), is_read & ~coalesce(is_fit, lit(False))
    reason = when(is_no_text, lit("malformed")).when(is_unfit, lit("invalid_tx_id")).otherwise(col("reason"))
    expected = lit(f"tx_id: expected 1 to {_MOST_CHARACTERS} characters of text")
    message = when(is_no_text | is_unfit, expected).otherwise(col("message"))
    checked = decoded.withColumns({"reason": reason, "message": message, "seq": wire.seq_of()})
    return model.transform(with_features(checked)).select(
        "partition", "offset", "seq", "reason", "message", coalesce(col("is_ours"), lit(False)).alias("is_ours"),
        when(col("reason").isNull(), col("record.tx_id")).alias("tx_id"),
        when(year("record.occurred_at").between(1, 9999), col("record.occurred_at")).alias("occurred_at"),
        vector_to_array("probability").getItem(1).alias("score"),
        when(col("reason").isNotNull(), col("value")).alias("value"),
    )  # fmt: skip


def score(spec: dict[str, Any], tell: Callable[..., None]) -> dict[str, Any]:
    """See the module."""
    try:
        return _score(spec, tell)
    except (ItemsUnavailable, psycopg.OperationalError) as error:
        raise channel.Refused(str(error)) from error
    except StreamingQueryException as error:
        raise channel.Refused(_said(str(error))) from error


def _score(spec: dict[str, Any], tell: Callable[..., None]) -> dict[str, Any]:
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    store = ScoreStore(spec["dsn"])
    store.prepare()
    items = AlertItems(boto3.client("dynamodb", **spec["aws"]), spec["table"])
    if spec["makes_table"] and not items.exists():
        # Forgotten first: killed between the two, the next start finds no table and forgets again.
        store.forget_deliveries()
        items.prepare()
    spark = session.session(spec, "score")
    scoring = Scoring(spec, store, items, tell)
    scoring.deliver()
    # From the very first record where nothing was scored yet: what Kafka has forgotten of it is an error, not a silence.
    starts = {partition: scoring.starts.get(partition, 0) for partition in range(spec["partitions"])}
    scratch = spec.get("scratch") or tempfile.mkdtemp()
    source = scored(session.stream(spark, spec, TOPIC, starts, spec["batch"]), spec, PipelineModel.load(spec["model"]))
    tell("progress", stage="scoring", starts=starts)
    writer = source.writeStream.foreachBatch(scoring).option("checkpointLocation", str(Path(scratch) / "checkpoint"))
    query = (writer.trigger(availableNow=True) if spec["once"] else writer.trigger(processingTime="200 milliseconds")).start()
    while not stop.is_set() and query.isActive:
        query.awaitTermination(_LOOK_S)  # raises what ended the query
    deadline = time.monotonic() + _END_S
    while query.isActive and scoring.is_busy and time.monotonic() < deadline:
        time.sleep(_LOOK_S / 5)
    scoring.is_ending = True
    query.stop()
    scoring.settle()
    return {"records": scoring.records, "scored": scoring.scored, "refused": scoring.refused, "alerts": scoring.alerts}


def _said(failure: str) -> str:
    """The line of a failed query that says what is wrong."""
    for name in (StaleScores.__name__, ItemsUnavailable.__name__, psycopg.OperationalError.__name__):
        if name in failure:
            at = failure.index(name)
            return failure[at : at + 500].split("\n")[0].partition(": ")[2] or failure[at : at + 500]
    return json.dumps(failure[:1_000])


if __name__ == "__main__":
    channel.run(score)
