"""Scoring the stream with the promoted regression, what it left in the stores, and how it does beside the graph network."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from threading import Event
from typing import Any

import numpy as np
import psycopg
from botocore.exceptions import BotoCoreError

from domain.errors import InvalidValue
from domain.log import Position
from infra.composition import Composition
from infra.history import labels_of_log
from infra.judging import scores as graph_scores
from infra.spark.jobs.alert_items import AlertItems, ItemsUnavailable
from infra.spark.jobs.fields import FIELDS
from infra.spark.jobs.score_store import SCHEMA, ScoreStore
from infra.spark.models import JudgedModel, judged, promoted, serving
from infra.spark.run import SparkRunner, Told
from projections.errors import ProjectionError, StoreUnavailable
from schema_registry.byte_column import ByteColumn
from schema_registry.column_codec import schema_ids
from schema_registry.contracts import TRANSACTION_EVENTS

_NO_TABLE = "42P01"
_LOOK_S = 1.0
BATCH = 200_000


@dataclass(frozen=True, slots=True)
class SparkHeld:
    """What the stores hold. `others` are records of other contracts, which give no row; `missing` records up to the position have none,
    `extra` rows no record; `behind` records lie after the position. `alerts` in the relational store, `delivered` of
    them, `items` in DynamoDB.
    """

    position: dict[str, int]
    scored: int
    refused: int
    others: int
    missing: int
    extra: int
    behind: int
    alerts: int
    delivered: int
    items: int

    @property
    def is_whole(self) -> bool:
        """Each record has one row, and DynamoDB what was delivered; a job that runs delivers more meanwhile."""
        return not self.missing and not self.extra and self.delivered <= self.items

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "is_whole": self.is_whole}


@dataclass(frozen=True, slots=True)
class Beside:
    """Both models on the same transactions, which neither was trained on: from `from_seq` on, with a label known now."""

    from_seq: int
    transactions: int
    fraud: int
    regression: JudgedModel
    graph: JudgedModel

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def score_stream(
    runner: SparkRunner,
    *,
    threshold: float | None,
    once: bool,
    batch: int,
    model_version: str | None = None,
    told: Told = lambda line: None,
    stop: Event | None = None,
    dies_at: str | None = None,
) -> dict[str, Any]:
    """Score from the stored position on; with `once` up to the head as it is now.

    Args:
        threshold: the score from which a transaction is an alert; by default the promoted model's.
        batch: records of a micro-batch at most.
        model_version: a saved model; by default the promoted one.
        dies_at: for tests: a step at which the job is killed.

    Raises:
        NotReady: no model is promoted.
        SparkJobFailed: a store does not answer, another job writes there, or the job died.
    """
    spec = scoring_spec(runner, threshold, once, batch, model_version)
    return runner.run("score", {**spec, "dies_at": dies_at}, told, stop)


def scoring_spec(
    runner: SparkRunner, threshold: float | None, once: bool = False, batch: int = BATCH, model_version: str | None = None
) -> dict[str, Any]:
    """What the job must know. Arguments and errors as `score_stream`."""
    composition = runner.composition
    model, folder = serving(composition, model_version)
    settings = composition.settings
    partitions = len(composition.clients.admin.partitions([TRANSACTION_EVENTS]))
    return {
        **runner.spec("TransactionRecorded", fields=FIELDS),
        "model": folder, "model_version": model["model_version"], "threshold": model["threshold"] if threshold is None else threshold,
        "dsn": dsn_of(composition), "aws": settings.aws.client_config(), "table": settings.spark.alerts_table,
        "partitions": partitions, "once": once, "batch": batch,
        # On AWS the template makes it.
        "makes_table": not settings.aws.is_itself,
    }  # fmt: skip


def held(composition: Composition) -> SparkHeld:
    """What the stores hold now, against the log up to the stored position.

    Raises:
        StoreUnavailable, ProjectionError: a store does not answer, or has no tables yet.
        LogError: the log cannot be read.
    """
    try:
        store = ScoreStore(dsn_of(composition))
        try:
            position, scored, set_aside, alerts, delivered = store.snapshot(TRANSACTION_EVENTS)
        finally:
            store.close()
        items = AlertItems(composition.clients.aws("dynamodb"), composition.settings.spark.alerts_table).count()
    except psycopg.Error as error:
        if error.sqlstate == _NO_TABLE:
            raise ProjectionError("nothing was scored by Spark yet: run `tidemark spark score`") from error
        raise StoreUnavailable(f"the scores in Postgres cannot be read: {error}") from error
    except (ItemsUnavailable, BotoCoreError) as error:
        raise StoreUnavailable(str(error)) from error
    ends = {(TRANSACTION_EVENTS, partition): offset for partition, offset in position.items()}
    heads = composition.log.ends([TRANSACTION_EVENTS])
    known: set[tuple[int, int]] = set()
    behind = others = 0
    catalog = composition.clients.catalog
    of_others = np.array(sorted(set(catalog.schemas()) - catalog.ids_of("TransactionRecorded")), np.int64)
    for part in composition.log.read([TRANSACTION_EVENTS], {}, heads):
        places = list(zip(part.partitions.tolist(), part.offsets.tolist(), strict=True))
        mine = [place for place in places if place[1] < ends.get((TRANSACTION_EVENTS, place[0]), 0)]
        behind += len(places) - len(mine)
        is_other = np.isin(schema_ids(ByteColumn.of(part.values)), of_others)
        left_out = {place for place, other in zip(places, is_other.tolist(), strict=True) if other}
        known.update(place for place in mine if place not in left_out)
        others += len(left_out)
    rows, refused = set(scored), set(set_aside)
    stored = rows | refused
    return SparkHeld(
        {str(partition): offset for partition, offset in sorted(position.items())}, len(rows), len(refused),
        others, len(known - stored), len(stored - known) + len(rows & refused), behind, alerts, delivered, items,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class SparkWaited:
    """What was done when the wait ended: the position reached the head as it was at the call, each alert has
    an item, and each item was told of."""

    is_reached: bool
    scored: int
    alerts: int
    told: int
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def wait(composition: Composition, timeout_s: float) -> SparkWaited:
    """Wait until the scores include the head as it is now, and until their alerts are told of.

    Errors as `held`.
    """
    from infra.lambdas.stream_alerts_function import untold

    began = time.monotonic()
    head = composition.log.ends([TRANSACTION_EVENTS])
    while True:
        counts = _counts(composition)
        items = _items(composition) if counts else 0
        left = untold(composition) if counts else 0
        is_reached = counts is not None and counts.has_reached(head) and items >= counts.alerts and not left
        if is_reached or time.monotonic() - began > timeout_s:
            scored, alerts = (counts.scored, counts.alerts) if counts is not None else (0, 0)
            return SparkWaited(is_reached, scored, alerts, items - left, round(time.monotonic() - began, 1))
        time.sleep(_LOOK_S)


def _items(composition: Composition) -> int:
    try:
        return AlertItems(composition.clients.aws("dynamodb"), composition.settings.spark.alerts_table).count()
    except (ItemsUnavailable, BotoCoreError) as error:
        raise StoreUnavailable(str(error)) from error


@dataclass(frozen=True, slots=True)
class _Counts:
    position: dict[int, int]
    scored: int
    alerts: int

    def has_reached(self, head: Position) -> bool:
        return all(self.position.get(partition, 0) >= offset for (_, partition), offset in head.items())


def _counts(composition: Composition) -> _Counts | None:
    """None before the first start of the job."""
    try:
        store = ScoreStore(dsn_of(composition))
        try:
            return _Counts(store.position(TRANSACTION_EVENTS), store.count("score"), store.count("alert"))
        finally:
            store.close()
    except psycopg.Error as error:
        if error.sqlstate == _NO_TABLE:
            return None
        raise StoreUnavailable(f"the scores in Postgres cannot be read: {error}") from error


def beside(composition: Composition) -> Beside | None:
    """Regression and graph network on the transactions that both have scored and neither was trained on; none where there are none
    with a label.

    Errors as `held`.
    """
    model, deployed = promoted(composition), composition.log.deployed()
    if model is None or deployed is None:
        return None
    first = max(int(model["trained_to_seq"]), composition.log.trained_to(deployed.model_version))
    wallets, transactions = labels_of_log(composition, datetime.now(UTC))
    graph = graph_scores(composition).to_pylist()
    theirs = _scored(composition, first)
    rows: list[tuple[bool, float, float]] = []
    for row in graph:
        if row["tx_seq"] < first or row["tx_seq"] not in theirs:
            continue
        own = transactions.get(row["tx_id"])
        known = [wallets[name] for name in (row["source_wallet_id"], row["target_wallet_id"]) if name in wallets]
        if own is None and not known:
            continue
        rows.append((own.is_positive if own else any(one.is_positive for one in known), theirs[row["tx_seq"]], row["score"]))
    if not rows:
        return None
    truth, ours, graphs = (np.array(column) for column in zip(*rows, strict=True))
    label = truth.astype(np.int64)
    return Beside(
        first, len(rows), int(label.sum()), judged(str(model["model_version"]), label, ours), judged(deployed.model_version, label, graphs)
    )


def dsn_of(composition: Composition) -> str:
    """The Postgres that holds the scores.

    Raises:
        InvalidValue: the warehouse is Redshift, where a micro-batch's small transactions do not belong.
    """
    if composition.warehouse_dsn.startswith("redshift"):
        raise InvalidValue("warehouse.dsn", "Spark's scores are kept in Postgres: a Redshift takes them by its own COPY (docs/spark.md)")
    return composition.warehouse_dsn


def _scored(composition: Composition, first: int) -> dict[int, float]:
    try:
        with psycopg.connect(dsn_of(composition)) as connection:
            return dict(connection.execute(f"SELECT seq, score FROM {SCHEMA}.score WHERE seq >= %s", (first,)).fetchall())
    except psycopg.Error as error:
        raise StoreUnavailable(f"the scores in Postgres cannot be read: {error}") from error
