-- How many orders created from an instant on are in each state; every state is named.
SELECT
    s.state::text AS state,
    count(o.order_id) AS orders
FROM unnest(enum_range(NULL::doorstep.order_state)) WITH ORDINALITY AS s (state, place)
LEFT JOIN doorstep.orders AS o ON o.state = s.state AND o.created_at >= %(since)s
GROUP BY s.state, s.place
ORDER BY s.place
