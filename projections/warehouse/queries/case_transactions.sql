-- Which transactions are in a case, with their amounts and what became of them?
SELECT t.occurred_at, t.tx_id, t.seq, c.score, t.source_wallet_id, t.target_wallet_id, t.amount, t.asset, t.kind, t.status, t.is_void
FROM fact_alert_transaction c
JOIN v_transaction t ON t.seq = c.tx_seq AND t.tx_id = c.tx_id
WHERE c.case_id = :case_id
ORDER BY t.seq
