-- Who decided what, newest first? `actor` empty is everybody.
SELECT known_at, actor, event_type, case_id, wallet_id, tx_id, detail
FROM (
    SELECT known_at, actor, event_type, case_id, wallet_id, CAST(NULL AS varchar) AS tx_id,
           coalesce(verdict, assignee, reason) AS detail, log_offset
    FROM fact_case_event
    UNION ALL
    SELECT known_at, actor, event_type, CAST(NULL AS varchar), wallet_id, tx_id, reason, log_offset
    FROM fact_wallet_control
) decisions
WHERE actor IS NOT NULL AND known_at < :at AND known_at >= :at - :days * INTERVAL '1 day' AND (:actor = '' OR actor = :actor)
ORDER BY known_at DESC, log_offset DESC
