-- How many orders that were open at an instant, or came after it, are in each state; every state
-- is named.
SELECT
    s.state::text AS state,
    count(o.order_id) AS orders
FROM unnest(enum_range(NULL::doorstep.order_state)) WITH ORDINALITY AS s (state, place)
LEFT JOIN doorstep.orders AS o
    ON o.state = s.state AND (o.ended_at IS NULL OR o.ended_at >= %(since)s)
GROUP BY s.state, s.place
ORDER BY s.place
