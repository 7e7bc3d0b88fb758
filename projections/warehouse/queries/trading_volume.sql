-- How much was traded each day, asset by asset, and what was it worth at the prices of the moment?
SELECT date_trunc('day', t.occurred_at) AS day, t.asset, count(*) AS trades, sum(t.amount) AS amount,
       sum(CASE WHEN t.asset = :quote THEN t.amount
                ELSE CAST(t.amount AS numeric(38, 8)) * CAST(p.price AS numeric(38, 10)) END) AS worth,
       sum(CASE WHEN t.asset <> :quote AND p.price IS NULL THEN 1 ELSE 0 END) AS unpriced
FROM v_transaction t
LEFT JOIN (
    SELECT asset, priced_at, price, lead(priced_at) OVER (PARTITION BY asset ORDER BY priced_at) AS next_at
    FROM (
        SELECT asset, priced_at, price,
               row_number() OVER (PARTITION BY asset, priced_at ORDER BY log_partition DESC, log_offset DESC) AS latest
        FROM fact_asset_price
        WHERE quote_asset = :quote
    ) said
    WHERE latest = 1
) p ON p.asset = t.asset AND t.occurred_at >= p.priced_at AND (p.next_at IS NULL OR t.occurred_at < p.next_at)
WHERE t.kind = 'trade' AND t.status = 'settled' AND NOT t.is_void
  AND t.occurred_at >= :at - :days * INTERVAL '1 day' AND t.occurred_at < :at
GROUP BY date_trunc('day', t.occurred_at), t.asset
ORDER BY day, trades DESC, t.asset
