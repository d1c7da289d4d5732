-- Evidence from fixes. Every rule has the form "two fixes exist such that ...". Its lower time
-- bounds are instants that only move earlier, and its upper bound is the end of the assignment. So
-- the result is a function of the set of fixes, never of their order, and it grows with the set.
-- Only the command that ends an assignment can remove evidence: see `recompute` below.
--
-- Plans are cached for the life of a session and may be made while tables are empty (the partition
-- of the next day always is). So every look-up here uses a key, whatever sizes the planner
-- estimates: sequential scans are off, and OFFSET 0 keeps the planner from starting with the wrong
-- table.

-- Returns the earliest a.fix_at of all pairs (a, b) of fixes of a driver with from_at <= a <
-- before_at and b < until_at, both inside (or both outside) the radius, min_s to max_s apart,
-- within spread_m of each other, and neither with a speed above max_mps. NULL disables max_s,
-- spread_m and max_mps. Returns no row if there is no such pair. Returns a set, so that the planner
-- inlines it.
CREATE FUNCTION evidence__first_pair(
    of_driver_id text, from_at timestamptz, before_at timestamptz, until_at timestamptz,
    place_lon_deg float8, place_lat_deg float8, inside bool, radius_m float8,
    min_s float8, max_s float8, spread_m float8, max_mps float8, worst_m float8
)
RETURNS SETOF timestamptz LANGUAGE sql STABLE ROWS 1
AS $$
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
            WHERE b.driver_id = of_driver_id AND b.fix_at >= a.fix_at + make_interval(secs => min_s)
                AND b.fix_at <= a.fix_at + make_interval(secs => coalesce(max_s, 365 * 86400))
                AND b.fix_at < until_at
                AND b.quarantine IS NULL AND (b.accuracy_m IS NULL OR b.accuracy_m <= worst_m)
                AND coalesce(b.speed_mps <= max_mps, true)
                AND (ground_distance_m(b.lon_deg, b.lat_deg, place_lon_deg, place_lat_deg)
                    <= radius_m) = inside
                AND (spread_m IS NULL
                    OR ground_distance_m(b.lon_deg, b.lat_deg, a.lon_deg, a.lat_deg) <= spread_m)
        )
    ORDER BY a.fix_at
    LIMIT 1
$$;

-- Fixes with the customer count if they are dated before this instant, the present. Those after it
-- might still be excluded by a command that closes the range.
CREATE FUNCTION evidence__counts_before()
RETURNS timestamptz LANGUAGE sql
RETURN clock_timestamp();

-- Derives the four facts of the assignments (of_orders[i], of_assignment_nos[i]) and records those
-- that are new or earlier. `recompute` ignores the facts recorded so far: a closed window is
-- evaluated as if it had been closed from the start, so that fixes dated after the closing command
-- never count, whichever arrived first. All assignments share one statement, because starting a
-- statement costs more than evaluating an assignment. Each fact starts at the one before it, so
-- each is a CTE of its own. The caller has locked the order rows.
CREATE FUNCTION evidence__derive(of_orders uuid[], of_assignment_nos int[], recompute bool)
RETURNS void LANGUAGE plpgsql
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    later CONSTANT timestamptz := 'infinity';
    counts_before CONSTANT timestamptz := evidence__counts_before();
