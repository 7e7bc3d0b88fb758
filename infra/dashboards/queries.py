"""The page's questions to `warehouse.*`, in the SQL that both dialects share. Amounts come as text, which no driver rounds.

A statement that reads facts of transactions names a window of `occurred_at`, which the block range index (Redshift: the sort key) serves.
Scores have no time of their own: the last ones are found by their places in the log, which are the primary key.
"""

from __future__ import annotations

SPAN = "SELECT min(hour_start), max(hour_start) FROM dim_time"
"""The first and the last hour of any transaction; as new as the facts, and a thousandth of their size."""

REFRESHED = "SELECT max(occurred_hour) FROM mv_hourly_volume"
"""The last hour that the materialised view knows."""

# The view's last hour may have gone on since it was refreshed: from there on the facts themselves are counted. What came late for an
# hour before it waits for the next refresh.
VOLUME = """
WITH hourly AS (
    SELECT occurred_hour, network, asset, transactions, settled_transactions, settled_amount
    FROM mv_hourly_volume WHERE occurred_hour >= :since AND occurred_hour < :fresh_from
    UNION ALL
    SELECT occurred_hour, network, asset, count(*) AS transactions,
           sum(CASE WHEN status = 'settled' THEN 1 ELSE 0 END) AS settled_transactions,
           sum(CASE WHEN status = 'settled' THEN amount ELSE 0 END) AS settled_amount
    FROM v_transaction WHERE occurred_at >= :fresh_from AND NOT is_void
    GROUP BY occurred_hour, network, asset
)
SELECT date_trunc(:step, occurred_hour), network, asset,
       CAST(sum(transactions) AS BIGINT), CAST(sum(settled_transactions) AS BIGINT), CAST(sum(settled_amount) AS VARCHAR(80))
FROM hourly
GROUP BY 1, 2, 3
ORDER BY 1, 2, 3
"""

STALE = """
SELECT (SELECT count(*) FROM v_transaction WHERE occurred_at >= :since AND occurred_at < :fresh_from AND NOT is_void)
       - (SELECT coalesce(CAST(sum(transactions) AS BIGINT), 0) FROM mv_hourly_volume
          WHERE occurred_hour >= :since AND occurred_hour < :fresh_from)
"""
"""How many more transactions stand in the hours of the materialised view than it counted when it was refreshed: some came late; fewer:
some were taken back."""

# Not `v_fraud_features`: it ranks every score there is.
SCORES = """
SELECT bin, count(*) FROM (
    SELECT CASE WHEN score >= 1 THEN CAST(:bins AS BIGINT) - 1 ELSE CAST(floor(score * CAST(:bins AS BIGINT)) AS BIGINT) END AS bin
    FROM fact_score s JOIN checkpoints c ON c.topic = s.log_topic AND c.partition = s.log_partition
    WHERE s.log_offset >= c.next_offset - :per_partition
) binned
GROUP BY bin
ORDER BY bin
"""

# By the transaction's time: of a history that is read at once every alert becomes known at the same minute.
ALERTS = """
SELECT date_trunc(:step, t.occurred_at), a.reason, count(*)
FROM v_transaction t JOIN fact_alert a ON a.tx_id = t.tx_id AND a.tx_seq = t.seq
WHERE t.occurred_at >= :since AND NOT t.is_void
GROUP BY 1, 2
ORDER BY 1, 2
"""

# Cases are taken by when their alert became known, which is after its transaction happened: none of the window is missing.
_CASES = """
WITH verdicts AS (
    SELECT case_id, verdict FROM (
        SELECT case_id, verdict, row_number() OVER (PARTITION BY case_id ORDER BY log_offset DESC) AS recency
        FROM fact_case_event WHERE event_type = 'VerdictReached'
    ) ranked WHERE recency = 1
),
steps AS (
    SELECT case_id,
           max(CASE WHEN event_type = 'CaseOpened' THEN 1 ELSE 0 END) AS is_opened,
           max(CASE WHEN event_type = 'CaseClosed' THEN 1 ELSE 0 END) AS is_closed
    FROM fact_case_event GROUP BY case_id
),
cases AS (
    SELECT a.case_id, a.wallet_id, a.reason, a.score, a.known_at, a.log_offset, v.verdict,
           CASE WHEN coalesce(s.is_closed, 0) = 1 THEN 'closed' WHEN v.verdict IS NOT NULL THEN 'decided'
                WHEN coalesce(s.is_opened, 0) = 1 THEN 'open' ELSE 'alerted' END AS status
    FROM fact_alert a
    LEFT JOIN verdicts v ON v.case_id = a.case_id
    LEFT JOIN steps s ON s.case_id = a.case_id
)
"""
"""Every case with where it stands. All events of a case lie in one partition, so their offsets are their order."""

