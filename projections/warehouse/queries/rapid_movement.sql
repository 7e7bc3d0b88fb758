-- Which wallets passed on, within the last so many hours, at least `share_percent` of what they got in them?
SELECT wallet_id, asset, sum(amount_in) AS amount_in, sum(amount_out) AS amount_out,
       min(first_in_at) AS first_in_at, max(last_out_at) AS last_out_at
FROM (
    SELECT t.target_wallet_id AS wallet_id, t.asset, t.amount AS amount_in, 0 AS amount_out, t.occurred_at AS first_in_at,
           CAST(NULL AS timestamptz) AS last_out_at
    FROM v_transaction t
    WHERE t.occurred_at >= :at - :hours * INTERVAL '1 hour' AND t.occurred_at < :at
      AND t.status = 'settled' AND NOT t.is_void AND t.target_wallet_id IS NOT NULL
    UNION ALL
    SELECT t.source_wallet_id, t.asset, 0, t.amount, CAST(NULL AS timestamptz), t.occurred_at
    FROM v_transaction t
    WHERE t.occurred_at >= :at - :hours * INTERVAL '1 hour' AND t.occurred_at < :at
      AND t.status = 'settled' AND NOT t.is_void AND t.source_wallet_id IS NOT NULL
) moved
GROUP BY wallet_id, asset
HAVING sum(amount_in) >= :amount AND sum(amount_out) >= sum(amount_in) * :share_percent / 100
   AND min(first_in_at) <= max(last_out_at)
ORDER BY amount_in DESC, wallet_id
