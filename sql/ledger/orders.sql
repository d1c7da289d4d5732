-- The number of orders per state: orders created at or after an instant, and orders of some drivers
-- that were open at that instant. Includes states without orders.
SELECT
    s.state::text AS state,
    count(o.order_id) AS orders
FROM unnest(enum_range(NULL::doorstep.order_state)) WITH ORDINALITY AS s (state, place)
LEFT JOIN doorstep.orders AS o
    ON
        o.state = s.state
        AND (o.ended_at IS NULL OR o.ended_at >= %(since)s)
        AND (
            o.created_at >= %(since)s
            OR EXISTS (
                SELECT FROM doorstep.assignment AS a
                WHERE
                    a.order_id = o.order_id
                    AND a.assignment_no = o.assignment_no
                    AND a.driver_id = ANY (%(driver_ids)s)
            )
        )
GROUP BY s.state, s.place
ORDER BY s.place
