"""The warehouse's tables, once, for two dialects: PostgreSQL here, Amazon Redshift on AWS.

Facts are rows of single records and keep their place in the log; dimensions are folded from many records and named by
natural keys, so that a rebuild gives the same rows. No surrogate keys: they would differ from one build to the next.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import UserDefinedType
from sqlalchemy_redshift.dialect import SUPER

from domain.values import AMOUNT_DIGITS, AMOUNT_SCALE, MAX_ID_LENGTH
from schema_registry.contracts import (
    CASE_EVENTS,
    CLICKSTREAM_EVENTS,
    CONTROL_EVENTS,
    EMBEDDING_EVENTS,
    PRICE_EVENTS,
    RESCORE_EVENTS,
    SCORE_EVENTS,
    TRANSACTION_EVENTS,
    WALLET_EVENTS,
)

REDSHIFT_ID_BYTES = 4 * MAX_ID_LENGTH  # Redshift counts bytes, and a character of UTF-8 takes up to four
REDSHIFT_TEXT_BYTES = 65_535  # Redshift's longest VARCHAR
REDSHIFT_VECTOR_BYTES = 65_535  # 16,383 float32, far above any embedding in use

_BLOOM = "text_bloom_ops (n_distinct_per_range = 3200)"
"""Filters of so many values, one wrong in a hundred, take 3,834 bytes. Two of them must fit into one index page, 8,152 bytes: Postgres'
own choice, 3,725 values, does not, and a load would be refused on the day when wallets are as many as that."""
CHECKPOINTS = "checkpoints"
LATER_TABLES = ("fact_rescore", "fact_alert_rule", "fact_storefront_event", "fact_asset_price")
"""Tables that came after 0.1.0: a generation that stands without one gets it empty, for no record that gives it a row was read."""
LATER_INDEXES = ("ix_fact_transaction_wallets", "ix_fact_storefront_event_occurred_at")
"""Indexes that came after 0.1.0: a generation that stands gets them when it is opened, each by one scan in which nothing is written."""
LATER_VIEWS = ("fraud_detection", "v_sales", "v_high_value", "v_storefront_session", "v_funnel")
"""Plain views that came after 0.1.0."""
LOG_COLUMNS = ("log_topic", "log_partition", "log_offset")
"""Where a fact's record stands in the log."""


class _Varbyte(UserDefinedType[bytes]):
    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return f"VARBYTE({REDSHIFT_VECTOR_BYTES})"


_Id = sa.Text().with_variant(sa.VARCHAR(REDSHIFT_ID_BYTES), "redshift")
_Text = sa.Text().with_variant(sa.VARCHAR(REDSHIFT_TEXT_BYTES), "redshift")
_Amount = sa.Numeric(AMOUNT_DIGITS, AMOUNT_SCALE)
_Time = sa.TIMESTAMP(timezone=True)
_Double: sa.types.TypeEngine[float] = sa.Double().with_variant(sa.DOUBLE_PRECISION(), "redshift")
_Doubles: sa.types.TypeEngine[Any] = postgresql.ARRAY(sa.Double()).with_variant(SUPER(), "redshift")
_Bytes = sa.LargeBinary().with_variant(_Varbyte(), "redshift")


def text_id() -> sa.types.TypeEngine[str]:
    """The type of ids, whole for either dialect."""
    return _Id


def _column(name: str, kind: Any, *, null: bool = False, encode: str | None = None) -> sa.Column[Any]:
    by_type = {_Id: "zstd", _Text: "zstd", _Double: "raw", _Doubles: "zstd", _Bytes: "zstd"}
    chosen = encode or by_type.get(kind, "az64")  # az64 packs numbers and times
    return sa.Column(name, kind, nullable=null, redshift_encode=chosen)


def _fact(metadata: sa.MetaData, name: str, topic: str, *columns: sa.Column[Any], distkey: str, sortkey: list[str]) -> sa.Table:
    """A table of single records: never two rows for one place in the log. `log_topic` is filled by its default."""
    return sa.Table(
        name,
        metadata,
        *columns,
        _column("seq", sa.BigInteger(), null=True),
        _column("ingested_at", _Time),
        sa.Column("log_topic", _Id, nullable=False, server_default=topic, redshift_encode="bytedict"),
        _column("log_partition", sa.Integer()),
        _column("log_offset", sa.BigInteger()),
        sa.PrimaryKeyConstraint("log_partition", "log_offset"),
        redshift_diststyle="KEY",
        redshift_distkey=distkey,
        redshift_sortkey=sortkey,
    )


