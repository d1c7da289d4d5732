-- The number of proofs per state for some drivers, recorded at or after an instant.
SELECT
    e.state::text AS state,
    count(*) AS proofs
FROM doorstep.evidence AS e
JOIN doorstep.assignment AS a USING (order_id, assignment_no)
WHERE e.recorded_at >= %(since)s AND a.driver_id = ANY (%(driver_ids)s)
GROUP BY e.state
ORDER BY e.state
