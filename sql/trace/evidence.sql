-- The evidence whose pair starts with a driver's fix of this instant.
SELECT e.order_id, e.assignment_no, e.state::text AS state
FROM doorstep.evidence AS e
JOIN doorstep.assignment AS a USING (order_id, assignment_no)
WHERE
    a.driver_id = %(driver_id)s
    AND a.assigned_at <= %(fix_at)s
    AND e.source = 'gps'
    AND e.occurred_at = %(fix_at)s
ORDER BY e.state
