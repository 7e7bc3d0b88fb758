-- Which wallets deal with the most others, and what share of all transactions goes through each?
SELECT wallet_id, count(DISTINCT counterparty_id) AS counterparties, count(*) AS transactions,
       sum(is_out) AS sent, count(*) - sum(is_out) AS received,
       CAST(count(*) AS double precision) / max(total) AS share
FROM (
    SELECT t.source_wallet_id AS wallet_id, t.target_wallet_id AS counterparty_id, 1 AS is_out, count(*) OVER () AS total
    FROM v_transaction t
    WHERE t.occurred_at >= :at - :days * INTERVAL '1 day' AND t.occurred_at < :at AND t.status = 'settled' AND NOT t.is_void
      AND (t.source_wallet_id IS NULL OR t.target_wallet_id IS NULL OR t.source_wallet_id <> t.target_wallet_id)
    UNION ALL
    SELECT t.target_wallet_id, t.source_wallet_id, 0, count(*) OVER ()
    FROM v_transaction t
    WHERE t.occurred_at >= :at - :days * INTERVAL '1 day' AND t.occurred_at < :at AND t.status = 'settled' AND NOT t.is_void
      AND (t.source_wallet_id IS NULL OR t.target_wallet_id IS NULL OR t.source_wallet_id <> t.target_wallet_id)
) sides
WHERE wallet_id IS NOT NULL
GROUP BY wallet_id
HAVING count(DISTINCT counterparty_id) >= :at_least
ORDER BY counterparties DESC, transactions DESC, wallet_id
