"""What analysts query: two materialised views, the fraud feature view and card payments as a file of Kaggle's has them, in the SQL that
both dialects share but for how a list is read.

Amounts of different assets are never added. Only settled transactions move value; others
are counted apart, and what was voided counts nowhere. A void means the revisions of its tx_id with a seq up to its own, so that a
revision recorded behind it stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

DialectName = Literal["redshift", "postgresql"]

VOIDS = """
SELECT tx_id AS void_tx_id, max(seq) AS void_seq
FROM fact_wallet_control WHERE event_type = 'TransactionVoided'
GROUP BY tx_id
"""
"""Up to which seq the transactions of a tx_id are void."""

HOURLY_VOLUME = f"""
SELECT occurred_hour, network, asset,
       count(*) AS transactions,
       sum(CASE WHEN status = 'settled' THEN 1 ELSE 0 END) AS settled_transactions,
       sum(CASE WHEN status = 'settled' THEN amount ELSE 0 END) AS settled_amount,
       max(CASE WHEN status = 'settled' THEN amount END) AS largest_settled_amount
FROM fact_transaction t
LEFT JOIN ({VOIDS}) v ON v.void_tx_id = t.tx_id AND t.seq <= v.void_seq
WHERE v.void_tx_id IS NULL
GROUP BY occurred_hour, network, asset
"""

WALLET_BEHAVIOUR = f"""
SELECT wallet_id, asset,
       sum(is_out) AS n_out, sum(1 - is_out) AS n_in,
       sum(CASE WHEN is_settled = 1 AND is_out = 1 THEN amount ELSE 0 END) AS amount_out,
       sum(CASE WHEN is_settled = 1 AND is_out = 0 THEN amount ELSE 0 END) AS amount_in,
       max(CASE WHEN is_settled = 1 AND is_out = 1 THEN amount END) AS largest_amount_out,
       max(CASE WHEN is_settled = 1 AND is_out = 0 THEN amount END) AS largest_amount_in,
       sum(1 - is_settled) AS n_unsettled,
       count(DISTINCT CASE WHEN is_out = 1 THEN counterparty_id END) AS counterparties_out,
       count(DISTINCT CASE WHEN is_out = 0 THEN counterparty_id END) AS counterparties_in,
       min(occurred_at) AS first_occurred_at,
       max(occurred_at) AS last_occurred_at
FROM (
    SELECT source_wallet_id AS wallet_id, target_wallet_id AS counterparty_id, asset, amount, occurred_at, 1 AS is_out,
           CASE WHEN status = 'settled' THEN 1 ELSE 0 END AS is_settled
    FROM fact_transaction t
    LEFT JOIN ({VOIDS}) v ON v.void_tx_id = t.tx_id AND t.seq <= v.void_seq
    WHERE source_wallet_id IS NOT NULL AND v.void_tx_id IS NULL
    UNION ALL
    SELECT target_wallet_id AS wallet_id, source_wallet_id AS counterparty_id, asset, amount, occurred_at, 0 AS is_out,
           CASE WHEN status = 'settled' THEN 1 ELSE 0 END AS is_settled
    FROM fact_transaction t
    LEFT JOIN ({VOIDS}) v ON v.void_tx_id = t.tx_id AND t.seq <= v.void_seq
    WHERE target_wallet_id IS NOT NULL AND v.void_tx_id IS NULL
) sides
GROUP BY wallet_id, asset
"""

TRANSACTIONS = """
SELECT t.*, CASE WHEN v.seq IS NULL THEN false ELSE true END AS is_void, v.known_at AS voided_at, v.reason AS void_reason, v.replaced_by
FROM fact_transaction t
LEFT JOIN (
    SELECT tx_id, seq, known_at, reason, replaced_by,
           lag(seq) OVER (PARTITION BY tx_id ORDER BY seq, log_offset) AS previous_seq
    FROM fact_wallet_control WHERE event_type = 'TransactionVoided'
) v ON v.tx_id = t.tx_id AND t.seq <= v.seq AND (v.previous_seq IS NULL OR t.seq > v.previous_seq)
"""
"""Every revision of every transaction, and whether, when and why it was taken back."""

FRAUD_FEATURES = """
WITH latest_score AS (
    SELECT * FROM (
        SELECT tx_id AS scored_tx_id, score, source_score, target_score, model_version,
               tx_seq AS scored_tx_seq,
               row_number() OVER (PARTITION BY tx_id, tx_seq ORDER BY log_offset DESC, log_partition DESC) AS recency
        FROM fact_score
    ) ranked WHERE recency = 1
),
wallet_truth AS (
    SELECT wallet_id AS labelled_wallet_id, label, known_at,
           lead(known_at) OVER (PARTITION BY wallet_id ORDER BY known_at, log_partition, log_offset) AS known_to
    FROM fact_wallet_label
),
transaction_truth AS (
    SELECT * FROM (
        SELECT tx_id AS labelled_tx_id, label, known_at,
               row_number() OVER (
                   PARTITION BY tx_id ORDER BY known_at DESC, log_partition DESC, log_offset DESC
               ) AS recency
        FROM fact_transaction_label
    ) ranked WHERE recency = 1
)
SELECT t.tx_id, t.seq, t.network, t.kind, t.status, t.source_wallet_id, t.target_wallet_id, t.amount, t.asset,
       t.occurred_at, t.occurred_hour, h.hour AS hour_of_day, h.iso_weekday, h.is_weekend,
       t.merchant_category, t.country, t.payment_method,
       s.score, s.source_score, s.target_score, s.model_version,
       sb.n_out AS source_n_out, sb.n_in AS source_n_in, sb.amount_out AS source_amount_out,
       sb.amount_in AS source_amount_in, sb.counterparties_out AS source_counterparties_out,
       tb.n_out AS target_n_out, tb.n_in AS target_n_in, tb.amount_out AS target_amount_out,
       tb.amount_in AS target_amount_in, tb.counterparties_in AS target_counterparties_in,
       sw.kind AS source_kind_at, tw.kind AS target_kind_at, sw.country AS source_country_at, tw.country AS target_country_at,
       sl.label AS source_label_known_before, tl.label AS target_label_known_before,
       x.label AS transaction_label, x.known_at AS transaction_label_known_at,
       t.is_void, t.voided_at
