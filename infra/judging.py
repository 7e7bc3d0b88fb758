"""Detection as it was: the scores read back from the log, judged against labels that nothing but this has seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from infra.composition import Composition
from infra.demo_data import DemoPlan
from infra.history import transactions_in_order
from ml.datasets import KnownLabel
from ml.evaluation import Judgements, auroc, average_precision, by_maturity, forest_judgements
from schema_registry.column_codec import ColumnCodec, arrow_schema
from schema_registry.contracts import SCORE_EVENTS

_FIELDS = (
    "tx_id", "tx_seq", "score", "features_only_score", "source_wallet_id", "target_wallet_id", "source_score", "target_score",
    "source_features_only_score", "target_features_only_score", "source_k", "target_k", "source_embedding_seq", "target_embedding_seq",
)  # fmt: skip


def judge(composition: Composition, plan: DemoPlan, card: dict[str, Any], seed: int) -> dict[str, Any]:
    """Figures by maturity beside the forest of the same run, where labels are per wallet; per transaction otherwise.

    Raises:
        LogError: the log cannot be read.
    """
    scored = scores(composition)
    truth = {name: label == "illicit" for name, label in plan.judged.items()}
    result: dict[str, Any] = {
        "fresh_embedding_share": fresh_share(scored),
        "scored": scored.num_rows,
        "by_maturity": {},
        "transactions": None,
    }
    if plan.labels_are_of == "wallets":
        history = pa.concat_tables(transactions_in_order(composition)).drop_columns(["_seq"])
        known = {name: KnownLabel(label == "illicit", plan.cut_at) for name, label in plan.training.items()}
        judged = wallet_judgements(scored, set(truth))
        forest = None
        if judged.wallet:
            try:
                forest = forest_judgements(history, known, int(card["trained_to_seq"]), set(judged.wallet), seed)
            except ValueError as error:
                result["forest"] = str(error)
        result["by_maturity"] = by_maturity(judged, truth, card["head_thresholds"], forest, seed)
    else:
        judgements = transaction_judgements(scored, truth)
        label, score = judgements.label, judgements.score
        result["transactions"] = {
            "n": len(label), "n_positive": int(label.sum()), "auroc": auroc(label, score),
            "average_precision": average_precision(label, score),
        }  # fmt: skip
    return result


@dataclass(frozen=True, slots=True)
class TransactionJudgements:
    """Scores of transactions with their labels, in order of seq: label int64 [n], 1 positive; score, features_only float64 [n].

    features_only is the score without the graph; n_wallets counts the transactions that name a wallet, without which there is no graph.
    """

    label: NDArray[np.int64]
    score: NDArray[np.float64]
    features_only: NDArray[np.float64]
    n_wallets: int


def transaction_judgements(scored: pa.Table, truth: Mapping[str, bool]) -> TransactionJudgements:
    """The scores of the transactions that `truth` knows by tx_id."""
    mine = scored.filter(pc.is_in(scored["tx_id"], value_set=pa.array(list(truth), pa.string())))
    label = np.array([truth[tx_id] for tx_id in mine["tx_id"].to_pylist()], np.int64)
    named = pc.or_(pc.is_valid(mine["source_wallet_id"]), pc.is_valid(mine["target_wallet_id"]))
    return TransactionJudgements(
        label, mine["score"].to_numpy(), mine["features_only_score"].to_numpy(), pc.sum(named, min_count=0).as_py()
    )


def scores(composition: Composition) -> pa.Table:
    """Every `TransactionScored` of the log, in order of seq, without its features."""
    codec = ColumnCodec(composition.clients.catalog, {"TransactionScored": _FIELDS})
    parts = []
    for batch in composition.log.read([SCORE_EVENTS], {}):
        found = codec.decode(batch.values).tables.get("TransactionScored")
        if found is not None:
            parts.append(found.table.append_column("_timestamp_ms", pa.array(batch.timestamps_ms[found.indexes])))
    empty = arrow_schema("TransactionScored", frozenset(_FIELDS)).append(pa.field("_timestamp_ms", pa.int64())).empty_table()
    return pa.concat_tables([empty, *parts]).sort_by("tx_seq")


def wallet_judgements(scored: pa.Table, wallets: set[str]) -> Judgements:
    """The scores of some wallets by how many transactions each had; a self-transfer counts once."""
    parts: dict[str, list[Any]] = {"wallet": [], "k": [], "score": [], "plain": []}
    wanted = pa.array(sorted(wallets), pa.string())
    for side in ("source", "target"):
        keep = pc.is_in(scored[f"{side}_wallet_id"], value_set=wanted)
        if side == "target":
            is_self = pc.fill_null(pc.equal(scored["source_wallet_id"], scored["target_wallet_id"]), False)
            keep = pc.and_(keep, pc.invert(is_self))
        mine = scored.filter(keep)
        parts["wallet"] += mine[f"{side}_wallet_id"].to_pylist()
        parts["k"] += mine[f"{side}_k"].to_pylist()
        parts["score"] += mine[f"{side}_score"].to_pylist()
        parts["plain"] += mine[f"{side}_features_only_score"].to_pylist()
    return Judgements(
        tuple(parts["wallet"]), np.array(parts["k"], np.int64), np.array(parts["score"], np.float64), np.array(parts["plain"], np.float64)
    )


def fresh_share(table: pa.Table) -> float | None:
    """The share of a wallet's scores, over both sides, whose embedding was computed as of the very transaction scored."""
    total = fresh = 0
    for side in ("source", "target"):
        has_wallet = pc.is_valid(table[f"{side}_wallet_id"])
        total += pc.sum(has_wallet).as_py() or 0
        is_fresh = pc.fill_null(pc.equal(table[f"{side}_embedding_seq"], table["tx_seq"]), False)
        fresh += pc.sum(pc.and_(has_wallet, is_fresh)).as_py() or 0
    return fresh / total if total else None
