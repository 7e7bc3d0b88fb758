"""Logistic regression as an operator's step: trained by Spark on the archive, judged on later transactions, promoted where it holds.

A model is a folder of the bucket, `models/spark/<version>/`; `models/spark/promoted.json` names the one that scores.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow.parquet as pq
from botocore.exceptions import BotoCoreError, ClientError

from infra.composition import Composition, NotReady
from infra.spark.jobs.fields import FEATURES, FIELDS
from infra.spark.run import SparkJobFailed, SparkRunner
from ml.evaluation import at_budget, auroc, average_precision
from projections.errors import StoreUnavailable
from schema_registry.contracts import TRANSACTION_EVENTS

PREFIX = "models/spark"
BUDGETS = (0.001, 0.01, 0.05)
"""Shares of the transactions that people can look at."""
ALERT_SHARE = 0.01
_READ = ("TransactionRecorded", "WalletLabelled", "TransactionLabelled")
_ABSENT = {"NoSuchKey", "NoSuchBucket", "404"}
_VERSION = re.compile(r"lr-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class JudgedModel:
    """How well a model ranks the later transactions: figures in [0, 1], none where a class is missing."""

    model_version: str
    average_precision: float | None
    auroc: float | None
    at_budget: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class SparkTraining:
    """What training gave. `judged_on` labelled transactions from `cut_seq` on; `champion` is what scored before, none at first.

    `model_version` was trained on all up to `end_seq`; it was promoted where `has_passed`.
    """

    model_version: str
    cut_seq: int
    end_seq: int
    trained_on: int
    fraud: int
    judged_on: int
    challenger: JudgedModel
    champion: JudgedModel | None
    champion_knew: bool
    tolerance: float
    has_passed: bool
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def train(runner: SparkRunner, share: float, tolerance: float, say: Callable[[str], None], promotes: bool = True) -> SparkTraining:
    """Train on the archive and promote where the gate lets it.

    Args:
        share: of the transactions, the last, that it is judged on.
        tolerance: how much average precision it may lack beside the model that scores now.

    Raises:
        SparkJobFailed: too few labels, or the job died; the message says what to do.
        StoreUnavailable: S3 does not answer.
    """
    started = time.monotonic()
    composition = runner.composition
    end = composition.log.next_seq(TRANSACTION_EVENTS)
    cut = int(end * (1.0 - share))
    before = promoted(composition)
    if before is not None and before.get("features") != FEATURES:
        say(f"{before['model_version']} knows other features than this version of Tidemark: nothing to be held against")
        before = None
    bucket = composition.settings.s3.bucket
    judged_file = runner.folder / f"judged-{uuid4().hex[:12]}.parquet"  # of this training alone: two may run at once
    spec = {
        **runner.spec(*_READ, fields=FIELDS),
        "cut_seq": cut, "end_seq": end, "judged": str(judged_file), "models": f"s3a://{bucket}/{PREFIX}",
        "champion": None if before is None else before["pipeline"],
    }  # fmt: skip
    try:
        found = runner.run("train", spec, lambda line: say(line["stage"]) if line["kind"] == "progress" else None)
        table = pq.read_table(judged_file)
    finally:
        judged_file.unlink(missing_ok=True)
    label = table["label"].to_numpy().astype(np.int64)
    challenger = judged("challenger", label, table["challenger"].to_numpy())
    champion = None if before is None else judged(before["model_version"], label, table["champion"].to_numpy())
    if not np.isfinite(table["challenger"].to_numpy()).all():
        raise SparkJobFailed(f"{found['model_version']} says no number of some transactions: its training met values that are none")
    has_passed = champion is None or (challenger.average_precision or 0.0) >= (champion.average_precision or 0.0) - tolerance
    result = SparkTraining(
        found["model_version"], cut, end, found["trained_on"], found["fraud"], found["judged_on"], challenger, champion,
        before is not None and before["trained_to_seq"] > cut, tolerance, has_passed, round(time.monotonic() - started, 1),
    )  # fmt: skip
    # From here on an alert: as many as people are taken to look at, by the judged part.
    threshold = float(np.quantile(table["challenger"].to_numpy(), 1.0 - ALERT_SHARE))
    card = {
        "model_version": result.model_version, "pipeline": found["pipeline"], "features": FEATURES, "trained_to_seq": end,
        "threshold": threshold, "judged": result.as_json(),
    }  # fmt: skip
    _put(composition, f"{result.model_version}/model.json", card)
    if has_passed and promotes:
        promote(composition, result.model_version)
    return result


def promote(composition: Composition, model_version: str) -> None:
    """Let a saved model score from the next start of the job on.

    Raises:
        NotReady: there is none of this version, or it was made of other features.
        StoreUnavailable: S3 does not answer.
    """
    card = _saved(composition, model_version)
    _demand_features(card)
    _put(composition, "promoted.json", {**card, "promoted_at": datetime.now(UTC).isoformat()})


def promoted(composition: Composition) -> dict[str, Any] | None:
    """The card of the model that scores (`model_version`, `features`, `trained_to_seq`, `threshold`), none before the first.

    Raises:
        StoreUnavailable: S3 does not answer.
    """
    return _get(composition, "promoted.json")


def serving(composition: Composition, model_version: str | None = None) -> tuple[dict[str, Any], str]:
    """Card and folder of a saved model, by default of the promoted one.

    Raises:
        NotReady: there is none, or it was made of other features.
    """
    found = promoted(composition) if model_version is None else _saved(composition, model_version)
    if found is None:
        raise NotReady("no logistic regression is promoted yet: run `tidemark spark train`")
    _demand_features(found)
    return found, str(found["pipeline"])


def _saved(composition: Composition, model_version: str) -> dict[str, Any]:
    card = _get(composition, f"{model_version}/model.json") if _VERSION.fullmatch(model_version) else None
    if card is None:
        raise NotReady(f"no regression {model_version[:80]!r} was saved here: `tidemark spark train` says the versions")
    return card


def _demand_features(card: dict[str, Any]) -> None:
    if card.get("features") != FEATURES:
        raise NotReady(f"{card['model_version']} knows other features than this version of Tidemark: run `tidemark spark train`")


def judged(version: str, label: Any, score: Any) -> JudgedModel:
    """Figures of one model: label int64 [n], score float64 [n]."""
    return JudgedModel(
        version, average_precision(label, score), auroc(label, score), [asdict(at_budget(label, score, share)) for share in BUDGETS]
    )  # fmt: skip


def _get(composition: Composition, name: str) -> dict[str, Any] | None:
    try:
        body = composition.clients.s3.get_object(Bucket=composition.settings.s3.bucket, Key=f"{PREFIX}/{name}")["Body"]
        found: dict[str, Any] = json.loads(body.read())
    except ClientError as error:
        if str(error.response.get("Error", {}).get("Code")) in _ABSENT:
            return None
        raise StoreUnavailable(f"S3: {PREFIX}/{name} cannot be read: {error}") from error
    except BotoCoreError as error:
        raise StoreUnavailable(f"S3: {PREFIX}/{name} cannot be read: {error}") from error
    return found


def _put(composition: Composition, name: str, content: dict[str, Any]) -> None:
    body = json.dumps(content, indent=1).encode()
    try:
        composition.clients.s3.put_object(Bucket=composition.settings.s3.bucket, Key=f"{PREFIX}/{name}", Body=body)
    except (ClientError, BotoCoreError) as error:
        raise StoreUnavailable(f"S3: {PREFIX}/{name} cannot be written: {error}") from error
