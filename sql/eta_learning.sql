-- Queries for learning ETA models, by name.

-- deliveries --
SELECT a.driver_id, a.restaurant_lon_deg, a.restaurant_lat_deg, a.customer_lon_deg,
    a.customer_lat_deg, a.assigned_at, a.at_restaurant_at, a.picked_up_at, a.at_customer_at, p.pace,
    coalesce(t.fix_ats, '{}'), coalesce(t.lon_degs, '{}'), coalesce(t.lat_degs, '{}'), r.city
FROM assignment a
JOIN orders o ON o.order_id = a.order_id AND o.forgotten_at IS NULL
JOIN restaurant r ON r.restaurant_id = o.restaurant_id AND r.city = ANY (%(cities)s)
JOIN policy p ON p.policy_id = a.policy_id
CROSS JOIN LATERAL (
    SELECT array_agg(s.fix_at ORDER BY s.fix_at) AS fix_ats,
        array_agg(s.lon_deg ORDER BY s.fix_at) AS lon_degs,
        array_agg(s.lat_deg ORDER BY s.fix_at) AS lat_degs
    FROM (
        SELECT DISTINCT ON (i.nth) h.fix_at, h.lon_deg, h.lat_deg
        FROM fix_history__between_v1(a.driver_id, a.assigned_at, a.at_customer_at) h
        CROSS JOIN LATERAL (
            SELECT floor(extract(epoch FROM h.fix_at - a.assigned_at) * p.pace / %(every_s)s)
        ) AS i (nth)
        WHERE h.quarantine IS NULL AND coalesce(h.accuracy_m, 0) <= %(worst_accuracy_m)s
        ORDER BY i.nth, h.fix_at
    ) s
) t
WHERE a.picked_up_at IS NOT NULL AND a.at_customer_at > a.picked_up_at
    AND a.assigned_at >= %(since)s AND a.ended_at IS NOT NULL
    -- without rides on which the courier went to another customer first
    AND a.visible @> tstzrange(a.assigned_at, a.at_customer_at, '[]')
ORDER BY a.at_customer_at DESC
LIMIT %(at_most)s

-- add_eta_model --
SELECT eta_model__add_v1(%(model)s)
