-- What tracking_api reads of drivers and of the whole fleet. Parameters are psycopg's %(name)s.


-- Drivers ---------------------------------------------------------------------------------

-- read_driver --
SELECT clock_timestamp(), d.driver_id, d.name, s.duty::text, s.state::text, s.order_id, s.battery,
    d.vehicle, d.phone, c.removed_at, p.state, p.invited_until, p.heard_at, p.app,
    EXISTS (SELECT FROM order_return r WHERE r.driver_id = d.driver_id AND r.ended_at IS NULL),
    s.fix_at, s.received_at, s.lon_deg, s.lat_deg, s.accuracy_m, s.speed_mps, s.heading_deg
FROM driver d
JOIN driver_state s ON s.driver_id = d.driver_id
JOIN driver_phone p ON p.driver_id = d.driver_id
LEFT JOIN device_credential c ON c.device_id = d.driver_id
WHERE d.driver_id = %(driver_id)s

-- read_driver_stops --
SELECT a.order_id, a.stop_no, o.state::text, a.assigned_at,
    r.name, r.lon_deg, r.lat_deg, o.lon_deg, o.lat_deg, o.customer_name
FROM assignment a
JOIN orders o ON o.order_id = a.order_id
JOIN restaurant r ON r.restaurant_id = o.restaurant_id
WHERE a.driver_id = %(driver_id)s AND a.ended_at IS NULL
ORDER BY a.stop_no

-- read_sampling --
SELECT s.sampling_policy::text, s.is_delivered, s.set_at, s.demand::text
FROM driver d
LEFT JOIN driver_sampling s ON s.driver_id = d.driver_id
WHERE d.driver_id = %(driver_id)s

-- read_nearest_drivers --
SELECT clock_timestamp(), n.driver_id, n.distance_m,
    s.fix_at, s.received_at, s.lon_deg, s.lat_deg, s.accuracy_m, s.speed_mps, s.heading_deg,
    n.open_orders,
    -- OFFSET 0 forces look-ups by key: the planner expects 1,000 rows of the function
    EXISTS (
        SELECT FROM order_return r WHERE r.driver_id = n.driver_id AND r.ended_at IS NULL OFFSET 0
    )
FROM nearest_drivers_v2(%(lon_deg)s, %(lat_deg)s, %(limit)s, %(with_orders)s) n
CROSS JOIN LATERAL (
    SELECT * FROM driver_state t WHERE t.driver_id = n.driver_id OFFSET 0
) s
ORDER BY n.distance_m, n.driver_id

-- read_cities --
SELECT name, west, south, east, north, time_zone FROM service_area WHERE retired_at IS NULL
ORDER BY name


-- Packed rows of all drivers: one JSON text, which costs Python a tenth of rows ------------

-- read_positions --
SELECT round(extract(epoch FROM clock_timestamp()) * 1000)::int8,
    coalesce(json_agg(json_build_array(
        driver_id, state, lon_deg, lat_deg, round(extract(epoch FROM fix_at) * 1000)::int8,
        round(extract(epoch FROM received_at) * 1000)::int8, speed_mps, heading_deg, accuracy_m,
        battery, order_id, duty
    )), '[]')::text
FROM driver_state s
WHERE fix_at IS NOT NULL
    AND NOT EXISTS (
        SELECT FROM device_credential c
        WHERE c.device_id = s.driver_id AND c.removed_at IS NOT NULL
    )
    AND (%(received_after)s::timestamptz IS NULL OR received_at > %(received_after)s)

-- read_fleet_page --
SELECT round(extract(epoch FROM clock_timestamp()) * 1000)::int8,
    coalesce(json_agg(json_build_array(
        driver_id, state, lon_deg, lat_deg, round(extract(epoch FROM fix_at) * 1000)::int8,
        round(extract(epoch FROM received_at) * 1000)::int8, speed_mps, heading_deg, accuracy_m,
        battery, order_id, duty
    )), '[]')::text
