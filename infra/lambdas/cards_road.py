"""The cards road as one command: payments by COPY into the warehouse, a model from the earlier ones, live scores of the later ones,
alerts by the function, and what came of them where one payment in some hundreds is fraud.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg

from domain.commands import LabelTransaction
from domain.errors import InvalidValue
from infra.composition import Composition
from infra.deployment import deploy_model
from infra.ingest import UnknownFormat, ingest_file, new_ingest_id
from infra.judging import TransactionJudgements, scores, transaction_judgements
from infra.lambdas.card_alerts import CARD_ALERTS
from infra.lambdas.cards_function import GROUP, held, latest, prepare, start
from infra.log_setup import prepare_log, start_workers
from infra.read_your_write import NotIncludedYet, token_now, wait_for
from infra.simulator.cards import CardOptions, write_card_payments
from infra.sources.cut import Cut, cut_of
from infra.sources.mapping import TransactionMapping
from infra.sources.shipped import header_of, transaction_mapping
from infra.stack import Stack
from infra.training import train_model
from ml.evaluation import at_budget, auroc, average_precision
from schema_registry.column_codec import ColumnCodec
from schema_registry.contracts import COMMANDS, CONTROL_EVENTS, SCORE_EVENTS, WALLET_EVENTS
from schema_registry.record_codec import RecordCodec

MAPPING = "kaggle_card"
BUDGETS = (0.001, 0.005, 0.01)
"""Shares of the payments that people can look at."""
IMBALANCE = (
    "no row is weighted, copied or left out, so that scores stay probabilities; the threshold is the one with the best F1 on the last 15 %"
    " of the training rows, and what is reported looks at the rare class: average precision, recall and precision at a budget"
)
_WORKERS = ("command-handler", "archive", "warehouse")
_WAIT_S = 900.0
_LEARNED_AFTER = timedelta(days=30)  # a card holder complains, a bank decides: weeks, of which the file says nothing
_COUNT = "SELECT count(*), count(class), coalesce(sum(class), 0) FROM warehouse.fraud_detection"


@dataclass(frozen=True, slots=True)
class CardsOptions:
    """What the road is walked with. Without `data` payments are simulated; without a threshold it is the model's own.

    `seed` fixes simulation and training.
    """

    count: int
    frauds: int
    seed: int
    data: Path | None = None
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class CardsReport:
    """What became of the payments. `figures` are of the later part alone, which the model has not learned from; `without_graph` the same by
    the model without any graph. `was_walked`: nothing was sent or trained, for the log had all of it.
    """

    data: str
    is_simulated: bool
    was_walked: bool
    payments: int
    train: dict[str, int]
    judged: dict[str, int]
    model_version: str
    threshold: float
    imbalance: str
    figures: dict[str, Any]
    without_graph: dict[str, Any]
    graph: str
    alerts: dict[str, Any]
    warehouse: dict[str, int]
    seconds: dict[str, float]

    def as_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return asdict(self)


class _Watch:
    """Seconds by step."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._since = say, time.monotonic()
        self.seconds: dict[str, float] = {}

    def begin(self, name: str, text: str) -> None:
        self._say(text)
        self._since, self._name = time.monotonic(), name

    def end(self) -> None:
        self.seconds[self._name] = round(time.monotonic() - self._since, 1)


def run(stack: Stack, composition: Composition, options: CardsOptions, say: Callable[[str], None]) -> CardsReport:
    """Walk the road. Safe to repeat: the same payments are recorded, learned and scored once.

    Raises:
        UnknownFormat: the data has other columns than Kaggle's file.
        TrainingDataError: too few frauds before the cut.
        TidemarkError: a server does not answer, or a worker stands still.
    """
    road = _Road(stack, composition, options, say)
    return road.walk()


