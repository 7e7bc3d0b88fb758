"""What a run of decoded events says of the wallet graph: frames of transactions, flows, wallets and alerts.

Each function is a fold that may be cut anywhere: folding two pieces and then their results gives what folding them
whole gives. The sink uses it on a batch, the expectation on the whole log.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import polars as pl
import pyarrow as pa

from graph.features import NOT_MOVED
from projections.protocol import EventBatch
from projections.wallet_graph_statements import UNIT
from schema_registry.contracts import TOPIC_BY_EVENT_TYPE

READS: Final[Mapping[str, tuple[str, ...]]] = {
    "TransactionRecorded": (
        "tx_id", "kind", "status", "source_wallet_id", "target_wallet_id", "amount", "asset", "occurred_at",
    ),
    "WalletDescribed": ("wallet_id", "kind", "name", "country", "source"),
    "WalletLabelled": ("wallet_id", "label", "source"),
    "WalletFrozen": ("wallet_id", "reason"),
    "WalletReleased": ("wallet_id", "reason"),
    "TransactionVoided": ("tx_id", "reason", "replaced_by", "known_at"),
    "TransactionScored": (
        "tx_id", "tx_seq", "source_wallet_id", "target_wallet_id", "score", "source_score", "target_score",
        "model_version",
    ),
    "WalletEmbedded": ("wallet_id", "vector", "dimensions", "model_version", "as_of_seq"),
    "AlertRaised": (
        "case_id", "wallet_id", "reason", "score", "threshold", "tx_id", "tx_seq", "explanation", "model_version",
        "known_at",
    ),
    "AlertExtended": ("case_id", "wallet_id", "score", "tx_id", "tx_seq", "known_at"),
    "CaseOpened": ("case_id",),
    "CaseAssigned": ("case_id", "assignee"),
    "VerdictReached": ("case_id", "verdict", "reason"),
    "CaseClosed": ("case_id",),
}  # fmt: skip
TOPICS: Final = tuple(dict.fromkeys(TOPIC_BY_EVENT_TYPE[name] for name in READS))

LIMBS: Final = ("limb0", "limb1", "limb2", "limb3")
"""An amount in parts of 10^-18 as four digits in base 2^32: sums of two thousand million of them stay exact in an
int64."""

SCORE_KEY: Final = ("tx_id", "tx_seq")
"""What a score is of: a tx_id that was taken back may be recorded again, with another seq."""
_CAPTION_HEAD, _CAPTION_TAIL = 6, 4  # characters of an address that people compare, as block explorers show it
_WALLET_COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "TransactionScored": ("source_wallet_id", "target_wallet_id"),
    **dict.fromkeys(
        ("WalletDescribed", "WalletLabelled", "WalletFrozen", "WalletReleased", "WalletEmbedded", "AlertRaised",
         "AlertExtended"),
        ("wallet_id",),
    ),
}  # fmt: skip


def frame(batch: EventBatch, name: str) -> pl.DataFrame | None:
    """The events of one type as a frame; times in microseconds since 1970, amounts also as `LIMBS`; None for none."""
    table = batch.tables.get(name)
    if table is None or not table.num_rows:
        return None
    for field in table.schema:
        if pa.types.is_timestamp(field.type):
            micros = table[field.name].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
            table = table.set_column(table.schema.get_field_index(field.name), field.name, micros)
        elif pa.types.is_dictionary(field.type):
            table = table.set_column(table.schema.get_field_index(field.name), field.name, table[field.name].cast(pa.string()))
    for limb, column in _limbs(table).items():
        table = table.append_column(limb, column)
    found = pl.from_arrow(table)
    assert isinstance(found, pl.DataFrame)
    return found


def voids(batch: EventBatch) -> pl.DataFrame | None:
    """A Void a row: it means the revisions of its tx_id with a seq up to `seq`."""
    events = frame(batch, "TransactionVoided")
    if events is None:
        return None
    return events.select("tx_id", pl.col("_seq").alias("seq"), "reason", "replaced_by", "known_at", *_coordinates())


def marked(transactions: pl.DataFrame, known: pl.DataFrame | None) -> pl.DataFrame:
    """The transactions with `void_seq`, `void_reason` and `voided_at` of the void that each one met first, null where it stands."""
    if known is None or not known.height:
        return transactions.with_columns(
            void_seq=pl.lit(None, pl.Int64), void_reason=pl.lit(None, pl.String), voided_at=pl.lit(None, pl.Int64)
        )
    marks = known.select("tx_id", **mark_columns())
    found = transactions.sort("_seq").join_asof(
        marks.sort("void_seq"), left_on="_seq", right_on="void_seq", by="tx_id", strategy="forward", coalesce=False, check_sortedness=False
    )  # fmt: skip
    return found.sort("_partition", "_offset")


def mark_columns() -> dict[str, pl.Expr]:
    """What a Void row says of the revisions that it takes back."""
    return {"void_seq": pl.col("seq"), "void_reason": pl.col("reason"), "voided_at": pl.col("known_at")}


def standing(transactions: pl.DataFrame) -> pl.DataFrame:
    """Those of `marked` transactions that were not taken back."""
    return transactions.filter(pl.col("void_seq").is_null())


def sides(transactions: pl.DataFrame) -> pl.DataFrame:
    """The transactions that name both wallets: those that become a relationship."""
    return transactions.filter(pl.col("source_wallet_id").is_not_null() & pl.col("target_wallet_id").is_not_null())


def sent(transactions: pl.DataFrame) -> pl.DataFrame:
    """A SENT row a transaction with two sides: the amount as exact text without trailing zeros, and as a float to
    draw."""
    text = pl.col("amount").cast(pl.String).str.strip_chars_end("0").str.strip_chars_end(".")
    return sides(transactions).select(
        pl.col("source_wallet_id").alias("source"),
        pl.col("target_wallet_id").alias("target"),
        "tx_id",
        pl.col("_seq").alias("seq"),
        text.alias("amount"),
        pl.col("amount").cast(pl.Float64).alias("amount_float"),
        "asset",
        "status",
        "kind",
        "occurred_at",
        *_coordinates(),
    )


def voided(transactions: pl.DataFrame) -> pl.DataFrame:
    """A VOIDED row for each `marked` transaction with two sides that was taken back: what SENT would hold, and why."""
    taken_back = transactions.filter(pl.col("void_seq").is_not_null())
    marks = sides(taken_back).select("void_seq", "void_reason", "voided_at")
    return pl.concat([sent(taken_back), marks], how="horizontal")


def flows(transactions: pl.DataFrame) -> pl.DataFrame:
    """What moved, by source, target and asset: limb sums, count, first and last time. Failed and declined moved
    nothing."""
    moved = sides(transactions).filter(pl.col("status").is_in(NOT_MOVED).not_().fill_null(True))
    return moved.group_by(pl.col("source_wallet_id").alias("source"), pl.col("target_wallet_id").alias("target"), "asset").agg(
        pl.len().cast(pl.Int64).alias("transactions"),
        *(pl.col(limb).sum() for limb in LIMBS),
        pl.col("occurred_at").min().alias("first_at"),
        pl.col("occurred_at").max().alias("last_at"),
    )


def fold_flows(pieces: pl.DataFrame) -> pl.DataFrame:
    """Results of `flows`, folded."""
    return pieces.group_by("source", "target", "asset").agg(
        pl.col("transactions").sum(),
        *(pl.col(limb).sum() for limb in LIMBS),
        pl.col("first_at").min(),
        pl.col("last_at").max(),
    )


def exact_sums(flow: pl.DataFrame) -> list[int]:
    """The sum of each flow in parts of 10^-18, of any size."""
    columns = zip(*(flow[limb].to_list() for limb in LIMBS), strict=True)
    return [a + (b << 32) + (c << 64) + (d << 96) for a, b, c, d in columns]


def three_integers(parts: int) -> tuple[int, int, int]:
    """A sum as (high, whole, parts): multiples of 10^18 whole units, whole units, and 10^-18 parts, each within an
    int64."""
    whole, rest = divmod(parts, UNIT)
    high, whole = divmod(whole, UNIT)
    return high, whole, rest


def wallets(batch: EventBatch) -> pl.DataFrame:
    """Every wallet that the batch names in anything but its transactions; they gain no relationship there (`degree`)."""
    pieces = []
    for name, columns in _WALLET_COLUMNS.items():
        events = batch.tables.get(name)
        if events is None or not events.num_rows:
            continue
        named = pl.from_arrow(events.select(list(columns)))
        assert isinstance(named, pl.DataFrame)
        none = pl.lit(0, pl.Int64).alias("degree")
        pieces += [named.select(pl.col(column).cast(pl.String).alias("wallet_id"), none) for column in columns]
    if not pieces:
        return pl.DataFrame(schema={"wallet_id": pl.String, "degree": pl.Int64})
    return fold_wallets(pl.concat(pieces).drop_nulls())


def wallets_of(transactions: pl.DataFrame) -> pl.DataFrame:
    """Every wallet that the transactions name and the relationships it gains: none by what is `marked` as void, two by a self-transfer."""
    counts = pl.col("source_wallet_id").is_not_null() & pl.col("target_wallet_id").is_not_null()
    if "void_seq" in transactions.columns:
        counts &= pl.col("void_seq").is_null()
    counted = counts.cast(pl.Int64)
    ends = (pl.col(f"{side}_wallet_id").alias("wallet_id") for side in ("source", "target"))
    return fold_wallets(pl.concat([transactions.select(end, counted.alias("degree")) for end in ends]).drop_nulls())


def fold_wallets(pieces: pl.DataFrame) -> pl.DataFrame:
    """Results of `wallets`, folded."""
    return pieces.group_by("wallet_id").agg(pl.col("degree").sum())


def captions(ids: pl.Expr) -> pl.Expr:
    """What stands in a wallet's circle until it has a name: the ends of its address."""
    address = ids.str.splitn(":", 2).struct.field("field_1").fill_null(ids)
    short = pl.concat_str(address.str.head(_CAPTION_HEAD), pl.lit(" …"), address.str.tail(_CAPTION_TAIL))
    return pl.when(address.str.len_chars() > _CAPTION_HEAD + _CAPTION_TAIL + 2).then(short).otherwise(address)