BEGIN
    WITH requested AS MATERIALIZED (
        SELECT a.existing_ctid, a.order_id, a.assignment_no, a.driver_id, a.assigned_at,
            a.restaurant_lon_deg, a.restaurant_lat_deg, a.customer_lon_deg, a.customer_lat_deg,
            coalesce(a.ended_at, later) AS until_at, a.visible,
            CASE WHEN NOT recompute THEN a.at_restaurant_at END AS at_restaurant_at,
            CASE WHEN NOT recompute THEN a.left_restaurant_at END AS left_restaurant_at,
            CASE WHEN NOT recompute THEN a.arriving_at END AS arriving_at,
            CASE WHEN NOT recompute THEN a.at_customer_at END AS at_customer_at,
            p.*
        FROM unnest(of_orders, of_assignment_nos) AS k (order_id, assignment_no)
        CROSS JOIN LATERAL (
            SELECT t.ctid AS existing_ctid, t.* FROM assignment t
            WHERE t.order_id = k.order_id AND t.assignment_no = k.assignment_no OFFSET 0
        ) a
        JOIN policy p ON p.policy_id = a.policy_id
    ),
    arrived AS MATERIALIZED (
        SELECT a.*, coalesce((
            SELECT * FROM evidence__first_pair(
                a.driver_id, a.assigned_at, coalesce(a.at_restaurant_at, later), a.until_at,
                a.restaurant_lon_deg, a.restaurant_lat_deg, true, a.enter_radius_m,
                a.dwell_min_s, a.dwell_max_s, a.dwell_spread_m, a.dwell_max_mps, a.worst_accuracy_m)
        ), a.at_restaurant_at) AS arrived_at
        FROM requested a
    ),
    departed AS MATERIALIZED (  -- finds nothing where arrived_at is NULL
        SELECT a.*, coalesce((
            SELECT * FROM evidence__first_pair(
                a.driver_id, a.arrived_at, coalesce(a.left_restaurant_at, later), a.until_at,
                a.restaurant_lon_deg, a.restaurant_lat_deg, false, a.leave_radius_m,
                a.leave_min_s, a.leave_max_s, NULL, NULL, a.worst_accuracy_m)
        ), a.left_restaurant_at) AS departed_at
        FROM arrived a
    ),
    carried AS MATERIALIZED (
        -- The server's clock may have been set back, so carrying_from_at is never before
        -- assigned_at.
        SELECT a.*, c.picked_up_at,
            CASE WHEN c.picked_up_at IS NOT NULL THEN greatest(c.picked_up_at, a.assigned_at) END
                AS carrying_from_at
        FROM departed a
        CROSS JOIN LATERAL (
            SELECT least(a.departed_at, min(commanded_at)) AS picked_up_at  -- least() skips NULLs
            FROM order_command WHERE order_id = a.order_id
                AND assignment_no = a.assignment_no AND command = 'pick_up'
        ) c
    ),
    proved AS MATERIALIZED (
        SELECT a.existing_ctid, a.arrived_at, a.departed_at, a.picked_up_at,
            coalesce((
                SELECT min(k.fix_at) FROM unnest(a.visible) AS r
                CROSS JOIN LATERAL evidence__first_pair(
                    a.driver_id, greatest(a.carrying_from_at, lower(r)),
                    coalesce(a.arriving_at, later), least(upper(r), a.until_at, counts_before),
                    a.customer_lon_deg, a.customer_lat_deg, true, a.arriving_radius_m,
                    a.arriving_min_s, NULL, NULL, NULL, a.worst_accuracy_m) AS k (fix_at)
                WHERE a.carrying_from_at IS NOT NULL
            ), a.arriving_at) AS arriving_at,
            coalesce((
                SELECT min(k.fix_at) FROM unnest(a.visible) AS r
                CROSS JOIN LATERAL evidence__first_pair(
                    a.driver_id, greatest(a.carrying_from_at, lower(r)),
                    coalesce(a.at_customer_at, later), least(upper(r), a.until_at, counts_before),
                    a.customer_lon_deg, a.customer_lat_deg, true, a.enter_radius_m,
                    a.dwell_min_s, a.dwell_max_s, a.dwell_spread_m, a.dwell_max_mps,
                    a.worst_accuracy_m) AS k (fix_at)
                WHERE a.carrying_from_at IS NOT NULL
            ), a.at_customer_at) AS at_customer_at
        FROM carried a
    ),
    changed AS (
        UPDATE assignment t SET
            at_restaurant_at = a.arrived_at, left_restaurant_at = a.departed_at,
            picked_up_at = a.picked_up_at, arriving_at = a.arriving_at,
            at_customer_at = a.at_customer_at
        FROM proved a
        WHERE t.ctid = a.existing_ctid  -- unchanged, because the caller has locked the order row
            AND (t.at_restaurant_at, t.left_restaurant_at, t.picked_up_at, t.arriving_at,
                t.at_customer_at)
            IS DISTINCT FROM (a.arrived_at, a.departed_at, a.picked_up_at, a.arriving_at,
                a.at_customer_at)
        RETURNING t.*
    ),
    facts AS MATERIALIZED (
        SELECT c.order_id, c.assignment_no, f.state, f.occurred_at
        FROM changed c
        CROSS JOIN LATERAL (VALUES
            ('at_restaurant'::order_state, c.at_restaurant_at), ('picked_up', c.left_restaurant_at),
            ('arriving', c.arriving_at), ('at_customer', c.at_customer_at)
        ) AS f (state, occurred_at)
    ),
    removed AS (
        DELETE FROM evidence e
        WHERE recompute AND e.order_id = ANY (of_orders) AND e.source = 'gps' AND EXISTS (
            SELECT FROM facts f
            WHERE f.order_id = e.order_id AND f.assignment_no = e.assignment_no
                AND f.state = e.state AND f.occurred_at IS NULL
        )
    )
    INSERT INTO evidence AS recorded (order_id, assignment_no, state, occurred_at)
    SELECT order_id, assignment_no, state, occurred_at FROM facts WHERE occurred_at IS NOT NULL
    ON CONFLICT (order_id, assignment_no, state, source) DO UPDATE
        SET occurred_at = EXCLUDED.occurred_at
        WHERE recorded.occurred_at <> EXCLUDED.occurred_at;
