-- Each hour of the last day beside the same hour a week before: is volume abnormal?
SELECT hour_of_day, network, asset, sum(is_now) AS transactions, sum(1 - is_now) AS week_before,
       sum(CASE WHEN is_now = 1 THEN amount ELSE 0 END) AS amount,
       sum(CASE WHEN is_now = 0 THEN amount ELSE 0 END) AS amount_week_before
FROM (
    SELECT t.occurred_hour AS hour_of_day, t.network, t.asset, t.amount, 1 AS is_now
    FROM v_transaction t
    WHERE t.occurred_at >= :at - INTERVAL '1 day' AND t.occurred_at < :at AND t.status = 'settled' AND NOT t.is_void
    UNION ALL
    SELECT t.occurred_hour + INTERVAL '7 days', t.network, t.asset, t.amount, 0
    FROM v_transaction t
    WHERE t.occurred_at >= :at - INTERVAL '8 days' AND t.occurred_at < :at - INTERVAL '7 days' AND t.status = 'settled' AND NOT t.is_void
) hours
GROUP BY hour_of_day, network, asset
ORDER BY hour_of_day, network, asset