FROM v_transaction t
LEFT JOIN dim_time h ON h.hour_start = t.occurred_hour
LEFT JOIN latest_score s ON s.scored_tx_id = t.tx_id AND s.scored_tx_seq = t.seq
LEFT JOIN mv_wallet_behaviour sb ON sb.wallet_id = t.source_wallet_id AND sb.asset = t.asset
LEFT JOIN mv_wallet_behaviour tb ON tb.wallet_id = t.target_wallet_id AND tb.asset = t.asset
LEFT JOIN dim_wallet sw ON sw.wallet_id = t.source_wallet_id
    AND (sw.valid_from IS NULL OR sw.valid_from <= t.occurred_at)
    AND (sw.valid_to IS NULL OR t.occurred_at < sw.valid_to)
LEFT JOIN dim_wallet tw ON tw.wallet_id = t.target_wallet_id
    AND (tw.valid_from IS NULL OR tw.valid_from <= t.occurred_at)
    AND (tw.valid_to IS NULL OR t.occurred_at < tw.valid_to)
LEFT JOIN wallet_truth sl ON sl.labelled_wallet_id = t.source_wallet_id
    AND sl.known_at <= t.occurred_at AND (sl.known_to IS NULL OR t.occurred_at < sl.known_to)
LEFT JOIN wallet_truth tl ON tl.labelled_wallet_id = t.target_wallet_id
    AND tl.known_at <= t.occurred_at AND (tl.known_to IS NULL OR t.occurred_at < tl.known_to)
LEFT JOIN transaction_truth x ON x.labelled_tx_id = t.tx_id
"""
"""Facts with the latest score, descriptions and labels as known at the transaction's time. The behaviour columns are
those of the last refresh and so know the future: they are for looking into a case, never for training."""

SALES = f"""
SELECT occurred_hour, target_wallet_id AS merchant_id, merchant_category, country, payment_method, asset,
       count(*) AS payments,
       sum(CASE WHEN status = 'settled' THEN 1 ELSE 0 END) AS settled_payments,
       sum(CASE WHEN status = 'failed' THEN 1 ELSE 0 END) AS failed_payments,
       sum(CASE WHEN status = 'declined' THEN 1 ELSE 0 END) AS declined_payments,
       CAST(sum(CASE WHEN status = 'settled' THEN 0 ELSE 1 END) AS DOUBLE PRECISION) / count(*) AS failure_ratio,
       sum(CASE WHEN status = 'settled' THEN amount ELSE 0 END) AS settled_amount
