-- What fixes prove. Every rule asks "do two fixes exist such that ...", its lower time bounds are
-- instants that only ever move earlier, and its upper bound is the assignment's end. So the
-- answer depends on the set of fixes alone, grows with it, and never on their order. Only the
-- command that ends an assignment can take evidence back: see `afresh` below.

-- The earliest a.fix_at of all pairs (a, b) of a driver's fixes with from_at <= a < before_at and
-- b < until_at, both inside (or both outside) the radius, min_s to max_s apart and within
-- spread_m of each other, neither saying that it was faster than max_mps; NULL leaves max_s,
-- spread_m and max_mps open. NULL if there is no such pair.
CREATE FUNCTION evidence__first_pair(
    of_driver_id text, from_at timestamptz, before_at timestamptz, until_at timestamptz,
    place_lon_deg float8, place_lat_deg float8, inside bool, radius_m float8,
    min_s float8, max_s float8, spread_m float8, max_mps float8, worst_m float8
)
RETURNS timestamptz LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    apart_min CONSTANT interval := make_interval(secs => min_s);
    apart_max CONSTANT interval := make_interval(secs => coalesce(max_s, 365 * 86400));
BEGIN
    RETURN (
        SELECT a.fix_at
        FROM fix_history a
        WHERE a.driver_id = of_driver_id AND a.fix_at >= from_at
            AND a.fix_at < least(before_at, until_at)
            AND a.quarantine IS NULL AND (a.accuracy_m IS NULL OR a.accuracy_m <= worst_m)
            AND coalesce(a.speed_mps <= max_mps, true)
            AND (ground_distance_m(a.lon_deg, a.lat_deg, place_lon_deg, place_lat_deg) <= radius_m)
                = inside
            AND EXISTS (
                SELECT FROM fix_history b
                WHERE b.driver_id = of_driver_id AND b.fix_at >= a.fix_at + apart_min
                    AND b.fix_at <= a.fix_at + apart_max AND b.fix_at < until_at
                    AND b.quarantine IS NULL AND (b.accuracy_m IS NULL OR b.accuracy_m <= worst_m)
                    AND coalesce(b.speed_mps <= max_mps, true)
                    AND (ground_distance_m(b.lon_deg, b.lat_deg, place_lon_deg, place_lat_deg)
                        <= radius_m) = inside
                    AND (spread_m IS NULL
                        OR ground_distance_m(b.lon_deg, b.lat_deg, a.lon_deg, a.lat_deg) <= spread_m)
            )
        ORDER BY a.fix_at
        LIMIT 1
    );
END
$$;

-- Derives the four facts of one assignment and records what is new or earlier. `afresh` forgets
-- what was known: a closed window is judged as if it had been closed from the start, so that
-- fixes dated ahead of the closing command don't count, whichever arrived first.
-- The caller holds the order's row.
CREATE FUNCTION evidence__derive(of_order_id uuid, of_assignment_no int, afresh bool)
RETURNS void LANGUAGE plpgsql
AS $$
DECLARE
    a assignment;
    p policy;
    until_at timestamptz;
    commanded timestamptz;
    carried_at timestamptz;
    later CONSTANT timestamptz := 'infinity';
