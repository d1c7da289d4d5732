-- What dispatchers read: couriers ranked for an order, an order's timeline, states of then.

-- Returns couriers who may take an order, by their straight line to its pickup place: those without
-- an order, and those who may have one more. `is_current` is the one who has it.
CREATE FUNCTION order_couriers_v1(of_order_id uuid, at_most int)
RETURNS TABLE (
    driver_id text, name text, vehicle text, distance_m float8, lon_deg float8, lat_deg float8,
    fix_at timestamptz, received_at timestamptz, speed_mps float8, battery float8,
    open_orders int, is_current bool, pickup_lon_deg float8, pickup_lat_deg float8, city text
)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
SET enable_hashjoin = off  -- every join is a look-up by key
SET enable_mergejoin = off
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    place restaurant;
    current_driver_id text;
BEGIN
    SELECT r.* INTO place FROM orders o
        JOIN restaurant r ON r.restaurant_id = o.restaurant_id WHERE o.order_id = of_order_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no order %', of_order_id USING ERRCODE = 'DS002';
    END IF;
    SELECT n.driver_id INTO current_driver_id FROM order_now n WHERE n.order_id = of_order_id;
    RETURN QUERY
        WITH candidate AS MATERIALIZED (
            SELECT n.driver_id, n.open_orders, false AS is_current
            FROM nearest_drivers_v2(place.lon_deg, place.lat_deg, at_most, true) n
            WHERE n.driver_id IS DISTINCT FROM current_driver_id
            UNION ALL
            SELECT current_driver_id, cardinality(driver_stops__of(current_driver_id)), true
            WHERE current_driver_id IS NOT NULL
        )
        SELECT s.driver_id, d.name, d.vehicle, m.distance_m, s.lon_deg, s.lat_deg, s.fix_at,
            s.received_at, s.speed_mps, s.battery, c.open_orders, c.is_current,
            place.lon_deg, place.lat_deg, place.city
        FROM candidate c
        CROSS JOIN LATERAL (
            SELECT * FROM driver_state t WHERE t.driver_id = c.driver_id OFFSET 0
        ) s
        CROSS JOIN LATERAL (SELECT * FROM driver t WHERE t.driver_id = c.driver_id OFFSET 0) d
        CROSS JOIN LATERAL (SELECT ST_DistanceSphere(s.geom, place.geom)) AS m (distance_m)
        WHERE s.duty = 'on_duty'
        ORDER BY m.distance_m, s.driver_id
        LIMIT at_most;
END
$$;

