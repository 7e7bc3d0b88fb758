-- Which wallets were paid by many others in the last so many hours?
SELECT t.target_wallet_id AS wallet_id, t.asset, count(DISTINCT t.source_wallet_id) AS senders, count(*) AS transactions,
       sum(t.amount) AS amount, min(t.occurred_at) AS first_occurred_at, max(t.occurred_at) AS last_occurred_at
FROM v_transaction t
WHERE t.occurred_at >= :at - :hours * INTERVAL '1 hour' AND t.occurred_at < :at
  AND t.status = 'settled' AND NOT t.is_void AND t.target_wallet_id IS NOT NULL
GROUP BY t.target_wallet_id, t.asset
HAVING count(DISTINCT t.source_wallet_id) >= :at_least
ORDER BY senders DESC, wallet_id