def network(ids: pl.Expr) -> pl.Expr:
    """The network in a wallet id."""
    return ids.str.splitn(":", 2).struct.field("field_0")


def last(pieces: pl.DataFrame, key: str | tuple[str, ...]) -> pl.DataFrame:
    """The last row of each key, in the order given: events of one key lie in one partition, so their order is the
    log's."""
    return pieces.unique(list(key) if isinstance(key, tuple) else key, keep="last", maintain_order=True)


def descriptions(events: pl.DataFrame) -> pl.DataFrame:
    """The last description of each wallet."""
    named = events.select(
        "wallet_id",
        "kind",
        "name",
        "country",
        "source",
        pl.coalesce("name", captions(pl.col("wallet_id"))).alias("caption"),
    )
    return last(named, "wallet_id")


def labels(events: pl.DataFrame) -> pl.DataFrame:
    """The last label of each wallet."""
    return last(events.select("wallet_id", "label", "source"), "wallet_id")


def freezes(batch: EventBatch) -> pl.DataFrame | None:
    """Whether each wallet is frozen after the batch, and why."""
    pieces = []
    for name, is_frozen in (("WalletFrozen", True), ("WalletReleased", False)):
        events = frame(batch, name)
        if events is not None:
            pieces.append(events.with_columns(pl.lit(is_frozen).alias("is_frozen")))
    if not pieces:
        return None
    return last(_in_log_order(pieces).select("wallet_id", "is_frozen", "reason"), "wallet_id")


