-- Which cases are not closed, with whom, and how old are they?
SELECT a.case_id, a.wallet_id, a.score, a.known_at AS alerted_at, CAST(extract(epoch FROM :at - a.known_at) AS bigint) / 3600 AS age_hours,
       s.assignee, s.verdict
FROM fact_alert a
LEFT JOIN (
    SELECT case_id, max(CASE WHEN event_type = 'CaseClosed' THEN 1 ELSE 0 END) AS is_closed,
           max(CASE WHEN event_type = 'CaseAssigned' AND recency = 1 THEN assignee END) AS assignee,
           max(CASE WHEN event_type = 'VerdictReached' AND recency = 1 THEN verdict END) AS verdict
    FROM (
        SELECT case_id, event_type, assignee, verdict,
               row_number() OVER (PARTITION BY case_id, event_type ORDER BY known_at DESC, log_offset DESC) AS recency
        FROM fact_case_event WHERE known_at < :at
    ) ranked
    GROUP BY case_id
) s ON s.case_id = a.case_id
WHERE a.known_at < :at AND coalesce(s.is_closed, 0) = 0
ORDER BY a.known_at, a.case_id
