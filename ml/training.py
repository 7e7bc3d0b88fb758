"""Training: one pass over history in the order of seq, the encoder, the head on out-of-fold embeddings, the head on features alone.

The head never learns from an embedding whose encoder has seen that wallet's label: each wallet's training embeddings come from an
encoder fitted on the other folds. Only the deployed encoder has seen all labels, and it meets only wallets judged later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from graph.features import FeatureState
from graph.features_names import FEATURE_NAMES, FEATURE_SET_VERSION
from graph.neighbourhood import Neighbourhoods
from ml.datasets import KnownLabel, TrainingSet, transaction_training_set, wallet_training_set
from ml.encoder import EMBEDDING_DIM, Encoder, embed_in_batches
from ml.encoder_training import fit_encoder
from ml.errors import TrainingDataError
from ml.head import N_FEATURES, Head, as_scores, fit_head, scoring_rows
from ml.thresholds import best_thresholds

FOLDS: Final = 4
EPOCHS: Final = 12
TREES: Final = 300
SEEDS: Final = 2
WATCH_SHARE: Final = 0.15  # the last training wallets by first transaction: early stopping and thresholds
LEAST_OF_A_CLASS: Final = 5
LEAST_TO_EMBED: Final = 40  # labelled wallets below which an encoder would only memorise

Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Cut:
    """Where history ends: transactions with seq < `seq`, labels known not later than `at` (UTC)."""

    seq: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Labels:
    """What is known: labels by wallet id and by tx_id. Where both are given, wallets win and the others are ignored."""

    wallets: Mapping[str, KnownLabel] = field(default_factory=dict)
    transactions: Mapping[str, KnownLabel] = field(default_factory=dict)

    def known_by(self, at: datetime) -> Labels:
        """Those whose `known_at` is not later than `at`."""
        return Labels(
            {key: label for key, label in self.wallets.items() if label.known_at <= at},
            {key: label for key, label in self.transactions.items() if label.known_at <= at},
        )


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """Everything that is deployed, and the state as of the cut, from which the scorer may go on.

    head: on features and embeddings; features_head: on features alone, for the honest comparison; scores_transactions: True where
    labels were per transaction (the transaction's score is its own row's), False where it is the larger of both wallets'.
    """

    encoder: Encoder
    head: Head
    features_head: Head
    scores_transactions: bool
    state: FeatureState
    card: dict[str, Any]


def train(
    transactions: Iterable[pa.Table],
    labels: Labels,
    cut: Cut,
    seed: int,
    progress: Progress = lambda stage, share: None,
) -> TrainedModel:
    """Learn from transactions before the cut and labels known by it.

    Arguments: transactions: Arrow tables of `TransactionRecorded` in the order of seq from the first one, columns as in
    `graph.features.TransactionColumns.from_arrow` plus tx_id; seed: fixes folds, encoder and head; progress: stage and share done.
    The same input and seed give the same package on one machine.
    Raises TrainingDataError where fewer than LEAST_OF_A_CLASS labels of either class have been seen before the cut.
    """
    progress("features", 0.0)
    history = _before(transactions, cut.seq)
    known = labels.known_by(cut.at)
    by_transaction = not known.wallets and bool(known.transactions)
    state = FeatureState()
    if by_transaction:
        examples = transaction_training_set(history, known.transactions, state)
    else:
        examples = wallet_training_set(history, known.wallets, state)
    _check(examples, by_transaction)
    progress("features", 1.0)
    fitted = fit_examples(examples, seed, progress)
    counts = np.bincount(examples.label[np.unique(examples.group, return_index=True)[1]], minlength=2)
    times = history["occurred_at"]
    card = {
        "feature_set_version": FEATURE_SET_VERSION,
        "feature_names": list(FEATURE_NAMES),
        "embedding_dim": EMBEDDING_DIM,
        "seed": seed,
        "scores_transactions": by_transaction,
        "trained_to_seq": cut.seq,
        "trained_to": cut.at.isoformat(),
        "history_from": str(times[0]) if len(times) else None,
        "transactions": len(history),
        "snapshots": len(examples),
        "labels": {"negative": int(counts[0]), "positive": int(counts[1])},
        **fitted.facts,
    }
    return TrainedModel(fitted.encoder, fitted.head, fitted.features_head, by_transaction, state, card)


@dataclass(frozen=True, slots=True)
class Fitted:
    """Encoder, both heads, and facts for the model card."""

    encoder: Encoder
    head: Head
    features_head: Head
    facts: dict[str, Any]


def fit_examples(examples: TrainingSet, seed: int, progress: Progress = lambda stage, share: None) -> Fitted:
    """Encoder and heads from a training set whose groups are numbered by first appearance."""
    groups = len(examples.group_ids)
    watch_from = groups - max(1, int(WATCH_SHARE * groups))
    early, late = np.flatnonzero(examples.group < watch_from), np.flatnonzero(examples.group >= watch_from)
    has_wallet = np.bincount(examples.neighbourhoods.leg_root, minlength=len(examples)) > 0
    embeds = len(np.unique(examples.group[has_wallet])) >= LEAST_TO_EMBED
    if embeds:
        encoder, own, partner, facts = _encoders(examples, has_wallet, early, late, seed, progress)
    else:
        encoder, facts = Encoder().eval(), {"encoder": "untrained: too few labelled wallets"}
        own = partner = np.full((len(examples), EMBEDDING_DIM), np.nan, np.float32)
    rows = scoring_rows(examples.features, own, partner)
    plain = tuple(i for i in range(N_FEATURES) if not np.all(np.isnan(rows[:64, i])) or not np.all(np.isnan(rows[:, i])))
    full = (*plain, *EMBEDDING_COLUMNS) if embeds else plain
    heads = {}
    for step, (name, columns) in enumerate((("head", full), ("features_head", plain))):
        progress(name, 0.0)
        trial = fit_head(rows[early], examples.label[early], examples.weight[early], columns, [seed], TREES)
        watched = as_scores(trial.log_odds(rows[late]))
        thresholds = best_thresholds(examples.group[late], examples.k[late], examples.label[late], watched)
        facts[f"{name}_thresholds"] = thresholds
        seeds = [seed + i for i in range(SEEDS)]
        heads[name] = fit_head(rows, examples.label, examples.weight, columns, seeds, TREES)
        progress(name, (step + 1) / 2)
    return Fitted(encoder, heads["head"], heads["features_head"], facts)


# The folds' encoders agree on what coordinate 0 means (log-odds), on the others only roughly: the head sees coordinate 0 of both wallets.
EMBEDDING_COLUMNS: Final = (N_FEATURES, N_FEATURES + EMBEDDING_DIM)


def _encoders(
    examples: TrainingSet,
    has_wallet: NDArray[np.bool_],
    early: NDArray[np.int64],
    late: NDArray[np.int64],
    seed: int,
    progress: Progress,
) -> tuple[Encoder, NDArray[np.float32], NDArray[np.float32], dict[str, Any]]:
    near, label, weight = examples.neighbourhoods, examples.label, examples.weight
    progress("encoder", 0.0)
    usable = np.flatnonzero(has_wallet)
    early, late = early[has_wallet[early]], late[has_wallet[late]]
    _, epochs = fit_encoder(near, label, weight, early, late, seed, EPOCHS)
    none = np.zeros(0, np.int64)
    own = np.full((len(examples), EMBEDDING_DIM), np.nan, np.float32)
    partner = own.copy()
    fold_by_group = np.random.default_rng(seed).permutation(len(examples.group_ids)) % FOLDS
    fold = fold_by_group[examples.group]
    for held_out in range(FOLDS):
        progress("encoder", (1 + held_out) / (FOLDS + 2))
        others = usable[fold[usable] != held_out]
        mine = usable[fold[usable] == held_out]
        if not len(others) or not len(mine):
            continue
        encoder, _ = fit_encoder(near, label, weight, others, none, seed, epochs)
        own[mine] = embed_in_batches(encoder, near.take(mine))
        partner[mine] = _partners(encoder, examples.partners, examples.has_partner, mine)
    progress("encoder", (FOLDS + 1) / (FOLDS + 2))
    encoder, _ = fit_encoder(near, label, weight, usable, none, seed, epochs)
    progress("encoder", 1.0)
    return encoder, own, partner, {"encoder_epochs": epochs}


def _partners(
    encoder: Encoder, near: Neighbourhoods, has_partner: NDArray[np.bool_], rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    embeddings = embed_in_batches(encoder, near.take(rows))
    embeddings[~has_partner[rows]] = np.nan
    return embeddings


def _before(transactions: Iterable[pa.Table], seq: int) -> pa.Table:
    kept: list[pa.Table] = []
    rows = 0
    for table in transactions:
        table = table.slice(0, max(seq - rows, 0))
        rows += len(table)
        kept.append(table)
        if rows >= seq:
            break
    if not kept:
        raise TrainingDataError("no transactions: expected at least one table before the cut; ingest a file first")
    return pa.concat_tables(kept)


def _check(examples: TrainingSet, by_transaction: bool) -> None:
    thing = "transactions" if by_transaction else "wallets"
    firsts = np.unique(examples.group, return_index=True)[1] if len(examples) else np.zeros(0, np.int64)
    counts = np.bincount(examples.label[firsts], minlength=2)
    if counts.min() < LEAST_OF_A_CLASS:
        raise TrainingDataError(
            f"labels: expected at least {LEAST_OF_A_CLASS} {thing} of each class seen and labelled before the cut, found "
            f"{counts[1]} positive and {counts[0]} negative; ingest more labels (tidemark ingest --labels) or cut later"
        )
