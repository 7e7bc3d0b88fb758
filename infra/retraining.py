"""Retraining with a gate: a challenger learns from the first part of history and is held against what serves on the rest; only where it
holds is a model trained on all of history, and deployed.

The same steps are a SageMaker pipeline in infra/aws/retraining_pipeline.json.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from domain.errors import TidemarkError
from graph.features import FeatureState, TransactionColumns
from graph.restatement import Restatement
from infra.composition import Composition
from infra.deployment import deploy_model
from infra.history import known_labels, transactions_in_order
from infra.judging import transaction_judgements, wallet_judgements
from infra.restated_history import restated_history
from infra.restatements import restatements
from infra.stack import Stack
from infra.training import train_model
from ml.evaluation import auroc, average_precision
from ml.rescorer import PackagedModel
from ml.scorer import scored_rows
from schema_registry.contracts import TRANSACTION_EVENTS

LEAST_OF_A_CLASS = 10  # judged wallets or transactions; below, a figure says more about chance than about a model
STEP = 5_000
_JUDGED = (
    "tx_id", "source_wallet_id", "target_wallet_id", "source_k", "target_k", "source_score", "target_score", "score",
    "source_features_only_score", "target_features_only_score", "features_only_score",
)  # fmt: skip

Progress = Callable[[str, float], None]
"""Told a stage and the share of it that is done."""


class TooFewToJudge(TidemarkError):
    """The last part of history has too few labels: neither passing nor failing would mean anything."""


@dataclass(frozen=True, slots=True)
class Figures:
    """One model on the last part of history: AUROC and average precision, each in [0, 1]."""

    model_version: str
    trained_to_seq: int
    auroc: float
    average_precision: float


@dataclass(frozen=True, slots=True)
class GateResult:
    """What the gate found. `champion` is none where nothing serves yet; `has_passed` says whether to go on.

    `judged` wallets (first seen from `cut_seq` on) or transactions, of them `fraud`. Where the champion was trained on what it is judged
    on here, `champion_knew` is true: the comparison then favours it.
    """

    cut_seq: int
    end_seq: int
    labels_are_of: str
    judged: int
    fraud: int
    challenger: Figures
    champion: Figures | None
    champion_knew: bool
    tolerance: float
    has_passed: bool

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(slots=True)
class RetrainResult:
    """The gate's verdict, and what was trained and deployed where it passed."""

    gate: GateResult
    model_version: str | None = None
    endpoint: str | None = None
    from_seq: int | None = None
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "gate": self.gate.as_json(), "model_version": self.model_version, "endpoint": self.endpoint, "from_seq": self.from_seq,
            "seconds": round(self.seconds, 1),
        }  # fmt: skip


def retrain(
    composition: Composition,
    stack: Stack,
    *,
    share: float = 0.2,
    tolerance: float = 0.01,
    seed: int = 7,
    gate_only: bool = False,
    progress: Progress = lambda stage, done: None,
) -> RetrainResult:
    """Judge a challenger, and where it passes train on everything and deploy.

    Args:
        share: of the transactions, the last, that models are judged on.
        tolerance: how much AUROC the challenger may lack beside what serves.
        gate_only: stop after the gate either way.

    Raises:
        TooFewToJudge: too few labels in the last part.
        TrainingDataError: too few in the first.
        LogError: the log cannot be read or written.
    """
    started = time.monotonic()
    result = RetrainResult(judge_challenger(composition, share, tolerance, seed, progress))
    if result.gate.has_passed and not gate_only:
        trained = train_model(composition, seed=seed, progress=progress)
        deployed = deploy_model(composition, stack, trained.model_version)
        result.model_version, result.endpoint, result.from_seq = deployed.model_version, deployed.endpoint, deployed.from_seq
    result.seconds = time.monotonic() - started
    return result


