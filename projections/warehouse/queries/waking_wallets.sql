-- Which wallets sent in the last day, after `quiet_days` in which they did nothing and `seen_days` before in which they did?
SELECT w.wallet_id, w.transactions, w.woke_at, b.last_seen_at
FROM (
    SELECT t.source_wallet_id AS wallet_id, count(*) AS transactions, min(t.occurred_at) AS woke_at
    FROM v_transaction t
    WHERE t.occurred_at >= :at - INTERVAL '1 day' AND t.occurred_at < :at AND NOT t.is_void AND t.source_wallet_id IS NOT NULL
    GROUP BY t.source_wallet_id
) w
JOIN (
    SELECT wallet_id, max(occurred_at) AS last_seen_at
    FROM (
        SELECT source_wallet_id AS wallet_id, occurred_at FROM fact_transaction
        WHERE occurred_at < :at - INTERVAL '1 day'
          AND occurred_at >= :at - INTERVAL '1 day' - (:quiet_days + :seen_days) * INTERVAL '1 day'
        UNION ALL
        SELECT target_wallet_id, occurred_at FROM fact_transaction
        WHERE occurred_at < :at - INTERVAL '1 day'
          AND occurred_at >= :at - INTERVAL '1 day' - (:quiet_days + :seen_days) * INTERVAL '1 day'
    ) sides
    GROUP BY wallet_id
) b ON b.wallet_id = w.wallet_id AND b.last_seen_at < :at - INTERVAL '1 day' - :quiet_days * INTERVAL '1 day'
ORDER BY w.transactions DESC, w.wallet_id