END
$$;

-- Moves orders to the state that the evidence of their current assignments proves, one state and
-- one event at a time. The caller has locked the order rows.
CREATE FUNCTION orders__apply_evidence(of_orders uuid[])
RETURNS void LANGUAGE plpgsql
SET enable_seqscan = off
AS $$
DECLARE
    step order_state;
BEGIN
    FOREACH step IN ARRAY
        ARRAY['at_restaurant', 'picked_up', 'arriving', 'at_customer']::order_state[]
    LOOP
        UPDATE orders o SET
            state = step, state_source = proved.source, state_at = proved.occurred_at
        FROM (
            SELECT existing.ctid AS existing_ctid, e.source, e.occurred_at
            FROM (SELECT DISTINCT unnest(of_orders) AS order_id) requested
            CROSS JOIN LATERAL (
                SELECT t.ctid, t.* FROM orders t WHERE t.order_id = requested.order_id OFFSET 0
            ) existing
            CROSS JOIN LATERAL (
                SELECT k.source, k.occurred_at FROM evidence k
                WHERE k.order_id = existing.order_id AND k.assignment_no = existing.assignment_no
                    AND k.state = step AND k.source = 'gps' OFFSET 0
            ) e
            WHERE existing.ended_at IS NULL AND existing.state < step
        ) proved
        WHERE o.ctid = proved.existing_ctid;
    END LOOP;
    -- The visible state may turn out to have begun earlier.
    UPDATE orders o SET state_at = proved.occurred_at
    FROM (
        SELECT existing.ctid AS existing_ctid, e.occurred_at
        FROM (SELECT DISTINCT unnest(of_orders) AS order_id) requested
        CROSS JOIN LATERAL (
            SELECT t.ctid, t.* FROM orders t WHERE t.order_id = requested.order_id OFFSET 0
        ) existing
        CROSS JOIN LATERAL (
            SELECT k.occurred_at FROM evidence k
            WHERE k.order_id = existing.order_id AND k.assignment_no = existing.assignment_no
                AND k.state = existing.state AND k.source = 'gps' OFFSET 0
        ) e
        WHERE existing.ended_at IS NULL AND existing.state_source = 'gps'
            AND e.occurred_at < existing.state_at
    ) proved
    WHERE o.ctid = proved.existing_ctid;
