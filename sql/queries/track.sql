-- What tracking_api reads of an order under way for staff. Parameters are psycopg's %(name)s.
-- Staff see a driver's newest fix while the assignment is open, if it is dated inside it.
-- Customers' view is in customers.sql.


-- read_tracks --
WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS now)
SELECT c.now, o.order_id, o.state::text, o.assignment_no, o.order_seq,
    r.name, r.lon_deg, r.lat_deg, o.lon_deg, o.lat_deg, p.dwell_min_s, p.pace,
    a.driver_id, a.assigned_at,
    events.found, trail.found, r.city,
    CASE WHEN o.ended_at IS NOT NULL THEN order_ends_v1(o.order_id)::text END,
    order_notice__read_v1(o.order_id, o.assignment_no)::text,
    json_build_object('created_at', o.created_at, 'preparation_s', r.preparation_s,
        'ready_at', d.ready_at, 'scheduled_for', d.scheduled_for)::text,
    s.fix_at, s.received_at, s.lon_deg, s.lat_deg, s.accuracy_m, s.speed_mps, s.heading_deg
FROM clock c
CROSS JOIN (
    -- the LIMIT makes a generic plan expect one order, as GET /track reads
    SELECT order_id FROM unnest(%(order_ids)s::uuid[]) AS t (order_id)
    LIMIT cardinality(%(order_ids)s::uuid[])
) AS wanted
JOIN orders o ON o.order_id = wanted.order_id
JOIN restaurant r ON r.restaurant_id = o.restaurant_id
JOIN policy p ON p.policy_id = o.policy_id
LEFT JOIN order_detail d ON d.order_id = o.order_id
LEFT JOIN assignment a ON a.order_id = o.order_id AND a.assignment_no = o.assignment_no
    AND a.assigned_at <= c.now AND (a.ended_at IS NULL OR c.now < a.ended_at)
LEFT JOIN driver_state s ON s.driver_id = a.driver_id
    AND s.fix_at >= a.assigned_at AND (a.ended_at IS NULL OR s.fix_at < a.ended_at)
CROSS JOIN LATERAL (
    -- evidence may since have proved an earlier instant than the one first shown
    SELECT coalesce(json_agg(json_build_array(e.order_seq, e.state, e.source,
        coalesce(v.occurred_at, e.occurred_at), e.assignment_no) ORDER BY e.order_seq), '[]')::text
    FROM order_event e
    LEFT JOIN evidence v ON v.order_id = e.order_id AND v.assignment_no = e.assignment_no
        AND v.state = e.state AND v.source = e.source
    WHERE e.order_id = o.order_id
) AS events (found)
CROSS JOIN LATERAL (
    -- fixes of the last minutes, which are never packed; none without a position
    SELECT coalesce(json_agg(json_build_array(t.fix_at, t.lon_deg, t.lat_deg) ORDER BY t.fix_at),
        '[]')::text
    FROM (
        SELECT h.fix_at, h.lon_deg, h.lat_deg
        FROM fix_history h
        WHERE h.driver_id = a.driver_id AND h.quarantine IS NULL
            -- these two prune partitions when the plan starts; no fix is dated 120 s ahead
            AND h.fix_at >= now() - make_interval(secs => %(trail_s)s)
            AND h.fix_at < now() + interval '1 hour'
            AND h.fix_at >= a.assigned_at AND h.fix_at < s.fix_at
        ORDER BY h.fix_at DESC
        LIMIT %(trail_points)s
    ) AS t
) AS trail (found)

-- read_order_polls --
WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS now)
SELECT c.now, o.order_id, o.order_seq, a.driver_id,
    s.fix_at, s.received_at, s.lon_deg, s.lat_deg, s.accuracy_m, s.speed_mps, s.heading_deg
FROM clock c
CROSS JOIN (
    -- the LIMIT makes a generic plan expect one order, as GET /track reads
    SELECT order_id FROM unnest(%(order_ids)s::uuid[]) AS t (order_id)
    LIMIT cardinality(%(order_ids)s::uuid[])
) AS wanted
JOIN orders o ON o.order_id = wanted.order_id
LEFT JOIN assignment a ON a.order_id = o.order_id AND a.assignment_no = o.assignment_no
    AND a.assigned_at <= c.now AND (a.ended_at IS NULL OR c.now < a.ended_at)
LEFT JOIN driver_state s ON s.driver_id = a.driver_id
    AND s.fix_at >= a.assigned_at AND (a.ended_at IS NULL OR s.fix_at < a.ended_at)

-- watch_orders --
SELECT watch_orders_v1(%(order_ids)s::uuid[])