def scores(events: pl.DataFrame) -> pl.DataFrame:
    """The last score of each transaction, revisions apart."""
    return last(
        events.select(
            "tx_id", "tx_seq", "score", "source_score", "target_score", "model_version", *_coordinates()
        ),
        SCORE_KEY,
    )  # fmt: skip


def wallet_scores(events: pl.DataFrame) -> pl.DataFrame:
    """Each wallet's score in its last transaction: the largest (seq, score), so that no order of partitions matters."""
    pieces = [
        events.select(
            pl.col(f"{side}_wallet_id").alias("wallet_id"),
            pl.col("tx_seq").alias("seq"),
            pl.col(f"{side}_score").cast(pl.Float64).alias("score"),
        )
        for side in ("source", "target")
    ]
    return fold_wallet_scores(pl.concat(pieces).drop_nulls())


def fold_wallet_scores(pieces: pl.DataFrame) -> pl.DataFrame:
    """Results of `wallet_scores`, folded."""
    return pieces.sort("seq", "score").unique("wallet_id", keep="last", maintain_order=True)


def embeddings(events: pl.DataFrame) -> pl.DataFrame:
    """The vector of each wallet with the largest seq; of equals the later one."""
    found = events.select("wallet_id", "vector", "model_version", pl.col("as_of_seq").alias("seq"))
    return fold_embeddings(found)