END
$$;

-- The instant of a driver's first stored fix from one instant to another, or the latter.
CREATE FUNCTION fix_history__first_at(of_driver_id text, since timestamptz, until timestamptz)
RETURNS timestamptz LANGUAGE sql STABLE
AS $$
    SELECT coalesce(min(h.fix_at), until) FROM fix_history h
    WHERE h.driver_id = of_driver_id AND h.fix_at >= since AND h.fix_at < until
$$;

-- Notes the open assignments for which fixes from the future are stored that may prove something
-- with the customer when they are past: each of them, the earliest first.
CREATE FUNCTION evidence__defer(of_orders uuid[], of_assignment_nos int[])
RETURNS void LANGUAGE plpgsql
SET enable_hashjoin = off  -- every join is a look-up by key
SET enable_mergejoin = off
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    present CONSTANT timestamptz := evidence__counts_before();
BEGIN
    INSERT INTO evidence_due AS e (order_id, assignment_no, due_at, until_at)
    SELECT DISTINCT a.order_id, a.assignment_no,
        fix_history__first_at(d.driver_id, present, d.fix_at), d.fix_at
    FROM unnest(of_orders, of_assignment_nos) AS k (order_id, assignment_no)
    JOIN assignment a ON a.order_id = k.order_id AND a.assignment_no = k.assignment_no
    JOIN driver_state d ON d.driver_id = a.driver_id
    WHERE a.stop_no = 1 AND a.picked_up_at IS NOT NULL AND d.fix_at >= present
    ON CONFLICT (order_id, assignment_no) DO UPDATE
        SET due_at = least(e.due_at, EXCLUDED.due_at),
            until_at = greatest(e.until_at, EXCLUDED.until_at);
END
$$;

-- Derives what was deferred and is due, for at most so many drivers; skips one whose row is locked.
-- Returns their number.
CREATE FUNCTION evidence__settle_v1(at_most int)
RETURNS int LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
SET enable_hashjoin = off  -- every join is a look-up by key
SET enable_mergejoin = off
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    due_before timestamptz;
    of_driver_id text;
    due_orders uuid[];
    due_nos int[];
    settled_count int := 0;
BEGIN
    FOR of_driver_id IN
        SELECT DISTINCT k.driver_id FROM (
            SELECT a.driver_id FROM evidence_due e
            JOIN assignment a ON a.order_id = e.order_id AND a.assignment_no = e.assignment_no
            WHERE e.due_at < evidence__counts_before() ORDER BY e.due_at LIMIT at_most
        ) k
    LOOP
        PERFORM FROM driver_state d WHERE d.driver_id = of_driver_id
            FOR NO KEY UPDATE SKIP LOCKED;
        CONTINUE WHEN NOT FOUND;
        due_before := evidence__counts_before();
        SELECT array_agg(a.order_id ORDER BY a.order_id),
                array_agg(a.assignment_no ORDER BY a.order_id)
            INTO due_orders, due_nos
            FROM assignment a
            JOIN evidence_due e ON e.order_id = a.order_id AND e.assignment_no = a.assignment_no
            WHERE a.driver_id = of_driver_id AND a.ended_at IS NULL AND e.due_at < due_before;
        CONTINUE WHEN due_orders IS NULL;
        DELETE FROM evidence_due e
            WHERE e.order_id = ANY (due_orders) AND e.until_at < due_before;
        UPDATE evidence_due e
            SET due_at = fix_history__first_at(of_driver_id, due_before, e.until_at)
            WHERE e.order_id = ANY (due_orders) AND e.due_at < due_before;
        PERFORM FROM orders o WHERE o.order_id = ANY (due_orders)
            ORDER BY o.order_id FOR NO KEY UPDATE;
        PERFORM evidence__derive(due_orders, due_nos, false);
        PERFORM orders__apply_evidence(due_orders);
        settled_count := settled_count + 1;
    END LOOP;
    RETURN settled_count;
END
$$;
