"""Which events become which fact rows: the events read, the table, and for each column the field behind it.

One shape serves writing and verification, so what is proven is what is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from projections.protocol import EventBatch
from schema_registry.column_codec import TIME
from schema_registry.contracts import TOPIC_BY_EVENT_TYPE

CARD_FEATURES = tuple(f"card_features.v{i}" for i in range(1, 29))
_MICROS_PER_HOUR = 3_600_000_000
_MICROS_PER_MS = 1_000


@dataclass(frozen=True, slots=True)
class Fact:
    """Rows of `table` from records of `event_type`.

    `fields` maps column → field; `constants` column → text that every row of this event type carries; where `only_with` names a field,
    records without it give no row here.
    """

    event_type: str
    table: str
    fields: Mapping[str, str]
    constants: Mapping[str, str]
    only_with: str | None = None

    @property
    def topic(self) -> str:
        return TOPIC_BY_EVENT_TYPE[self.event_type]


def _fact(event_type: str, table: str, *names: str, **renamed: str) -> Fact:
    constants = {"event_type": event_type} if table in ("fact_wallet_control", "fact_case_event") else {}
    only_with = "rules" if table == "fact_alert_rule" else None
    return Fact(event_type, table, {**{name: name for name in names}, **renamed}, constants, only_with)


_SCORE_FIELDS = (
    "tx_id", "tx_seq", "network", "source_wallet_id", "target_wallet_id", "score", "source_score", "target_score",
    "features_only_score", "source_features_only_score", "target_features_only_score", "source_k", "target_k",
    "source_embedding_seq", "target_embedding_seq", "feature_set", "model_version",
)  # fmt: skip

FACTS: tuple[Fact, ...] = (
    _fact(
        "TransactionRecorded", "fact_transaction",
        "tx_id", "network", "kind", "status", "source_wallet_id", "target_wallet_id", "amount", "asset",
        "counter_amount", "counter_asset", "fee", "fee_asset", "occurred_at", "block",
        merchant_category="payment.merchant_category", location="payment.location", country="payment.country",
        payment_method="payment.payment_method", device_id="payment.device_id", origin_source="origin.source",
        origin_mapping="origin.mapping", origin_ingest_id="origin.ingest_id", origin_row="origin.row",
    ),
    _fact(
        "StorefrontEventRecorded", "fact_storefront_event",
        "event_id", "session_id", "kind", "site", "customer_id", "device_id", "country", "product_id", "category", "amount", "asset",
        "tx_id", "occurred_at",
    ),
    _fact("AssetPriced", "fact_asset_price", "asset", "quote_asset", "price", "source", "priced_at"),
    _fact("TransactionScored", "fact_score", *_SCORE_FIELDS),
    _fact("TransactionRescored", "fact_rescore", *_SCORE_FIELDS),
    _fact("TransactionLabelled", "fact_transaction_label", "tx_id", "label", "source", "known_at"),
    _fact("WalletLabelled", "fact_wallet_label", "wallet_id", "label", "source", "known_at"),
    _fact(
        "WalletDescribed", "fact_wallet_description",
        "wallet_id", "kind", "name", "country", "source", "known_at",
    ),
    _fact("WalletFrozen", "fact_wallet_control", "wallet_id", "reason", "actor", "known_at"),
    _fact("WalletReleased", "fact_wallet_control", "wallet_id", "reason", "actor", "known_at"),
    _fact("TransactionHeld", "fact_wallet_control", "wallet_id", "tx_id", "reason", "known_at"),
    _fact("TransactionReleased", "fact_wallet_control", "wallet_id", "tx_id", "reason", "actor", "known_at"),
    _fact("TransactionVoided", "fact_wallet_control", "tx_id", "reason", "replaced_by", "known_at"),
    _fact(
        "WalletEmbedded", "fact_wallet_embedding",
        "wallet_id", "model_version", "as_of_seq", "dimensions", "vector",
    ),
    _fact(
        "AlertRaised", "fact_alert",
        "case_id", "wallet_id", "reason", "score", "threshold", "tx_id", "tx_seq", "explanation", "model_version",
        "known_at",
    ),
    _fact("AlertRaised", "fact_alert_transaction", "case_id", "wallet_id", "tx_id", "tx_seq", "score", "known_at"),
    _fact("AlertExtended", "fact_alert_transaction", "case_id", "wallet_id", "tx_id", "tx_seq", "score", "known_at"),
    _fact("AlertRaised", "fact_alert_rule", "case_id", "wallet_id", "tx_id", "tx_seq", "rules", "policy", "known_at"),
    _fact("AlertExtended", "fact_alert_rule", "case_id", "wallet_id", "tx_id", "tx_seq", "rules", "policy", "known_at"),
    _fact("CaseOpened", "fact_case_event", "case_id", "wallet_id", "actor", "known_at"),
    _fact("CaseAssigned", "fact_case_event", "case_id", "assignee", "actor", "known_at"),
    _fact("VerdictReached", "fact_case_event", "case_id", "wallet_id", "verdict", "reason", "actor", "known_at"),
    _fact("CaseClosed", "fact_case_event", "case_id", "reason", "actor", "known_at"),
    _fact(
        "ModelTrained", "fact_model_training",
        "model_version", "package_sha256", "package_uri", "trained_to_seq", "labels", "metrics", "known_at",
    ),
    _fact(
        "ModelDeployed", "fact_model_deployment",
        "model_version", "package_sha256", "endpoint", "from_seq", "known_at",
    ),
)  # fmt: skip


def fields_read() -> dict[str, tuple[str, ...]]:
    """Event type → the fields that the warehouse uses, for the codec and for lineage."""
    reads: dict[str, dict[str, None]] = {}
    for fact in FACTS:
        reads.setdefault(fact.event_type, {}).update(dict.fromkeys(fact.fields.values()))
    reads["TransactionRecorded"].update(dict.fromkeys(CARD_FEATURES))
    return {event_type: tuple(fields) for event_type, fields in reads.items()}


def fact_rows(batch: EventBatch) -> Iterator[tuple[Fact, pa.Table]]:
    """The rows of a batch, table by table, with the columns of the SQL table but `log_topic`, which is its default."""
    for fact in FACTS:
        events = batch.tables.get(fact.event_type)
        if events is not None and fact.only_with is not None:
            events = events.filter(pc.is_valid(events[fact.only_with]))
        if events is not None and events.num_rows:
            yield fact, _rows(fact, events)


def _rows(fact: Fact, events: pa.Table) -> pa.Table:
    columns: dict[str, pa.Array | pa.ChunkedArray] = {
        column: events[field] for column, field in fact.fields.items()
    }  # fmt: skip
    for column, value in fact.constants.items():
        columns[column] = pa.repeat(pa.scalar(value), events.num_rows)
    if "occurred_at" in fact.fields:
        columns["occurred_hour"] = _hour(events["occurred_at"])
    if fact.table == "fact_transaction":
        columns["card_features"] = _card_features(events)
    seq = events["_seq"].cast(pa.int64())
    columns["seq"] = pc.if_else(pc.less(seq, 0), pa.scalar(None, pa.int64()), seq)
    columns["ingested_at"] = pc.multiply(events["_timestamp_ms"].cast(pa.int64()), _MICROS_PER_MS).cast(TIME)
    columns["log_partition"] = events["_partition"].cast(pa.int32())
    columns["log_offset"] = events["_offset"].cast(pa.int64())
    return pa.table(columns)


def _hour(times: pa.ChunkedArray) -> pa.ChunkedArray:
    micros = times.cast(TIME).cast(pa.int64())
    hours = pc.divide(micros, _MICROS_PER_HOUR)  # truncates; times before 1970 do not pass the row rules
    return pc.multiply(hours, _MICROS_PER_HOUR).cast(TIME)


def _card_features(events: pa.Table) -> pa.Array:
    """The group as one list of 28 doubles, null where the transaction has none."""
    n, width = events.num_rows, len(CARD_FEATURES)
    kind = pa.list_(pa.float64())
    first = events[CARD_FEATURES[0]]
    if first.null_count == n:
        return pa.nulls(n, kind)
    values = np.empty((n, width))
    for i, name in enumerate(CARD_FEATURES):
        values[:, i] = events[name].to_numpy()
    present = np.asarray(first.is_valid())
    offsets = np.concatenate(([0], np.cumsum(np.where(present, width, 0)))).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values[present].ravel()), mask=pa.array(~present))