def fold_embeddings(pieces: pl.DataFrame) -> pl.DataFrame:
    """Results of `embeddings`, folded."""
    return last(pieces.sort("seq", maintain_order=True), "wallet_id")


def alerts(events: pl.DataFrame) -> pl.DataFrame:
    """An alert a row."""
    return last(events.select(*READS["AlertRaised"], *_coordinates()), "case_id")


def joined(events: pl.DataFrame) -> pl.DataFrame:
    """A transaction that joined an alert a row."""
    return events.select(*READS["AlertExtended"], *_coordinates())


def cases(batch: EventBatch) -> pl.DataFrame | None:
    """How far each case has come: the last of each field that the batch says anything of."""
    fields = {
        "CaseOpened": {"status": pl.lit("open")},
        "CaseAssigned": {"assignee": pl.col("assignee")},
        "VerdictReached": {
            "status": pl.lit("decided"),
            "verdict": pl.col("verdict"),
            "verdict_reason": pl.col("reason"),
        },
        "CaseClosed": {"status": pl.lit("closed")},
    }
    empty = {name: pl.lit(None, pl.String) for name in ("status", "assignee", "verdict", "verdict_reason")}
    pieces = []
    for name, said in fields.items():
        events = frame(batch, name)
        if events is not None:
            columns = {key: value.cast(pl.String) for key, value in {**empty, **said}.items()}
            pieces.append(events.select("case_id", "_partition", "_offset", **columns))
    if not pieces:
        return None
    return fold_cases(_in_log_order(pieces).drop("_partition", "_offset"))


def fold_cases(pieces: pl.DataFrame) -> pl.DataFrame:
    """Results of `cases`, folded."""
    return pieces.group_by("case_id", maintain_order=True).agg(
        pl.col(name).drop_nulls().last() for name in ("status", "assignee", "verdict", "verdict_reason")
    )


def _coordinates() -> list[pl.Expr]:
    return [
        pl.col("_topic").cast(pl.String).alias("topic"),
        pl.col("_partition").cast(pl.Int64).alias("partition"),
        pl.col("_offset").cast(pl.Int64).alias("offset"),
    ]


def _in_log_order(pieces: list[pl.DataFrame]) -> pl.DataFrame:
    return pl.concat(pieces).sort("_partition", "_offset")


def _limbs(table: pa.Table) -> dict[str, pa.Array]:
    if "amount" not in table.schema.names:
        return {}
    column = table["amount"].cast(pa.decimal128(38, 18)).combine_chunks()
    amounts = pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) else column
    digits = np.frombuffer(amounts.buffers()[1], np.dtype("<u4")).reshape(-1, 4)
    digits = digits[amounts.offset : amounts.offset + len(amounts)].astype(np.int64)
    return {limb: pa.array(digits[:, i]) for i, limb in enumerate(LIMBS)}
