-- What fixes have proved from an instant on, by the state that it stands for.
SELECT
    e.state::text AS state,
    count(*) AS proofs
FROM doorstep.evidence AS e
WHERE e.recorded_at >= %(since)s
GROUP BY e.state
ORDER BY e.state