def _block_ranges(name: str, *columns: sa.Column[Any], operators: str | None = None) -> None:
    """A block range index, of ranges that Postgres sums up by itself once they are full: until then a load hardly pays for it."""
    chosen = {column.name: operators for column in columns} if operators is not None else {}
    sa.Index(name, *columns, postgresql_using="brin", postgresql_ops=chosen, postgresql_with={"autosummarize": "on"})


def warehouse_metadata(schema: str | None = None) -> sa.MetaData:
    """Every table of one generation, in creation order."""
    m = sa.MetaData(schema=schema)
    _transaction_tables(m)
    _storefront_tables(m)
    _price_table(m)
    _wallet_tables(m)
    _case_tables(m)
    _model_tables(m)
    _dimensions(m)
    sa.Table(
        CHECKPOINTS,
        m,
        _column("topic", _Id),
        sa.Column("partition", sa.Integer(), nullable=False, autoincrement=False, redshift_encode="az64"),
        _column("next_offset", sa.BigInteger()),
        sa.PrimaryKeyConstraint("topic", "partition"),
        redshift_diststyle="ALL",
    )
    return m


def _transaction_tables(m: sa.MetaData) -> None:
    fact = _fact(
        m,
        "fact_transaction",
        TRANSACTION_EVENTS,
        _column("tx_id", _Id),
        _column("network", _Id, encode="bytedict"),
        _column("kind", _Id, encode="bytedict"),
        _column("status", _Id, encode="bytedict"),
        _column("source_wallet_id", _Id, null=True),
        _column("target_wallet_id", _Id, null=True),
        _column("amount", _Amount),
        _column("asset", _Id),
        _column("counter_amount", _Amount, null=True),
        _column("counter_asset", _Id, null=True),
        _column("fee", _Amount, null=True),
        _column("fee_asset", _Id, null=True),
        _column("occurred_at", _Time, encode="raw"),  # a sort key is left raw: block pruning reads it
        _column("occurred_hour", _Time),
        _column("block", sa.BigInteger(), null=True),
        _column("merchant_category", _Text, null=True),
        _column("location", _Text, null=True),
        _column("country", _Text, null=True),
        _column("payment_method", _Text, null=True),
        _column("device_id", _Text, null=True),
        _column("card_features", _Doubles, null=True),
        _column("origin_source", _Text),
        _column("origin_mapping", _Text),
        _column("origin_ingest_id", _Text),
        _column("origin_row", sa.BigInteger()),
        distkey="source_wallet_id",
        sortkey=["occurred_at"],
    )
    # Rows come in order of time and of seq, so a block range index of a few pages serves windows of both; a tree slows each load. Wallets
    # come in any order: of each range of blocks a Bloom filter says which of them it has not. What a row costs goes with the number of
    # indexes, hence two columns in each; the filters stand apart, for every scan of a block range index reads all of it.
    _block_ranges("ix_fact_transaction_occurred_at", fact.c.occurred_at, fact.c.seq)
    _block_ranges("ix_fact_transaction_wallets", fact.c.source_wallet_id, fact.c.target_wallet_id, operators=_BLOOM)
    for name, topic in (("fact_score", SCORE_EVENTS), ("fact_rescore", RESCORE_EVENTS)):
        _fact(
            m,
            name,
            topic,
            _column("tx_id", _Id),
            _column("tx_seq", sa.BigInteger(), encode="raw"),
            _column("network", _Id, encode="bytedict"),
            _column("source_wallet_id", _Id, null=True),
            _column("target_wallet_id", _Id, null=True),
            _column("score", _Double),
            _column("source_score", _Double, null=True),
            _column("target_score", _Double, null=True),
            _column("features_only_score", _Double),
            _column("source_features_only_score", _Double, null=True),
            _column("target_features_only_score", _Double, null=True),
            _column("source_k", sa.BigInteger(), null=True),
            _column("target_k", sa.BigInteger(), null=True),
            _column("source_embedding_seq", sa.BigInteger(), null=True),
            _column("target_embedding_seq", sa.BigInteger(), null=True),
            _column("feature_set", _Id, encode="bytedict"),
            _column("model_version", _Id, encode="bytedict"),
            distkey="source_wallet_id",
            sortkey=["tx_seq"],
        )
    _fact(
        m,
        "fact_transaction_label",
        WALLET_EVENTS,
        _column("tx_id", _Id),
        _column("label", _Id, encode="bytedict"),
        _column("source", _Text),
        _column("known_at", _Time, encode="raw"),
        distkey="tx_id",
        sortkey=["known_at"],
    )