def judge_challenger(composition: Composition, share: float, tolerance: float, seed: int, progress: Progress) -> GateResult:
    """Train on the first part of history and judge on the rest, beside the model that serves. Nothing is written.

    Errors as `retrain`.
    """
    from ml.packaging import package
    from ml.training import Cut, train

    end = composition.log.next_seq(TRANSACTION_EVENTS)
    cut = int(end * (1.0 - share))
    now = datetime.now(UTC)
    labels = known_labels(composition, now)
    every = restatements(composition.log, end)
    left_out = [one for one in every if one.from_seq <= cut]
    seen: set[str] = set()
    trained = train(_noting(transactions_in_order(composition), cut, seen), labels, Cut(cut, now), seed, progress, left_out)
    packed = package(trained)
    models = {packed.model_version: PackagedModel(packed.data, packed.sha256)}
    trained_to = {packed.model_version: cut}
    deployed = composition.log.deployed()
    if deployed is not None and deployed.model_version not in models:
        models[deployed.model_version] = PackagedModel(*composition.trained_package(deployed.model_version))
        trained_to[deployed.model_version] = composition.log.trained_to(deployed.model_version)
    progress("judging", 0.0)
    scored = _scores(composition, models, every, cut, end, progress)
    are_of_wallets = bool(labels.wallets)
    truth = {name: label.is_positive for name, label in (labels.wallets or labels.transactions).items() if name not in seen}
    found: dict[str, Figures] = {}
    judged = fraud = 0
    for version, table in scored.items():
        label, score = _judged(table, truth, are_of_wallets)
        judged, fraud = len(label), int(label.sum())
        if min(fraud, judged - fraud) < LEAST_OF_A_CLASS:
            raise TooFewToJudge(
                f"seq {cut} to {end} has {fraud} fraudulent and {judged - fraud} honest {'wallets' if are_of_wallets else 'transactions'}"
                f" that are labelled and new; the gate needs {LEAST_OF_A_CLASS} of each: ingest more labels, or judge a larger --share"
            )
        found[version] = Figures(
            version, trained_to[version], float(auroc(label, score) or 0.0), float(average_precision(label, score) or 0.0)
        )
    challenger = found[packed.model_version]
    champion = found.get(deployed.model_version) if deployed is not None else None
    has_passed = champion is None or challenger.auroc >= champion.auroc - tolerance
    return GateResult(
        cut, end, "wallets" if are_of_wallets else "transactions", judged, fraud, challenger, champion,
        champion is not None and champion.trained_to_seq > cut, tolerance, has_passed,
    )  # fmt: skip


def _noting(tables: Iterable[pa.Table], cut: int, seen: set[str]) -> Iterator[pa.Table]:
    """The same tables; the wallets of what lies before the cut are noted on the way."""
    for table in tables:
        before = table.filter(pc.less(table["_seq"], cut))
        for side in ("source_wallet_id", "target_wallet_id"):
            seen.update(wallet for wallet in before[side].unique().to_pylist() if wallet is not None)
        yield table


def _scores(
    composition: Composition, models: dict[str, PackagedModel], left_out: Sequence[Restatement], cut: int, end: int, progress: Progress
) -> dict[str, pa.Table]:
    """What each model says of [`cut`, `end`), each transaction with the features that the scorer has as of it."""
    state = FeatureState()
    parts: dict[str, list[pa.Table]] = {version: [] for version in models}
    for piece in restated_history(lambda first: transactions_in_order(composition, first), state, left_out, cut, end, STEP):
        first_judged = int(np.searchsorted(piece["_seq"].to_numpy(), cut))
        if first_judged:
            state.observe(TransactionColumns.from_arrow(piece.slice(0, first_judged)), emit="none", neighbourhoods=False)
        table = piece.slice(first_judged)
        if not table.num_rows:
            continue
        snapshot = state.observe(TransactionColumns.from_arrow(table))
        for version, model in models.items():
            rows = scored_rows(table, snapshot, model.scores(snapshot), version, takes_first_side=model.takes_first_side)
            parts[version].append(pa.table({name: [row[name] for row in rows] for name in _JUDGED}))
        progress("judging", (int(table["_seq"][-1].as_py()) - cut + 1) / (end - cut))
    return {version: pa.concat_tables(found, promote_options="permissive") for version, found in parts.items()}


def _judged(table: pa.Table, truth: dict[str, bool], are_of_wallets: bool) -> tuple[Any, Any]:
    """Labels int64 [n] and scores float64 [n]: of a wallet its last score, of a transaction its own."""
    if not are_of_wallets:
        found = transaction_judgements(table, truth)
        return found.label, found.score
    judged = wallet_judgements(table, set(truth))
    last: dict[str, tuple[int, float]] = {}
    for wallet, k, score in zip(judged.wallet, judged.k.tolist(), judged.score.tolist(), strict=True):
        if k >= last.get(wallet, (0, 0.0))[0]:
            last[wallet] = (k, score)
    wallets = sorted(last)
    return np.array([truth[wallet] for wallet in wallets], np.int64), np.array([last[wallet][1] for wallet in wallets])
