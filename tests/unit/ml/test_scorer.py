"""The scorer over voids: a restart comes to the features that leave out what was taken back, and a live one asks for that restart."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from domain.log import Record
from graph.features import FeatureState, TransactionColumns
from graph.restatement import Restatement
from ml import scorer as module
from ml.fields import TRANSACTION_FIELDS
from ml.scorer import FeaturesOutdated, Scorer, Scores
from ml.serving_encoder import ServingEncoder
from ml.training import TrainedModel
from projections.decoding import decode
from projections.records import RecordBatch, seq_header
from schema_registry.catalog import SchemaCatalog
from schema_registry.column_codec import ColumnCodec
from schema_registry.contracts import TRANSACTION_EVENTS
from schema_registry.record_codec import RecordCodec
from tests.unit.domain.facts import transaction

CATALOG = SchemaCatalog.numbered()
N, REACHED = 60, 50


class Halves:
    """An endpoint that finds everything half suspicious."""

    def score(self, rows: Any) -> Scores:
        return Scores(np.full(len(rows), 0.5), np.full(len(rows), 0.5))


def records(numbers: Sequence[int]) -> RecordBatch:
    codec = RecordCodec(CATALOG)
    made = []
    for n in numbers:
        event = transaction(tx_id=f"ethereum:{n}:0", source_wallet_id=f"ethereum:s{n % 3}", target_wallet_id=f"ethereum:t{n % 7}")
        made.append(Record(TRANSACTION_EVENTS, 0, n, 1_700_000_000_000 + n, b"k", codec.encode_event(event), (seq_header(n),)))
    return RecordBatch.of(made)


def log(topics: Sequence[str], start: Any) -> Iterator[RecordBatch]:
    yield records(range(20))
    yield records(range(20, N))


@pytest.fixture
def encoder(model: TrainedModel) -> ServingEncoder:
    return ServingEncoder({name: value.numpy() for name, value in model.encoder.state_dict().items()})


def scorer_with(encoder: ServingEncoder, **given: Any) -> Scorer:
    made = Scorer(CATALOG, Halves(), encoder, "m", 0, **given)
    made.restore(log, {(TRANSACTION_EVENTS, 0): REACHED})
    return made


def test_a_restart_leaves_out_what_was_taken_back(encoder: ServingEncoder) -> None:
    bad = {4: 30, 10: 40}
    left_out = Restatement(REACHED, {f"ethereum:{n}:0": seq for n, seq in bad.items()})
    found = scorer_with(encoder, restatement=left_out)
    assert (found.next_seq(), found.state.seq) == (REACHED, REACHED)
    clean = FeatureState()
    codec = ColumnCodec(CATALOG, {"TransactionRecorded": TRANSACTION_FIELDS})
    events, _ = decode(codec, [records([n for n in range(REACHED) if n not in bad])])
    clean.observe(TransactionColumns.from_arrow(events.tables["TransactionRecorded"]))
    events, _ = decode(codec, [records(range(REACHED, N))])
    after = TransactionColumns.from_arrow(events.tables["TransactionRecorded"])
    assert found.state.observe(after).features.tobytes() == clean.observe(after).features.tobytes()
    assert scorer_with(encoder).state.observe(after).features.tobytes() != clean.observe(after).features.tobytes()
    assert dataclasses.asdict(left_out)["from_seq"] == REACHED


def test_it_asks_for_a_restart_once_in_a_while_when_something_was_taken_back(
    encoder: ServingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def is_outdated() -> bool:
        asked.append(True)
        return len(asked) > 1

    scorer = scorer_with(encoder, is_outdated=is_outdated)
    scorer.committed()
    assert not asked
    monkeypatch.setattr(module, "OUTDATED_EVERY_S", -1.0)
    scorer.committed()
    with pytest.raises(FeaturesOutdated, match="starts again at seq 50"):
        scorer.committed()
