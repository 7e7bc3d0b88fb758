-- How many alerts of each model and score band were fraud by their verdict?
SELECT a.model_version, floor(a.score * 10) / 10 AS score_from, count(*) AS alerts,
       sum(CASE WHEN d.verdict IS NOT NULL THEN 1 ELSE 0 END) AS decided,
       sum(CASE WHEN d.verdict = 'fraud' THEN 1 ELSE 0 END) AS fraud,
       CAST(sum(CASE WHEN d.verdict = 'fraud' THEN 1 ELSE 0 END) AS double precision)
           / nullif(sum(CASE WHEN d.verdict IS NOT NULL THEN 1 ELSE 0 END), 0) AS precision_of_decided
FROM fact_alert a
LEFT JOIN (
    SELECT case_id, verdict, row_number() OVER (PARTITION BY case_id ORDER BY known_at DESC, log_offset DESC) AS recency
    FROM fact_case_event WHERE event_type = 'VerdictReached' AND known_at < :at
) d ON d.case_id = a.case_id AND d.recency = 1
WHERE a.known_at < :at
GROUP BY a.model_version, floor(a.score * 10) / 10
ORDER BY a.model_version, score_from DESC