FUNNEL = f"""{_CASES}
SELECT status, coalesce(verdict, ''), count(*) FROM cases WHERE known_at >= :since GROUP BY 1, 2 ORDER BY 1, 2
"""

# A wallet of an old case is at risk as long as nobody has decided; what it moved is counted inside the window.
AT_RISK = f"""{_CASES},
undecided AS (SELECT DISTINCT wallet_id FROM cases WHERE status IN ('alerted', 'open'))
SELECT asset, CAST(sum(is_risky) AS BIGINT), CAST(sum(CASE WHEN is_risky = 1 THEN amount ELSE 0 END) AS VARCHAR(80)),
       CAST(sum(amount) AS VARCHAR(80))
FROM (
    SELECT t.asset, t.amount, CASE WHEN s.wallet_id IS NOT NULL OR d.wallet_id IS NOT NULL THEN 1 ELSE 0 END AS is_risky
    FROM v_transaction t
    LEFT JOIN undecided s ON s.wallet_id = t.source_wallet_id
    LEFT JOIN undecided d ON d.wallet_id = t.target_wallet_id
    WHERE t.occurred_at >= :since AND t.status = 'settled' AND NOT t.is_void
) moved
GROUP BY asset
HAVING sum(is_risky) > 0
ORDER BY 2 DESC, 1
"""

WALLETS = f"""{_CASES},
ranked AS (
    SELECT c.*, row_number() OVER (PARTITION BY wallet_id ORDER BY known_at DESC, log_offset DESC) AS recency
    FROM cases c WHERE known_at >= :since
),
joined AS (SELECT case_id, count(*) AS transactions FROM fact_alert_transaction GROUP BY case_id),
wallets AS (
    SELECT r.wallet_id, max(r.score) AS score, count(*) AS alerts, CAST(sum(coalesce(j.transactions, 0)) AS BIGINT) AS transactions,
           max(CASE WHEN recency = 1 THEN r.reason END) AS reason, max(CASE WHEN recency = 1 THEN r.status END) AS status,
           max(CASE WHEN recency = 1 THEN r.verdict END) AS verdict, max(CASE WHEN recency = 1 THEN r.case_id END) AS case_id,
           max(r.known_at) AS known_at
    FROM ranked r LEFT JOIN joined j ON j.case_id = r.case_id
    GROUP BY r.wallet_id
)
SELECT w.wallet_id, w.case_id, w.score, w.alerts, w.transactions, w.reason, w.status, coalesce(w.verdict, ''), w.known_at,
       coalesce(d.name, ''), coalesce(d.kind, '')
FROM wallets w LEFT JOIN dim_wallet d ON d.wallet_id = w.wallet_id AND d.is_current
ORDER BY w.score DESC, w.wallet_id
LIMIT :shown
"""

# As `v_funnel` counts, but of the window alone: a view that folds visits first would read all of them.
VISITS = """
SELECT count(DISTINCT session_id),
       count(DISTINCT CASE WHEN kind = 'product_viewed' THEN session_id END),
       count(DISTINCT CASE WHEN kind = 'product_added' THEN session_id END),
       count(DISTINCT CASE WHEN kind = 'checkout_started' THEN session_id END),
       count(DISTINCT CASE WHEN kind = 'payment_attempted' THEN session_id END),
       count(DISTINCT CASE WHEN kind = 'order_placed' THEN session_id END)
FROM fact_storefront_event WHERE occurred_at >= :since
"""

GENERATION = "SELECT generation FROM live_generation"

POSITION = "SELECT topic, count(*), CAST(sum(next_offset) AS BIGINT) FROM checkpoints GROUP BY topic ORDER BY topic"

# Kafka's markers take offsets too: the last record stands a few places before the checkpoint.
NEWEST = """
SELECT max(t.ingested_at)
FROM fact_transaction t JOIN checkpoints c ON c.topic = t.log_topic AND c.partition = t.log_partition
WHERE t.log_offset >= c.next_offset - 1000
"""
"""When Kafka appended the newest transaction that stands here."""