FROM fact_transaction t
LEFT JOIN ({VOIDS}) v ON v.void_tx_id = t.tx_id AND t.seq <= v.void_seq
WHERE kind = 'payment' AND v.void_tx_id IS NULL
GROUP BY occurred_hour, target_wallet_id, merchant_category, country, payment_method, asset
"""
"""What was bought, from whom, and how often paying failed."""

HIGH_VALUE = f"""
SELECT * FROM (
    SELECT t.tx_id, t.seq, t.kind, t.status, t.source_wallet_id, t.target_wallet_id, t.amount, t.asset, t.occurred_at, t.occurred_hour,
           t.merchant_category, t.country, t.payment_method,
           row_number() OVER (PARTITION BY t.asset, t.occurred_hour ORDER BY t.amount DESC, t.seq) AS place
    FROM fact_transaction t
    LEFT JOIN ({VOIDS}) v ON v.void_tx_id = t.tx_id AND t.seq <= v.void_seq
    WHERE v.void_tx_id IS NULL
) ranked WHERE place <= 20
"""
"""The twenty largest of each hour and asset, whatever became of them."""

SESSIONS = """
SELECT session_id, site,
       min(occurred_at) AS started_at, max(occurred_at) AS ended_at, min(occurred_hour) AS occurred_hour,
       max(customer_id) AS customer_id, max(device_id) AS device_id,
       count(DISTINCT country) AS countries, count(DISTINCT device_id) AS devices,
       count(DISTINCT CASE WHEN kind IN ('page_viewed', 'product_viewed') THEN event_id END) AS views,
       max(CASE WHEN kind = 'product_viewed' THEN 1 ELSE 0 END) AS has_viewed_product,
       max(CASE WHEN kind = 'product_added' THEN 1 ELSE 0 END) AS has_added_product,
       max(CASE WHEN kind = 'checkout_started' THEN 1 ELSE 0 END) AS has_started_checkout,
       count(DISTINCT CASE WHEN kind = 'payment_attempted' THEN event_id END) AS payment_attempts,
       max(CASE WHEN kind = 'order_placed' THEN 1 ELSE 0 END) AS has_ordered
FROM fact_storefront_event
GROUP BY session_id, site
"""
"""One row a visit. Steps are told apart by their `event_id`: a shop may send one twice."""

FUNNEL = f"""
SELECT occurred_hour, site, count(*) AS sessions,
       sum(has_viewed_product) AS viewed_product, sum(has_added_product) AS added_product,
       sum(has_started_checkout) AS started_checkout,
       sum(CASE WHEN payment_attempts > 0 THEN 1 ELSE 0 END) AS attempted_payment, sum(has_ordered) AS ordered
FROM ({SESSIONS}) s
GROUP BY occurred_hour, site
"""
"""How many visits that began in an hour reached each step at any time."""

MATERIALISED_VIEWS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "mv_hourly_volume": (HOURLY_VOLUME, ("occurred_hour", "network", "asset")),
    "mv_wallet_behaviour": (WALLET_BEHAVIOUR, ("wallet_id", "asset")),
}
"""Name → (query, the columns that name a row)."""

CARD_COLUMNS = tuple(f"v{i}" for i in range(1, 29))


def views(dialect: DialectName) -> Mapping[str, str]:
    """Name → query of the plain views, in the order in which they are made.

    Raises:
        ValueError: another dialect.
    """
    if dialect not in _FIRST_OF_LIST:
        raise ValueError(f"expected the dialect redshift or postgresql, found {dialect!r}")
    first = _FIRST_OF_LIST[dialect]
    columns = ", ".join(f"CAST(t.card_features[{place}] AS DOUBLE PRECISION) AS {name}" for place, name in enumerate(CARD_COLUMNS, first))
    return {
        "v_transaction": TRANSACTIONS,
        "v_fraud_features": FRAUD_FEATURES,
        "fraud_detection": _FRAUD_DETECTION.replace("{card_columns}", columns),
        "v_sales": SALES,
        "v_high_value": HIGH_VALUE,
        "v_storefront_session": SESSIONS,
        "v_funnel": FUNNEL,
    }


_FIRST_OF_LIST: Mapping[str, int] = {"postgresql": 1, "redshift": 0}  # the place of a list's first element
_FRAUD_DETECTION = """
WITH transaction_truth AS (
    SELECT * FROM (
        SELECT tx_id AS labelled_tx_id, label,
               row_number() OVER (
                   PARTITION BY tx_id ORDER BY known_at DESC, log_partition DESC, log_offset DESC
               ) AS recency
        FROM fact_transaction_label
    ) ranked WHERE recency = 1
),
source_start AS (
    SELECT origin_source AS started_source, min(occurred_at) AS first_at
    FROM fact_transaction WHERE network = 'card' AND card_features IS NOT NULL
    GROUP BY origin_source
)
SELECT CAST(extract(epoch FROM t.occurred_at) - extract(epoch FROM f.first_at) AS DOUBLE PRECISION) AS time,
       {card_columns},
       t.amount,
       CASE x.label WHEN 'illicit' THEN 1 WHEN 'licit' THEN 0 END AS class,
       t.tx_id, t.seq, t.occurred_at
FROM v_transaction t
JOIN source_start f ON f.started_source = t.origin_source
LEFT JOIN transaction_truth x ON x.labelled_tx_id = t.tx_id
WHERE t.network = 'card' AND t.card_features IS NOT NULL AND NOT t.is_void
"""
"""Card payments that stand, as Kaggle's creditcard.csv has them: its 31 columns in its order, then what names the row. `time` is seconds
since the first card payment of the same source (a file's name, a stream), voided ones included, so that taking one back moves no other.
`class` is the latest label: 1 illicit, 0 licit, null where nothing is known."""
