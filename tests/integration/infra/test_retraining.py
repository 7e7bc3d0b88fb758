"""Retraining on a real log: the first model passes and serves, the next is held against it, and a gate that holds back changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from domain.commands import LabelWallet
from domain.log import NewRecord
from infra.cli import exits
from infra.cli.context import Context
from infra.cli.model_commands import retrain as retrain_command
from infra.retraining import TooFewToJudge, retrain
from schema_registry.column_encoder import ColumnEncoder
from schema_registry.contracts import COMMANDS, CONTROL_EVENTS, TRANSACTION_EVENTS
from schema_registry.record_codec import RecordCodec
from tests.integration.infra.own_log import OwnLog, own_log
from tests.shared_servers import SharedServers
from tests.unit.ml.labelled import KNOWN_AT, labelled_stream

WALLETS = 120


@pytest.fixture(scope="module")
def log(shared_servers: SharedServers) -> Iterator[OwnLog]:
    with own_log(shared_servers, ["kafka", "registry", "s3", "aws"]) as found:
        composition = found.composition
        table, labels = labelled_stream(WALLETS)
        origin = {"origin.source": "test", "origin.mapping": "test@1", "origin.ingest_id": "test", "network": "test"}
        for name, value in origin.items():
            table = table.append_column(name, pa.repeat(value, len(table)))
        table = table.append_column("origin.row", pa.array(range(len(table)), pa.int64()))
        values = ColumnEncoder(composition.clients.catalog).encode(table)
        composition.producer.send(COMMANDS, [key.encode() for key in table["source_wallet_id"].to_pylist()], values)
        codec = RecordCodec(composition.clients.catalog)
        commands = [LabelWallet(name, "illicit" if one.is_positive else "licit", "test", KNOWN_AT) for name, one in labels.items()]
        composition.producer.append([NewRecord(COMMANDS, b"label", codec.encode_event(command)) for command in commands])
        found.drive("command-handler")
        assert sum(found.ends([TRANSACTION_EVENTS]).values()) >= len(table)
        composition.archive().prepare()
        yield found


def trained(log: OwnLog) -> list[str]:
    return [record["model_version"] for name, record, *_ in log.fresh().log.events(CONTROL_EVENTS) if name == "ModelTrained"]


def test_the_first_serves_the_next_is_compared_and_who_is_held_back_changes_nothing(log: OwnLog, tmp_path: Path) -> None:
    first = retrain(log.fresh(), log.stack, share=0.35)
    gate = first.gate
    assert gate.has_passed and gate.champion is None and gate.labels_are_of == "wallets"
    assert gate.judged >= 30 and 10 <= gate.fraud < gate.judged and gate.challenger.auroc > 0.9
    assert gate.challenger.trained_to_seq == gate.cut_seq < gate.end_seq
    assert trained(log) == [first.model_version] and first.from_seq == gate.end_seq
    assert log.fresh().log.deployed().model_version == first.model_version  # type: ignore[union-attr]
    second = retrain(log.fresh(), log.stack, share=0.35, gate_only=True)
    assert second.gate.champion is not None and second.gate.champion.model_version == first.model_version
    assert second.gate.champion_knew, "it was trained on all of it"
    assert second.gate.challenger == gate.challenger, "the same history and seed give the same challenger"
    held = retrain(log.fresh(), log.stack, share=0.35, tolerance=-1.0)
    assert not held.gate.has_passed and held.model_version is None
    assert trained(log) == [first.model_version], "the gate held it back before anything was written"


def test_too_few_labels_to_judge_by_are_an_error_and_no_verdict(log: OwnLog) -> None:
    with pytest.raises(TooFewToJudge, match="needs 10 of each"):
        retrain(log.fresh(), log.stack, share=0.05, gate_only=True)


def test_the_command_writes_its_verdict_for_a_scheduler(log: OwnLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Context, "need", lambda self, *parts: log.fresh())
    file = tmp_path / "gate.json"
    assert retrain_command(0.35, 1.0, 7, True, file, True) == exits.OK
    verdict = json.loads(file.read_text())
    assert verdict["gate"]["has_passed"] is True and verdict["model_version"] is None
