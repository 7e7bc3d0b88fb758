-- Who paid whom, how often, and is either of them alerted? The graph that communities are found in.
SELECT t.source_wallet_id, t.target_wallet_id, count(*) AS transactions,
       max(CASE WHEN s.wallet_id IS NULL THEN 0 ELSE 1 END) AS source_is_alerted,
       max(CASE WHEN r.wallet_id IS NULL THEN 0 ELSE 1 END) AS target_is_alerted
FROM v_transaction t
LEFT JOIN (SELECT DISTINCT wallet_id FROM fact_alert) s ON s.wallet_id = t.source_wallet_id
LEFT JOIN (SELECT DISTINCT wallet_id FROM fact_alert) r ON r.wallet_id = t.target_wallet_id
WHERE t.occurred_at >= :at - :days * INTERVAL '1 day' AND t.occurred_at < :at AND t.status = 'settled' AND NOT t.is_void
  AND t.source_wallet_id IS NOT NULL AND t.target_wallet_id IS NOT NULL AND t.source_wallet_id <> t.target_wallet_id
GROUP BY t.source_wallet_id, t.target_wallet_id
ORDER BY transactions DESC, t.source_wallet_id, t.target_wallet_id
