"""Training: it learns, repeats itself, respects the cut, and says what is missing."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from graph.features import FeatureState, TransactionColumns
from ml.datasets import KnownLabel
from ml.encoder import embed, embed_all
from ml.errors import TrainingDataError
from ml.evaluation import auroc
from ml.head import N_FEATURES, ROW_WIDTH
from ml.network import EMBEDDING_DIM
from ml.packaging import package
from ml.rows import scoring_rows_of
from ml.training import Cut, Labels, TrainedModel, train
from tests.unit.ml.labelled import KNOWN_AT, labelled_stream


def test_it_tells_new_wallets_apart(model: TrainedModel) -> None:
    table, labels = labelled_stream(seed=5)
    state = FeatureState()
    snapshot = state.observe(TransactionColumns.from_arrow(table))
    assert snapshot.neighbourhoods is not None
    scores = model.head.scores(scoring_rows_of(snapshot, embed(model.encoder, snapshot.neighbourhoods)))
    ids = [state.wallet_ids[wallet] for wallet in snapshot.wallet]
    mine = [i for i, wallet in enumerate(ids) if wallet in labels]
    label = np.array([labels[ids[i]].is_positive for i in mine], np.int64)
    for column in (0, 1):
        assert (auroc(label, scores[mine, column]) or 0) > 0.9


def test_the_same_input_and_seed_give_the_same_package_and_another_seed_another(model: TrainedModel) -> None:
    table, labels = labelled_stream()
    cut = Cut(len(table), KNOWN_AT)
    halves = [table.slice(0, 100), table.slice(100)]
    assert package(train(halves, Labels(labels), cut, seed=1)).sha256 == package(model).sha256
    assert package(train([table], Labels(labels), cut, seed=2)).sha256 != package(model).sha256


def test_nothing_after_the_cut_and_no_later_label_is_used() -> None:
    table, labels = labelled_stream()
    cut = Cut(200, KNOWN_AT)
    poison = table.set_column(table.column_names.index("asset"), "asset", pa.array(["XXX"] * len(table)))
    changed = pa.concat_tables([table.slice(0, 200), poison.slice(200)])
    late = {wallet: replace(label, known_at=KNOWN_AT + timedelta(days=1)) for wallet, label in list(labels.items())[-20:]}
    known = {wallet: label for wallet, label in labels.items() if wallet not in late}
    flipped = {wallet: replace(label, is_positive=not label.is_positive) for wallet, label in late.items()}
    first = train([table], Labels({**known, **late}), cut, seed=3)
    second = train([changed], Labels({**known, **flipped}), cut, seed=3)
    assert package(first).sha256 == package(second).sha256
    assert first.state.seq == 200


def test_one_class_is_refused_with_what_to_do() -> None:
    table, labels = labelled_stream()
    positives = {wallet: label for wallet, label in labels.items() if label.is_positive}
    with pytest.raises(TrainingDataError, match=r"found 30 positive and 0 negative; ingest more labels"):
        train([table], Labels(positives), Cut(len(table), KNOWN_AT), seed=0)
    with pytest.raises(TrainingDataError, match="found 0 positive and 0 negative"):
        train([table], Labels(), Cut(len(table), KNOWN_AT), seed=0)
    with pytest.raises(TrainingDataError, match="no transactions"):
        train([], Labels(), Cut(0, KNOWN_AT), seed=0)


def test_few_labels_train_without_an_encoder() -> None:
    table, labels = labelled_stream(wallets=16)
    few = train([table], Labels(labels), Cut(len(table), KNOWN_AT), seed=0)
    assert few.card["encoder_is_trained"] is False
    assert few.head.mix.own == 0


def test_labels_of_transactions_without_wallets_are_learned_from_their_columns() -> None:
    n = 400
    draw = np.random.default_rng(0)
    v1 = draw.normal(size=n)
    table = pa.table(
        {
            "tx_id": [f"card:{i}" for i in range(n)],
            "source_wallet_id": pa.nulls(n, pa.string()),
            "target_wallet_id": pa.nulls(n, pa.string()),
            "amount": pa.array([1] * n, pa.decimal128(38, 18)),
            "asset": ["EUR"] * n,
            "kind": ["payment"] * n,
            "status": ["settled"] * n,
            "occurred_at": pa.array(range(n)).cast(pa.timestamp("us", "UTC")),
            "card_features.v1": v1,
        }
    )
    known = {f"card:{i}": KnownLabel(bool(v1[i] > 0.5), KNOWN_AT) for i in range(n)}
    model = train([table], Labels(transactions=known), Cut(n, datetime(2020, 1, 1, tzinfo=UTC)), seed=0)
    assert model.scores_transactions
    snapshot = FeatureState().observe(TransactionColumns.from_arrow(table))
    assert snapshot.neighbourhoods is not None
    rows = scoring_rows_of(snapshot, embed(model.encoder, snapshot.neighbourhoods))
    assert np.isnan(rows[:, N_FEATURES:]).all()
    assert (auroc((v1 > 0.5).astype(np.int64), model.head.scores(rows)[:, 0]) or 0) > 0.95


def test_every_wallet_gets_an_embedding_as_of_the_cut(model: TrainedModel) -> None:
    ids, vectors = embed_all(model.state, model.encoder)
    assert vectors.shape == (len(ids), EMBEDDING_DIM)
    assert np.isfinite(vectors).all()
    assert len(set(ids)) == len(ids) > 100


def test_the_card_says_what_the_model_is(model: TrainedModel) -> None:
    assert model.card["labels"] == {"negative": 30, "positive": 30}
    assert len(model.card["feature_names"]) == N_FEATURES < ROW_WIDTH
    assert set(model.card["head_thresholds"]) == {"1", "3", "5", "10", "all"}