def _storefront_tables(m: sa.MetaData) -> None:
    steps = _fact(
        m,
        "fact_storefront_event",
        CLICKSTREAM_EVENTS,
        _column("event_id", _Id),
        _column("session_id", _Id),
        _column("kind", _Id, encode="bytedict"),
        _column("site", _Id, encode="bytedict"),
        _column("customer_id", _Id, null=True),
        _column("device_id", _Text, null=True),
        _column("country", _Text, null=True),
        _column("product_id", _Id, null=True),
        _column("category", _Text, null=True),
        _column("amount", _Amount, null=True),
        _column("asset", _Id, null=True),
        _column("tx_id", _Id, null=True),
        _column("occurred_at", _Time, encode="raw"),
        _column("occurred_hour", _Time),
        distkey="session_id",
        sortkey=["occurred_at"],
    )
    sa.Index("ix_fact_storefront_event_occurred_at", steps.c.occurred_at, postgresql_using="brin")


def _price_table(m: sa.MetaData) -> None:
    _fact(
        m,
        "fact_asset_price",
        PRICE_EVENTS,
        _column("asset", _Id),
        _column("quote_asset", _Id),
        _column("price", _Amount),
        _column("source", _Text),
        _column("priced_at", _Time, encode="raw"),
        distkey="asset",
        sortkey=["priced_at"],
    )


def _wallet_tables(m: sa.MetaData) -> None:
    _fact(
        m,
        "fact_wallet_label",
        WALLET_EVENTS,
        _column("wallet_id", _Id),
        _column("label", _Id, encode="bytedict"),
        _column("source", _Text),
        _column("known_at", _Time, encode="raw"),
        distkey="wallet_id",
        sortkey=["known_at"],
    )
    described = _fact(
        m,
        "fact_wallet_description",
        WALLET_EVENTS,
        _column("wallet_id", _Id),
        _column("kind", _Id, encode="bytedict"),
        _column("name", _Text, null=True),
        _column("country", _Text, null=True),
        _column("source", _Text),
        _column("known_at", _Time, encode="raw"),
        distkey="wallet_id",
        sortkey=["known_at"],
    )
    # Each description folds its wallet's whole history again.
    sa.Index("ix_fact_wallet_description_wallet_id", described.c.wallet_id)
    _fact(
        m,
        "fact_wallet_control",
        WALLET_EVENTS,
        _column("event_type", _Id, encode="bytedict"),
        _column("wallet_id", _Id, null=True),
        _column("tx_id", _Id, null=True),
        _column("reason", _Text),
        _column("actor", _Text, null=True),
        _column("replaced_by", _Id, null=True),
        _column("known_at", _Time, encode="raw"),
        distkey="wallet_id",
        sortkey=["known_at"],
    )
    _fact(
        m,
        "fact_wallet_embedding",
        EMBEDDING_EVENTS,
        _column("wallet_id", _Id),
        _column("model_version", _Id, encode="bytedict"),
        _column("as_of_seq", sa.BigInteger(), encode="raw"),
        _column("dimensions", sa.Integer()),
        _column("vector", _Bytes),
        distkey="wallet_id",
        sortkey=["as_of_seq"],
    )


