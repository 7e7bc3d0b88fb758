-- With whom did a wallet move value, day by day: in, out, and how many transactions?
SELECT day, counterparty_id, asset, sum(amount_in) AS amount_in, sum(amount_out) AS amount_out, count(*) AS transactions
FROM (
    SELECT date_trunc('day', t.occurred_at) AS day, t.target_wallet_id AS counterparty_id, t.asset, 0 AS amount_in, t.amount AS amount_out
    FROM v_transaction t
    WHERE t.source_wallet_id = :wallet_id AND t.occurred_at >= :at - :days * INTERVAL '1 day' AND t.occurred_at < :at
      AND t.status = 'settled' AND NOT t.is_void
    UNION ALL
    SELECT date_trunc('day', t.occurred_at), t.source_wallet_id, t.asset, t.amount, 0
    FROM v_transaction t
    WHERE t.target_wallet_id = :wallet_id AND (t.source_wallet_id IS NULL OR t.source_wallet_id <> t.target_wallet_id) AND t.occurred_at >= :at - :days * INTERVAL '1 day' AND t.occurred_at < :at
      AND t.status = 'settled' AND NOT t.is_void
) sides
GROUP BY day, counterparty_id, asset
ORDER BY day, sum(amount_in) + sum(amount_out) DESC, counterparty_id