class _Road:
    def __init__(self, stack: Stack, composition: Composition, options: CardsOptions, say: Callable[[str], None]) -> None:
        self._stack, self._composition, self._options = stack, composition, options
        self._watch = _Watch(say)
        self._data = options.data or self._simulated()
        self._mapping = _mapping(self._data)
        self._cut: Cut = cut_of(self._data, self._mapping, by="rows")
        if not self._cut.test:
            raise InvalidValue("data", f"{self._data}: expected a Class of 0 or 1 in its later rows, found none: nothing could be judged")

    def walk(self) -> CardsReport:
        composition, cut = self._composition, self._cut
        prepare_log(composition)
        start_workers(self._stack, composition, _WORKERS)
        prepare(composition)
        truth = {tx_id: label == "illicit" for tx_id, label in cut.test.items()}
        was_walked = len(self._judgements(truth).label) >= len(truth)
        if not was_walked:
            self._learn()
        model_version, card = self._model()
        threshold = self._threshold(card)
        start(self._stack, threshold)
        if not was_walked:
            self._stream()
        judgements = self._judgements(truth)
        self._watch.begin("settle", "waiting for the function and the warehouse; labels of the later part become known")
        self._until_alerted()
        self._tell_labels()
        self._included("warehouse")
        self._watch.end()
        found = held(composition)
        mine = [alert for alert in latest(composition, None) if alert.tx_id in truth]
        return CardsReport(
            str(self._data), self._options.data is None, was_walked, len(cut.training) + len(cut.test),
            _balance(cut.training), _balance(cut.test), model_version, threshold, IMBALANCE,
            _figures(judgements.label, judgements.score), _figures(judgements.label, judgements.features_only), _of_graph(judgements),
            {**found.as_json(), "of_these_payments": len(mine), "frauds_among_them": sum(truth[alert.tx_id] for alert in mine)},
            self._view(), self._watch.seconds,
        )  # fmt: skip

    def _simulated(self) -> Path:
        """The simulated payments as a file of the stack's, made once."""
        given = self._options
        path = self._stack.state.folder / "simulated" / f"creditcard-{given.count}-{given.frauds}-{given.seed}.csv"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".part.csv")
            write_card_payments(CardOptions(given.count, given.frauds, given.seed), partial)
            partial.replace(path)
        return path

    def _learn(self) -> None:
        cut, composition = self._cut, self._composition
        self._watch.begin("ingest", f"{cut.row:,} payments with their labels, up to {cut.occurred_at:%Y-%m-%d %H:%M}")
        self._ingest(0, cut.row, has_labels=True)
        self._included("warehouse")
        self._watch.end()
        self._watch.begin("train", "training on the labels known then")
        train_model(composition, seed=self._options.seed, at=cut.occurred_at)
        self._watch.end()
        self._watch.begin("deploy", "deploying")
        deploy_model(composition, self._stack)
        self._stack.stop_worker("scorer")  # one that runs keeps its model
        start_workers(self._stack, composition, ("scorer",))
        self._watch.end()

    def _stream(self) -> None:
        cut = self._cut
        self._watch.begin("score", f"{cut.rows - cut.row:,} payments without labels, scored as they come")
        self._ingest(cut.row, None, has_labels=False)
        self._included("scorer")
        self._watch.end()

    def _ingest(self, first_row: int, last_row: int | None, *, has_labels: bool) -> None:
        ingest_file(
            self._composition, str(self._data), MAPPING, ingest_id=new_ingest_id(str(self._data)), known_at=self._cut.occurred_at,
            first_row=first_row, last_row=last_row, has_labels=has_labels, in_time_order=not self._cut.is_sorted,
        )  # fmt: skip

    def _tell_labels(self) -> None:
        """What is learned later about the payments that were judged; dated behind the cut, so that no training here may use it."""
        composition, label = self._composition, self._mapping.label
        assert label is not None
        known_at = self._cut.occurred_at + _LEARNED_AFTER
        told = self._labelled()
        commands = [LabelTransaction(tx_id, name, label.source, known_at) for tx_id, name in self._cut.test.items() if tx_id not in told]
        codec = RecordCodec(composition.clients.catalog)
        composition.producer.send(COMMANDS, [x.tx_id.encode() for x in commands], [codec.encode_event(x) for x in commands])
        composition.producer.flush()

    def _labelled(self) -> set[str]:
        """The transactions that have a label in the log."""
        codec = ColumnCodec(self._composition.clients.catalog, {"TransactionLabelled": ("tx_id",)})
        decoded = (
            codec.decode(batch.values).tables.get("TransactionLabelled") for batch in self._composition.log.read([WALLET_EVENTS], {})
        )
        return {tx_id for found in decoded if found is not None for tx_id in found.table["tx_id"].to_pylist()}

    def _included(self, reader: str) -> None:
        wait_for(token_now(self._composition), reader, _WAIT_S, composition=self._composition)

    def _until_alerted(self) -> None:
        """Until the function has done every score that the log holds now."""
        composition = self._composition
        ends = composition.log.ends([SCORE_EVENTS])
        deadline = time.monotonic() + _WAIT_S
        while True:
            position = composition.clients.admin.committed(GROUP, [SCORE_EVENTS])
            if all(position.get(place, 0) >= end for place, end in ends.items()):
                return
            if time.monotonic() > deadline:
                raise NotIncludedYet(f"the function has not done all scores after {_WAIT_S:.0f} s: {self._stack.explain(CARD_ALERTS)}")
            time.sleep(0.2)

    def _judgements(self, truth: Mapping[str, bool]) -> TransactionJudgements:
        return transaction_judgements(scores(self._composition), truth)

    def _model(self) -> tuple[str, dict[str, Any]]:
        """The model deployed last and its card."""
        deployed = self._composition.log.deployed()
        assert deployed is not None
        trained = [record for name, record, *_ in self._composition.log.events(CONTROL_EVENTS) if name == "ModelTrained"]
        *_, found = (record["metrics"] for record in trained if record["model_version"] == deployed.model_version)
        return deployed.model_version, json.loads(found)

    def _threshold(self, card: Mapping[str, Any]) -> float:
        if self._options.threshold is not None:
            return self._options.threshold
        own = card.get("head_thresholds", {}).get("all")
        return float(own) if own is not None else self._composition.settings.card_alerts.threshold

    def _view(self) -> dict[str, int]:
        """Rows of `fraud_detection`, those with a class, and frauds among them."""
        redshift = self._composition.redshift
        if redshift is not None:
            with redshift.engine.connect() as connection:
                counts = list(connection.exec_driver_sql(_COUNT).fetchall()[0])
        else:
            with psycopg.connect(self._composition.warehouse_dsn) as plain:
                counts = list(plain.execute(_COUNT).fetchall()[0])
        return dict(zip(("payments", "with_class", "frauds"), map(int, counts), strict=True))


def _mapping(data: Path) -> TransactionMapping:
    mapping = transaction_mapping(MAPPING)
    wanted = {"Time", "Amount", "Class", *(f"V{n}" for n in range(1, 29))}
    missing = wanted - set(header_of(data))
    if missing:
        raise UnknownFormat(f"{data}: expected the columns of Kaggle's creditcard.csv, found none of the name {', '.join(sorted(missing))}")
    return mapping


def _balance(labels: Mapping[str, str]) -> dict[str, int]:
    frauds = sum(label == "illicit" for label in labels.values())
    return {"payments": len(labels), "frauds": frauds}


def _figures(label: Any, score: Any) -> dict[str, Any]:
    return {
        "average_precision": average_precision(label, score), "auroc": auroc(label, score),
        "at_budget": [asdict(at_budget(label, score, share)) for share in BUDGETS] if len(label) else [],
    }  # fmt: skip


def _of_graph(judgements: TransactionJudgements) -> str:
    if judgements.n_wallets:
        return f"{judgements.n_wallets} of the {len(judgements.label)} judged payments name a wallet"
    return "no payment names a card or a shop: there is no graph, and the model with one and without one are the same"
