"""A small real model, deployed: what scorer and alerts need before they start."""

from __future__ import annotations

from datetime import UTC, datetime

from domain.log import NewRecord
from infra.deployment import deploy_model
from ml.packaging import package
from ml.training import Cut, Labels, train
from schema_registry.contracts import CONTROL_EVENTS
from schema_registry.record_codec import RecordCodec
from tests.integration.infra.own_log import OwnLog
from tests.unit.ml.labelled import KNOWN_AT, labelled_stream


def deploy_small_model(log: OwnLog) -> str:
    """A small model, deployed as `tidemark deploy` does: it scores from the next transaction on. Returns its version."""
    version = train_small_model(log)
    deploy_model(log.composition, log.stack, version)
    return version


def train_small_model(log: OwnLog, seed: int = 1) -> str:
    """Train on 60 labelled wallets (some seconds), not of this log; package and event are there as after `tidemark train`."""
    table, labels = labelled_stream(seed=seed - 1)
    packed = package(train([table], Labels(labels), Cut(len(table), KNOWN_AT), seed=seed))
    composition = log.composition
    key = f"models/{packed.model_version}/model.tar.gz"
    composition.archive().prepare()
    composition.clients.s3.put_object(Bucket=composition.settings.s3.bucket, Key=key, Body=packed.data)
    trained = {
        "model_version": packed.model_version, "package_sha256": packed.sha256, "package_uri": f"s3://{composition.settings.s3.bucket}/{key}",
        "trained_to_seq": 0, "labels": len(labels), "metrics": "{}", "known_at": datetime.now(UTC),
    }  # fmt: skip
    codec = RecordCodec(composition.clients.catalog)
    composition.producer.append([NewRecord(CONTROL_EVENTS, b"model", codec.encode("ModelTrained", trained))])
    return packed.model_version