BEGIN
    SELECT * INTO STRICT a FROM assignment
        WHERE order_id = of_order_id AND assignment_no = of_assignment_no;
    SELECT * INTO STRICT p FROM policy WHERE policy_id = a.policy_id;
    SELECT min(commanded_at) INTO commanded FROM order_command
        WHERE order_id = of_order_id AND assignment_no = of_assignment_no AND command = 'pick_up';
    until_at := coalesce(a.ended_at, later);
    IF afresh THEN
        a.at_restaurant_at := NULL;
        a.left_restaurant_at := NULL;
        a.arriving_at := NULL;
        a.at_customer_at := NULL;
    END IF;

    a.at_restaurant_at := coalesce(evidence__first_pair(
        a.driver_id, a.assigned_at, coalesce(a.at_restaurant_at, later), until_at,
        a.restaurant_lon_deg, a.restaurant_lat_deg, true, p.enter_radius_m,
        p.dwell_min_s, p.dwell_max_s, p.dwell_spread_m, p.dwell_max_mps, p.worst_accuracy_m),
        a.at_restaurant_at);
    IF a.at_restaurant_at IS NOT NULL THEN
        a.left_restaurant_at := coalesce(evidence__first_pair(
            a.driver_id, a.at_restaurant_at, coalesce(a.left_restaurant_at, later), until_at,
            a.restaurant_lon_deg, a.restaurant_lat_deg, false, p.leave_radius_m,
            p.leave_min_s, p.leave_max_s, NULL, NULL, p.worst_accuracy_m), a.left_restaurant_at);
    END IF;
    a.picked_up_at := least(commanded, a.left_restaurant_at);  -- least() skips NULLs
    carried_at := greatest(a.picked_up_at, a.assigned_at);  -- our clock may have been set back
    IF a.picked_up_at IS NOT NULL THEN
        a.arriving_at := coalesce(evidence__first_pair(
            a.driver_id, carried_at, coalesce(a.arriving_at, later), until_at,
            a.customer_lon_deg, a.customer_lat_deg, true, p.arriving_radius_m,
            p.arriving_min_s, NULL, NULL, NULL, p.worst_accuracy_m), a.arriving_at);
        a.at_customer_at := coalesce(evidence__first_pair(
            a.driver_id, carried_at, coalesce(a.at_customer_at, later), until_at,
            a.customer_lon_deg, a.customer_lat_deg, true, p.enter_radius_m,
            p.dwell_min_s, p.dwell_max_s, p.dwell_spread_m, p.dwell_max_mps, p.worst_accuracy_m),
            a.at_customer_at);
    END IF;

    UPDATE assignment t SET
        at_restaurant_at = a.at_restaurant_at, left_restaurant_at = a.left_restaurant_at,
        picked_up_at = a.picked_up_at, arriving_at = a.arriving_at,
        at_customer_at = a.at_customer_at
    WHERE t.order_id = a.order_id AND t.assignment_no = a.assignment_no
        AND (t.at_restaurant_at, t.left_restaurant_at, t.picked_up_at, t.arriving_at,
            t.at_customer_at)
        IS DISTINCT FROM (a.at_restaurant_at, a.left_restaurant_at, a.picked_up_at, a.arriving_at,
            a.at_customer_at);
    IF NOT FOUND THEN
        RETURN;
    END IF;
    INSERT INTO evidence AS known (order_id, assignment_no, state, occurred_at)
    SELECT a.order_id, a.assignment_no, fact.state, fact.occurred_at
    FROM (VALUES
        ('at_restaurant'::order_state, a.at_restaurant_at), ('picked_up', a.left_restaurant_at),
        ('arriving', a.arriving_at), ('at_customer', a.at_customer_at)
    ) AS fact (state, occurred_at)
    WHERE fact.occurred_at IS NOT NULL
    ON CONFLICT (order_id, assignment_no, state, source) DO UPDATE
        SET occurred_at = EXCLUDED.occurred_at
        WHERE known.occurred_at <> EXCLUDED.occurred_at;
    IF afresh THEN
        DELETE FROM evidence
        WHERE order_id = a.order_id AND assignment_no = a.assignment_no AND source = 'gps'
            AND CASE state
                WHEN 'at_restaurant' THEN a.at_restaurant_at WHEN 'picked_up' THEN a.left_restaurant_at
                WHEN 'arriving' THEN a.arriving_at ELSE a.at_customer_at
            END IS NULL;
    END IF;
END
$$;

-- Shows what evidence has proved of the current assignments: one step, one event at a time.
-- The caller holds the orders' rows.
CREATE FUNCTION orders__show_evidence(of_orders uuid[])
RETURNS void LANGUAGE plpgsql
AS $$
DECLARE
    step order_state;
BEGIN
    FOREACH step IN ARRAY
        ARRAY['at_restaurant', 'picked_up', 'arriving', 'at_customer']::order_state[]
    LOOP
        UPDATE orders o SET state = step, state_source = e.source, state_at = e.occurred_at
        FROM evidence e
        WHERE o.order_id = ANY (of_orders) AND o.ended_at IS NULL AND o.state < step
            AND e.order_id = o.order_id AND e.assignment_no = o.assignment_no
            AND e.state = step AND e.source = 'gps';
    END LOOP;
    UPDATE orders o SET state_at = e.occurred_at  -- shown already, and earlier than was known
    FROM evidence e
    WHERE o.order_id = ANY (of_orders) AND o.ended_at IS NULL AND o.state_source = 'gps'
        AND e.order_id = o.order_id AND e.assignment_no = o.assignment_no
        AND e.state = o.state AND e.source = 'gps' AND e.occurred_at < o.state_at;
END
$$;
