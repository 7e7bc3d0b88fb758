-- Which wallets do many times more in the last hours than they did before, hour for hour?
SELECT wallet_id, sum(is_now) AS transactions, count(*) - sum(is_now) AS before,
       CAST(sum(is_now) AS double precision) / :hours AS per_hour,
       CAST(count(*) - sum(is_now) AS double precision) / (:days * 24) AS per_hour_before,
       CASE WHEN count(*) > sum(is_now)
            THEN CAST(sum(is_now) AS double precision) * :days * 24 / (:hours * (count(*) - sum(is_now))) END AS times_as_many
FROM (
    SELECT t.source_wallet_id AS wallet_id, CASE WHEN t.occurred_at >= :at - :hours * INTERVAL '1 hour' THEN 1 ELSE 0 END AS is_now
    FROM v_transaction t
    WHERE t.occurred_at >= :at - :hours * INTERVAL '1 hour' - :days * INTERVAL '1 day' AND t.occurred_at < :at AND NOT t.is_void
    UNION ALL
    SELECT t.target_wallet_id, CASE WHEN t.occurred_at >= :at - :hours * INTERVAL '1 hour' THEN 1 ELSE 0 END
    FROM v_transaction t
    WHERE t.occurred_at >= :at - :hours * INTERVAL '1 hour' - :days * INTERVAL '1 day' AND t.occurred_at < :at AND NOT t.is_void
      AND (t.source_wallet_id IS NULL OR t.source_wallet_id <> t.target_wallet_id)
) sides
WHERE wallet_id IS NOT NULL
GROUP BY wallet_id
HAVING sum(is_now) >= :at_least AND sum(is_now) * :days * 24 >= :times * :hours * (count(*) - sum(is_now))
ORDER BY transactions DESC, wallet_id
