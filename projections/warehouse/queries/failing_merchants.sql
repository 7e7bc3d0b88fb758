-- At which receivers of payments did most fail or were declined, in the last so many days?
SELECT t.target_wallet_id AS merchant_id, max(t.merchant_category) AS merchant_category, count(*) AS payments,
       sum(CASE WHEN t.status IN ('failed', 'declined') THEN 1 ELSE 0 END) AS failed,
       CAST(sum(CASE WHEN t.status IN ('failed', 'declined') THEN 1 ELSE 0 END) AS double precision) / count(*) AS failed_share
FROM v_transaction t
WHERE t.occurred_at >= :at - :days * INTERVAL '1 day' AND t.occurred_at < :at
  AND t.kind = 'payment' AND NOT t.is_void AND t.target_wallet_id IS NOT NULL
GROUP BY t.target_wallet_id
HAVING count(*) >= :at_least
ORDER BY failed_share DESC, payments DESC, merchant_id