-- Returns what happened to an order, the earliest first: its creation, commands, evidence of GPS,
-- offers, changes of its customer's links, and the end of its way back. `who` is the name of a
-- member of staff, a driver's id, or `customer`; null: the fleet's policy, or GPS.
CREATE FUNCTION order_timeline_v1(of_order_id uuid)
RETURNS TABLE (
    occurred_at timestamptz, recorded_at timestamptz, kind text, what text, actor text, who text,
    driver_id text, reason text, note text
)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    o orders;
BEGIN
    SELECT * INTO o FROM orders k WHERE k.order_id = of_order_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no order %', of_order_id USING ERRCODE = 'DS002';
    END IF;
    RETURN QUERY
        SELECT t.occurred_at, t.recorded_at, t.kind, t.what, t.actor, t.who, t.driver_id, t.reason,
            t.note
        FROM (
            SELECT 0 AS n, o.created_at AS occurred_at, o.created_at AS recorded_at,
                'command' AS kind, 'create' AS what, 'staff' AS actor,
                nullif(o.created_by, '') AS who, NULL AS driver_id, NULL AS reason, NULL AS note
            UNION ALL
            SELECT 1, c.commanded_at, c.commanded_at, 'command', c.command::text, c.actor::text,
                CASE c.actor WHEN 'customer' THEN 'customer' ELSE c.actor_id END, c.driver_id,
                c.failure_reason::text, c.note
            FROM order_command c WHERE c.order_id = of_order_id
            UNION ALL
            SELECT 2, e.occurred_at, e.recorded_at, 'evidence', e.state::text, NULL, NULL,
                a.driver_id, NULL, NULL
            FROM evidence e
            JOIN assignment a ON a.order_id = e.order_id AND a.assignment_no = e.assignment_no
            WHERE e.order_id = of_order_id
            UNION ALL
            SELECT 3, f.offered_at, f.offered_at, 'offer', 'offered',
                CASE WHEN f.offered_by IS NOT NULL THEN 'staff' END, f.offered_by, f.driver_id,
                NULL, NULL
            FROM order_offer f WHERE f.order_id = of_order_id
            UNION ALL
            SELECT 4, f.ended_at, f.ended_at, 'offer', f.outcome::text,
                CASE WHEN f.outcome IN ('accepted', 'declined') THEN 'driver' END,
                CASE WHEN f.outcome IN ('accepted', 'declined') THEN f.driver_id END, f.driver_id,
                NULL, NULL
            FROM order_offer f WHERE f.order_id = of_order_id AND f.ended_at IS NOT NULL
            UNION ALL
            SELECT 5, u.at, u.at, 'link',
                CASE WHEN u.action LIKE 'DELETE %' THEN 'revoked' ELSE 'replaced' END, 'staff',
                u.who, NULL, NULL, NULL
            FROM audit u
            WHERE u.subject = of_order_id::text AND u.action LIKE '% /orders/{order_id}/link'
            UNION ALL
            SELECT 6, b.ended_at, b.ended_at, 'return', 'returned', b.ended_role::text, b.ended_by,
                b.driver_id, NULL, NULL
            FROM order_return b WHERE b.order_id = of_order_id AND b.ended_at IS NOT NULL
        ) AS t
        ORDER BY t.occurred_at, t.recorded_at, t.n;
END
$$;

-- Returns when drivers entered which state within a range, and the last change in the 24 hours
-- before it: by commands of their duty, and by their assignments.
CREATE FUNCTION driver_states_v1(of_drivers text[], from_at timestamptz, to_at timestamptz)
RETURNS TABLE (driver_id text, entered_at timestamptz, state text)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
SET enable_hashjoin = off  -- every join is a look-up by key
SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    since CONSTANT timestamptz := from_at - interval '24 hours';
BEGIN
    RETURN QUERY
        WITH served AS MATERIALIZED (
            SELECT a.* FROM unnest(of_drivers) AS d (driver_id)
            CROSS JOIN LATERAL (
                SELECT * FROM assignment t WHERE t.driver_id = d.driver_id
                    AND t.assigned_at >= since AND t.assigned_at < to_at OFFSET 0
            ) a
        ), change AS MATERIALIZED (
            SELECT c.driver_id, c.commanded_at AS entered_at, c.to_state::text AS state
            FROM unnest(of_drivers) AS d (driver_id)
            CROSS JOIN LATERAL (
                SELECT * FROM driver_command t WHERE t.driver_id = d.driver_id
                    AND t.commanded_at >= since AND t.commanded_at < to_at OFFSET 0
            ) c
            UNION ALL
            SELECT s.driver_id, t.entered_at, t.state
            FROM served s
            CROSS JOIN LATERAL (VALUES
                (s.assigned_at, 'to_restaurant'),
                (s.at_restaurant_at, 'at_restaurant'),
                (s.picked_up_at, 'to_customer'),
                (s.at_customer_at, 'at_customer'),
                -- with another assignment still open, its state goes on
                (CASE WHEN NOT EXISTS (SELECT FROM served u WHERE u.driver_id = s.driver_id
                    AND u.order_id <> s.order_id AND u.assigned_at <= s.ended_at
                    AND (u.ended_at IS NULL OR u.ended_at > s.ended_at)) THEN s.ended_at END,
                'available')
            ) AS t (entered_at, state)
            WHERE t.entered_at < to_at AND (s.ended_at IS NULL OR t.entered_at <= s.ended_at)
        )
        SELECT c.driver_id, c.entered_at, c.state FROM change c
        WHERE c.entered_at >= coalesce((
            SELECT max(k.entered_at) FROM change k
            WHERE k.driver_id = c.driver_id AND k.entered_at <= from_at
        ), since)
        ORDER BY c.driver_id, c.entered_at;
END
$$;