def _case_tables(m: sa.MetaData) -> None:
    _fact(
        m,
        "fact_alert",
        CASE_EVENTS,
        _column("case_id", _Id),
        _column("wallet_id", _Id),
        _column("reason", _Id, encode="bytedict"),
        _column("score", _Double),
        _column("threshold", _Double),
        _column("tx_id", _Id),
        _column("tx_seq", sa.BigInteger()),
        _column("explanation", _Text),
        _column("model_version", _Id, encode="bytedict"),
        _column("known_at", _Time, encode="raw"),
        distkey="wallet_id",
        sortkey=["known_at"],
    )
    _fact(
        m,
        "fact_alert_transaction",
        CASE_EVENTS,
        _column("case_id", _Id),
        _column("wallet_id", _Id),
        _column("tx_id", _Id),
        _column("tx_seq", sa.BigInteger()),
        _column("score", _Double),
        _column("known_at", _Time, encode="raw"),
        distkey="wallet_id",
        sortkey=["known_at"],
    )
    _fact(
        m,
        "fact_alert_rule",
        CASE_EVENTS,
        _column("case_id", _Id),
        _column("wallet_id", _Id),
        _column("tx_id", _Id),
        _column("tx_seq", sa.BigInteger()),
        _column("rules", _Text),
        _column("policy", _Id, encode="bytedict"),
        _column("known_at", _Time, encode="raw"),
        distkey="wallet_id",
        sortkey=["known_at"],
    )
    _fact(
        m,
        "fact_case_event",
        CASE_EVENTS,
        _column("event_type", _Id, encode="bytedict"),
        _column("case_id", _Id),
        _column("wallet_id", _Id, null=True),
        _column("verdict", _Id, null=True),
        _column("assignee", _Text, null=True),
        _column("reason", _Text, null=True),
        _column("actor", _Text),
        _column("known_at", _Time, encode="raw"),
        distkey="case_id",
        sortkey=["known_at"],
    )


def _model_tables(m: sa.MetaData) -> None:
    _fact(
        m,
        "fact_model_training",
        CONTROL_EVENTS,
        _column("model_version", _Id),
        _column("package_sha256", _Id),
        _column("package_uri", _Text),
        _column("trained_to_seq", sa.BigInteger()),
        _column("labels", sa.BigInteger()),
        _column("metrics", _Text),
        _column("known_at", _Time, encode="raw"),
        distkey="model_version",
        sortkey=["known_at"],
    )
    _fact(
        m,
        "fact_model_deployment",
        CONTROL_EVENTS,
        _column("model_version", _Id),
        _column("package_sha256", _Id),
        _column("endpoint", _Text),
        _column("from_seq", sa.BigInteger()),
        _column("known_at", _Time, encode="raw"),
        distkey="model_version",
        sortkey=["known_at"],
    )


def _dimensions(m: sa.MetaData) -> None:
    # One row a wallet with description_number 0 (the placeholder, known by key alone), then one for each description in
    # order of known_at; [valid_from, valid_to) do not overlap, so a join as of a time finds exactly one row.
    sa.Table(
        "dim_wallet",
        m,
        _column("wallet_id", _Id, encode="raw"),
        sa.Column("description_number", sa.Integer(), nullable=False, autoincrement=False, redshift_encode="az64"),
        _column("network", _Id, encode="bytedict"),
        _column("kind", _Id, encode="bytedict"),
        _column("name", _Text, null=True),
        _column("country", _Text, null=True),
        _column("source", _Text, null=True),
        _column("valid_from", _Time, null=True),
        _column("valid_to", _Time, null=True),
        _column("is_current", sa.Boolean(), encode="raw"),
        sa.PrimaryKeyConstraint("wallet_id", "description_number"),
        redshift_diststyle="KEY",
        redshift_distkey="wallet_id",
        redshift_sortkey=["wallet_id"],
    )
    sa.Table(
        "dim_asset",
        m,
        _column("network", _Id, encode="bytedict"),
        _column("asset", _Id),
        sa.PrimaryKeyConstraint("network", "asset"),
        redshift_diststyle="ALL",
    )
    sa.Table(
        "dim_time",
        m,
        _column("hour_start", _Time, encode="raw"),
        *(_column(name, sa.Integer()) for name in ("year", "quarter", "month", "day", "hour", "iso_year", "iso_week", "iso_weekday")),
        _column("is_weekend", sa.Boolean(), encode="raw"),
        sa.PrimaryKeyConstraint("hour_start"),
        redshift_diststyle="ALL",
        redshift_sortkey=["hour_start"],
    )
    sa.Table(
        "dim_model",
        m,
        _column("model_version", _Id),
        _column("is_described", sa.Boolean(), encode="raw"),
        _column("package_sha256", _Id, null=True),
        _column("package_uri", _Text, null=True),
        _column("trained_to_seq", sa.BigInteger(), null=True),
        _column("labels", sa.BigInteger(), null=True),
        _column("metrics", _Text, null=True),
        _column("trained_at", _Time, null=True),
        sa.PrimaryKeyConstraint("model_version"),
        redshift_diststyle="ALL",
    )
