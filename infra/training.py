"""Training as an operator's step: history and labels from the log in, a package in S3 and its events in the log out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from domain.log import NewRecord
from infra.composition import Composition
from infra.history import known_labels, transactions_in_order
from infra.restatements import restate_features, restatements
from projections.records import seq_header
from schema_registry.contracts import CONTROL_EVENTS, EMBEDDING_EVENTS, TRANSACTION_EVENTS
from schema_registry.record_codec import RecordCodec


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What training gave. `card` is the package's model card."""

    model_version: str
    package_sha256: str
    package_uri: str
    trained_to_seq: int
    embeddings: int
    seconds: float
    card: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """The result as plain values."""
        return {
            "model_version": self.model_version, "package_sha256": self.package_sha256, "package_uri": self.package_uri,
            "trained_to_seq": self.trained_to_seq, "embeddings": self.embeddings, "seconds": round(self.seconds, 2), "card": self.card,
        }  # fmt: skip


def train_model(
    composition: Composition,
    *,
    seed: int = 7,
    at: datetime | None = None,
    progress: Callable[[str, float], None] = lambda stage, share: None,
) -> TrainResult:
    """Train on all transactions that the log holds now and the labels known by `at` (now, when none is given).

    The package goes to S3; `ModelTrained` and a `WalletEmbedded` for every wallet seen go to the log.

    Raises:
        TrainingDataError: too few labels of a class, or no transactions; the message says what to do.
        LogError: the log cannot be read or written.
    """
    from ml.encoder import embed_all
    from ml.packaging import package
    from ml.scorer import embedded_value
    from ml.training import Cut, train

    started = time.monotonic()
    at = at or datetime.now(UTC)
    end = composition.log.next_seq(TRANSACTION_EVENTS)
    if composition.log.deployed() is None:  # nobody scores yet, so it is for us to say what features leave out
        restate_features(composition.log, composition.clients, composition.producer, end)
    left_out = restatements(composition.log, end)
    model = train(transactions_in_order(composition), known_labels(composition, at), Cut(end, at), seed, progress, left_out)
    packed = package(model)
    bucket = composition.settings.s3.bucket
    # The same weights trained at another time are the same version in another package: none takes a deployed one's place.
    key = f"models/{packed.model_version}/{packed.sha256[:12]}/model.tar.gz"
    composition.archive().prepare()
    composition.clients.s3.put_object(Bucket=bucket, Key=key, Body=packed.data)
    uri = f"s3://{bucket}/{key}"
    progress("embeddings", 0.0)
    wallet_ids, vectors = embed_all(model.state, model.encoder)
    codec = RecordCodec(composition.clients.catalog)
    version, last_seq = packed.model_version, end - 1
    embedded = [
        NewRecord(
            EMBEDDING_EVENTS, wallet_id.encode(), embedded_value(codec, wallet_id, vector, version, last_seq), (seq_header(last_seq),)
        )
        for wallet_id, vector in zip(wallet_ids, vectors, strict=True)
    ]
    composition.producer.append(embedded)
    trained = {
        "model_version": version, "package_sha256": packed.sha256, "package_uri": uri, "trained_to_seq": end,
        "labels": sum(model.card["labels"].values()), "metrics": _metrics(model.card), "known_at": datetime.now(UTC),
    }  # fmt: skip
    composition.producer.append([NewRecord(CONTROL_EVENTS, b"model", codec.encode("ModelTrained", trained), (seq_header(last_seq),))])
    progress("embeddings", 1.0)
    return TrainResult(version, packed.sha256, uri, end, len(embedded), time.monotonic() - started, model.card)


def _metrics(card: dict[str, Any]) -> str:
    facts = {name: value for name, value in card.items() if name not in ("feature_names",)}
    return json.dumps(facts, sort_keys=True, default=str)
