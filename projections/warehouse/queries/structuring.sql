-- Who sends again and again just below a bound (`margin_percent` below it), within the last so many hours?
SELECT t.source_wallet_id AS wallet_id, t.asset, count(*) AS transactions, count(DISTINCT t.target_wallet_id) AS receivers,
       sum(t.amount) AS amount, min(t.occurred_at) AS first_occurred_at, max(t.occurred_at) AS last_occurred_at
FROM v_transaction t
WHERE t.occurred_at >= :at - :hours * INTERVAL '1 hour' AND t.occurred_at < :at AND t.asset = :asset
  AND t.amount < :bound AND t.amount >= :bound * (100 - :margin_percent) / 100
  AND t.status = 'settled' AND NOT t.is_void AND t.source_wallet_id IS NOT NULL
GROUP BY t.source_wallet_id, t.asset
HAVING count(*) >= :at_least
ORDER BY transactions DESC, wallet_id
