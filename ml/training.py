"""Training: one pass over history in the order of seq, then the encoder, the trees, and how far to trust each.

How far is learned only from wallets that neither has seen, and later ones: an encoder looks better on wallets of its
own time (.90 at k = 1 by random folds on the Ethereum file) than on later ones (.82), so random folds would teach the
head to trust it too much.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import numpy as np
import pyarrow as pa

from graph.features import FeatureState
from graph.features_names import FEATURE_NAMES, FEATURE_SET_VERSION
from graph.restatement import Restatement
from ml.datasets import KnownLabel, TrainingSet, transaction_training_set, wallet_training_set
from ml.encoder import Encoder, embed_in_batches
from ml.encoder_training import fit_encoder
from ml.errors import TrainingDataError
from ml.head import N_FEATURES, Head, Mix, as_scores, fit_boosters, fit_mix, mixed
from ml.network import EMBEDDING_DIM
from ml.thresholds import best_thresholds

EPOCHS: Final = 10
TREES: Final = 200
SEEDS: Final = 3
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

    head: gives the score with embeddings and, for the honest comparison, on features alone; scores_transactions: True
    where labels were per transaction (the transaction's score is its own row's), False where it is the larger of both
    wallets'.
    """

    encoder: Encoder
    head: Head
    scores_transactions: bool
    state: FeatureState
    card: dict[str, Any]


def train(
    transactions: Iterable[pa.Table],
    labels: Labels,
    cut: Cut,
    seed: int,
    progress: Progress = lambda stage, share: None,
    restatements: Sequence[Restatement] = (),
) -> TrainedModel:
    """Learn from transactions before the cut and labels known by it.

    Arguments: transactions: Arrow tables of `TransactionRecorded` in the order of seq from the first one, columns as in
    `graph.features.TransactionColumns.from_arrow` plus tx_id; seed: fixes folds, encoder and head; progress: stage and
    share done; restatements: of the features, in order of seq, all before the cut. The same input and seed give the
    same package on one machine.
    Raises TrainingDataError where fewer than LEAST_OF_A_CLASS labels of either class have been seen before the cut.
    """
    progress("features", 0.0)
    history = _before(transactions, cut.seq)
    known = labels.known_by(cut.at)
    by_transaction = not known.wallets and bool(known.transactions)
    state = FeatureState()
    if by_transaction:
        examples = transaction_training_set(history, known.transactions, state, restatements)
    else:
        examples = wallet_training_set(history, known.wallets, state, restatements=restatements)
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
    return TrainedModel(fitted.encoder, fitted.head, by_transaction, state, card)


@dataclass(frozen=True, slots=True)
class Fitted:
    """Encoder, head, and facts for the model card."""

    encoder: Encoder
    head: Head
    facts: dict[str, Any]


def fit_examples(examples: TrainingSet, seed: int, progress: Progress = lambda stage, share: None) -> Fitted:
    """Encoder and head from a training set whose groups are numbered by first appearance.

    First both learn from the early wallets alone; the late ones stop the encoder, teach the mix and give the
    thresholds. Then both learn once more from all wallets, for as many epochs and trees, and the mix stays.
    """
    groups, near, label, weight = len(examples.group_ids), examples.neighbourhoods, examples.label, examples.weight
    is_late = examples.group >= groups - max(1, int(WATCH_SHARE * groups))
    early, late = np.flatnonzero(~is_late), np.flatnonzero(is_late)
    has_wallet = np.bincount(near.leg_root, minlength=len(examples)) > 0
    columns = [i for i in range(N_FEATURES) if not np.isnan(examples.features[:, i]).all()]
    progress("head", 0.0)
    trial = fit_boosters(examples.features[early], label[early], weight[early], columns, [seed], TREES)
    plain = trial.tree_log_odds(examples.features[late])
    progress("head", 0.25)
    own = partner = np.full(len(late), np.nan, np.float32)
    encoder, mix, epochs = Encoder().eval(), Mix(), 0
    if len(np.unique(examples.group[has_wallet])) >= LEAST_TO_EMBED:
        progress("encoder", 0.0)
        watcher, epochs = fit_encoder(
            near, label, weight, early[has_wallet[early]], late[has_wallet[late]], seed, EPOCHS,
            lambda epoch, loss: progress("encoder", 0.5 * epoch / EPOCHS),
        )  # fmt: skip
        own = np.where(has_wallet[late], embed_in_batches(watcher, near.take(late))[:, 0], np.float32(np.nan))
        partner = embed_in_batches(watcher, examples.partners.take(late))[:, 0]
        partner = np.where(examples.has_partner[late], partner, np.float32(np.nan))
        mix = fit_mix(plain, own, partner, label[late], weight[late])
        encoder, _ = fit_encoder(
            near, label, weight, np.flatnonzero(has_wallet), np.zeros(0, np.int64), seed, epochs,
            lambda epoch, loss: progress("encoder", 0.5 + 0.5 * epoch / epochs),
        )  # fmt: skip
        progress("encoder", 1.0)
    thresholds = {}
    for name, odds in (("head_thresholds", mixed(mix, plain, own, partner)), ("features_only_thresholds", plain)):
        thresholds[name] = best_thresholds(examples.group[late], examples.k[late], label[late], as_scores(odds))
    trees = fit_boosters(examples.features, label, weight, columns, [seed + i for i in range(SEEDS)], TREES)
    progress("head", 1.0)
    facts = {
        "encoder_epochs": epochs,
        "encoder_is_trained": epochs > 0,
        "watched_wallets": len(set(examples.group[late])),
    }
    return Fitted(encoder, Head(trees.columns, trees.boosters, mix), {**facts, **thresholds})


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
            f"labels: expected at least {LEAST_OF_A_CLASS} {thing} of each class seen and labelled before the cut, "
            f"found {counts[1]} positive and {counts[0]} negative; "
            "ingest more labels (tidemark ingest --labels) or cut later"
        )