FROM (
    SELECT * FROM driver_state s
    WHERE fix_at IS NOT NULL AND driver_id > %(after)s
        AND NOT EXISTS (
            SELECT FROM device_credential c
            WHERE c.device_id = s.driver_id AND c.removed_at IS NOT NULL
        )
    ORDER BY driver_id
    LIMIT %(limit)s
) AS page

-- read_fleet_drivers --
SELECT round(extract(epoch FROM clock_timestamp()) * 1000)::int8,
    coalesce(json_agg(json_build_array(
        driver_id, state, lon_deg, lat_deg, round(extract(epoch FROM fix_at) * 1000)::int8,
        round(extract(epoch FROM received_at) * 1000)::int8, speed_mps, heading_deg, accuracy_m,
        battery, order_id, duty
    )), '[]')::text
FROM driver_state s
WHERE fix_at IS NOT NULL AND driver_id = ANY (%(driver_ids)s::text[])
    AND NOT EXISTS (
        SELECT FROM device_credential c
        WHERE c.device_id = s.driver_id AND c.removed_at IS NOT NULL
    )

-- read_removed_drivers --
SELECT device_id FROM device_credential WHERE removed_at > %(removed_after)s


-- Dispatch --------------------------------------------------------------------------------

-- read_attention_orders --
-- Open orders, the soonest due first, with their group (0 waiting, 1 stuck, 2 under way), and each
-- group's count. One row without an order where none is open.
WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS now),
open_order AS MATERIALIZED (
    SELECT o.*, a.driver_id, a.assigned_at, d.promised_to, d.address, d.external_id,
        coalesce(d.promised_to, d.scheduled_for,
            o.created_at + make_interval(mins => %(unpromised_min)s)) AS due_at,
        CASE
            WHEN o.state_at < c.now - make_interval(mins => t.minutes) THEN 'no_progress'
            WHEN a.driver_id IS NOT NULL AND (s.received_at IS NULL
                OR s.received_at < c.now - make_interval(secs => %(lost_after_s)s))
            THEN 'courier_lost'
        END AS stuck
    FROM clock c
    CROSS JOIN orders o
    LEFT JOIN unnest(%(stuck_states)s::text[], %(stuck_minutes)s::int[]) AS t (state, minutes)
        ON t.state = o.state::text
    LEFT JOIN assignment a ON a.order_id = o.order_id AND a.assignment_no = o.assignment_no
        AND a.ended_at IS NULL
    LEFT JOIN driver_state s ON s.driver_id = a.driver_id
    LEFT JOIN order_detail d ON d.order_id = o.order_id
    WHERE o.ended_at IS NULL
), grouped AS MATERIALIZED (
    SELECT o.*, CASE
        WHEN o.state::text = ANY (%(waiting_states)s::text[]) THEN 0
        WHEN o.stuck IS NOT NULL THEN 1
        ELSE 2
    END AS group_no
    FROM open_order o
)
SELECT c.now,
    ARRAY(SELECT (SELECT count(*) FROM grouped g WHERE g.group_no = n)::int8
        FROM generate_series(0, 2) AS n ORDER BY n),
    page.*
FROM clock c
LEFT JOIN LATERAL (
    SELECT g.state_at, g.group_no, g.stuck, g.due_at, g.promised_to, g.address, g.external_id,
        g.order_id, g.state::text, g.assignment_no, g.driver_id, g.order_seq, g.restaurant_id,
        g.lon_deg, g.lat_deg, g.customer_name, g.policy_id, g.created_at, g.assigned_at, g.ended_at
    FROM grouped g
    ORDER BY g.due_at, g.group_no, g.order_id
    LIMIT %(limit)s
) AS page ON true
ORDER BY page.due_at, page.group_no, page.order_id

-- read_staff_commands --
SELECT from_state::text, command::text
FROM order_transition
WHERE actor = 'staff'
GROUP BY from_state, command
ORDER BY order_transition.from_state, order_transition.command

-- read_fleet_tile --
SELECT fleet_tile_v1(%(z)s, %(x)s, %(y)s, %(states)s::text[], %(duties)s::text[],
    %(presences)s::text[], %(silent_after_s)s::float8, %(lost_after_s)s::float8,
    %(moving_mps)s::float8, %(limit)s)
