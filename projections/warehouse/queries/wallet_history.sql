-- What did this wallet do, newest first?
SELECT t.occurred_at, CASE WHEN t.source_wallet_id = :wallet_id THEN 'out' ELSE 'in' END AS direction,
       CASE WHEN t.source_wallet_id = :wallet_id THEN t.target_wallet_id ELSE t.source_wallet_id END AS counterparty_id,
       t.amount, t.asset, t.kind, t.status, t.is_void, t.tx_id, t.seq
FROM v_transaction t
WHERE (t.source_wallet_id = :wallet_id OR t.target_wallet_id = :wallet_id) AND t.occurred_at < :at
ORDER BY t.occurred_at DESC, t.seq DESC
