-- Triggers on new fixes, once per statement. They also fire for statements without rows.

-- 500: update the newest fix of each driver and its cell, and count new fixes against the quota.
CREATE FUNCTION fix_history__derive_driver_state()
RETURNS trigger LANGUAGE plpgsql
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
DECLARE
    fix_takes CONSTANT interval := (SELECT make_interval(secs => 1 / quota_per_s) FROM limits);
    moved_drivers text[];
    moved_count int;
BEGIN
    IF current_setting('doorstep.drivers_are_moved', true) = 'on' THEN
        RETURN NULL;  -- by record_fixes__continue
    END IF;
    WITH moved AS (
        UPDATE driver_state d SET
            fix_at = f.fix_at, received_at = f.received_at,
            lon_deg = f.lon_deg, lat_deg = f.lat_deg, accuracy_m = f.accuracy_m,
            speed_mps = f.speed_mps, heading_deg = f.heading_deg, altitude_m = f.altitude_m,
            battery = f.battery, boot = f.boot, seq = f.seq,
            -- early, so that driver_state__take_prefixes has nothing to write for most drivers
            settled_to = (
                SELECT b.settled_to FROM boot_seqs b
                WHERE b.driver_id = f.driver_id AND b.boot = f.boot AND b.settled_to = b.newest_seq
            ),
            geom = ST_SetSRID(ST_MakePoint(f.lon_deg, f.lat_deg), 4326),
            cell = cell_of(f.lon_deg, f.lat_deg), hot_padding = NULL,
            quota_at = CASE WHEN f.fix_count = 1
                THEN greatest(d.quota_at, f.received_at) + fix_takes
                ELSE greatest(greatest(d.quota_at, f.first_at) + f.fix_count * fix_takes,
                    f.received_at + fix_takes) END
        FROM (
            SELECT n.*, existing.ctid AS existing_ctid, existing.cell AS existing_cell
            FROM (
                SELECT *, (row_number() OVER oldest_first)::int AS fix_count,
                    first_value(received_at) OVER oldest_first AS first_at,
                    lead(true) OVER oldest_first IS NULL AS is_newest
                FROM new_fixes WHERE quarantine IS NULL
                WINDOW oldest_first AS (PARTITION BY driver_id ORDER BY fix_at, boot, seq)
            ) n
            JOIN driver_state existing ON n.is_newest AND existing.driver_id = n.driver_id
                AND (existing.fix_at IS NULL OR n.fix_at > existing.fix_at
                    OR (n.fix_at = existing.fix_at
                        AND (n.boot, n.seq) > (existing.boot, existing.seq)))
        ) f
        WHERE d.ctid = f.existing_ctid  -- unchanged, because the driver row is locked
        RETURNING d.driver_id, d.cell, f.existing_cell, f.fix_count
    ),
    cells AS (
        INSERT INTO driver_cell AS c (driver_id, cell)
        SELECT driver_id, cell FROM moved WHERE cell IS DISTINCT FROM existing_cell
        ON CONFLICT (driver_id) DO UPDATE SET cell = EXCLUDED.cell
    )
    SELECT array_agg(driver_id), coalesce(sum(fix_count), 0) INTO moved_drivers, moved_count
        FROM moved;
    IF moved_count < (SELECT count(*) FROM new_fixes) THEN  -- late and quarantined ones
        UPDATE driver_state d SET quota_at =
            greatest(greatest(d.quota_at, f.first_at) + f.fix_count * fix_takes,
                f.last_at + fix_takes)
        FROM (
            SELECT driver_id, count(*) AS fix_count, min(received_at) AS first_at,
                max(received_at) AS last_at
            FROM new_fixes
            WHERE quarantine IS NOT NULL
                OR (driver_id IN (SELECT unnest(moved_drivers))) IS NOT TRUE
            GROUP BY driver_id
        ) f
        WHERE d.driver_id = f.driver_id;
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER _500_derive_driver_state
AFTER INSERT ON fix_history REFERENCING NEW TABLE AS new_fixes
FOR EACH STATEMENT EXECUTE FUNCTION fix_history__derive_driver_state();

-- Returns a row if the fix has a partner with which it could move a fact to an instant before
-- known_at (NULL: the fact is not proved yet), as the earlier or the later fix of the pair. Called
-- only for the few fixes in the right place; evidence__first_pair then decides. Returns a set, so
-- that the planner inlines it.
CREATE FUNCTION evidence__partner(
    of_driver_id text, at timestamptz, of_lon_deg float8, of_lat_deg float8, known_at timestamptz,
    place_lon_deg float8, place_lat_deg float8, inside bool, radius_m float8,
    min_s float8, max_s float8, spread_m float8
)
RETURNS SETOF timestamptz LANGUAGE sql STABLE ROWS 1
AS $$
    SELECT h.fix_at
    FROM fix_history h
    WHERE h.driver_id = of_driver_id
        AND h.fix_at >= at - make_interval(secs => max_s)
        AND h.fix_at <= at + make_interval(secs => max_s)
        AND least(h.fix_at, at) < coalesce(known_at, 'infinity')  -- the earlier fix of the pair
        AND (h.fix_at <= at - make_interval(secs => min_s)
            OR h.fix_at >= at + make_interval(secs => min_s))
        AND h.quarantine IS NULL
        AND (ground_distance_m(h.lon_deg, h.lat_deg, place_lon_deg, place_lat_deg) <= radius_m)
            = inside
        AND (spread_m IS NULL
            OR ground_distance_m(h.lon_deg, h.lat_deg, of_lon_deg, of_lat_deg) <= spread_m)
$$;

-- 520: derive the evidence of the assignments to which a new fix may contribute: the fix is in the
-- right place, early enough to matter, and (except for `arriving`) has a partner at the right
-- distance in time. Most fixes cost one look-up of the driver's assignments that have not ended
-- before. AND does not stop at NULL, so each bound is false where the instant is NULL.
CREATE FUNCTION fix_history__derive_evidence()
RETURNS trigger LANGUAGE plpgsql
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_seqscan = off  -- partitions may be empty when the plan is made
AS $$
DECLARE
    found_orders uuid[];  -- contains an order twice if two of its assignments are found
    found_assignment_nos int[];
    found_drivers text[];
    locked_orders uuid[];
BEGIN
    WITH candidates AS (
        SELECT DISTINCT a.order_id, a.assignment_no, a.driver_id
        FROM new_fixes f
        CROSS JOIN LATERAL (
            SELECT * FROM assignment t
            WHERE t.driver_id = f.driver_id AND coalesce(t.ended_at, 'infinity') > f.fix_at
            OFFSET 0  -- keeps other conditions, and so other indexes, out
        ) a
        CROSS JOIN LATERAL (
            SELECT p.*,
                ground_distance_m(f.lon_deg, f.lat_deg, a.restaurant_lon_deg, a.restaurant_lat_deg)
                    AS to_restaurant_m,
                ground_distance_m(f.lon_deg, f.lat_deg, a.customer_lon_deg, a.customer_lat_deg)
                    AS to_customer_m
            FROM policy p WHERE p.policy_id = a.policy_id
            OFFSET 0  -- a look-up per fix of an assignment, not of every fix per policy
        ) p
        WHERE f.quarantine IS NULL
            AND a.assigned_at <= f.fix_at
            AND (f.accuracy_m IS NULL OR f.accuracy_m <= p.worst_accuracy_m)
            AND (
                (abs(f.lat_deg - a.restaurant_lat_deg) * 111195 <= p.enter_radius_m
                    AND p.to_restaurant_m <= p.enter_radius_m
                    AND coalesce(f.speed_mps <= p.dwell_max_mps, true)
                    AND (a.at_restaurant_at IS NULL
                        OR f.fix_at <= a.at_restaurant_at + make_interval(secs => p.dwell_max_s))
                    AND EXISTS (SELECT FROM evidence__partner(
                        f.driver_id, f.fix_at, f.lon_deg, f.lat_deg, a.at_restaurant_at,
                        a.restaurant_lon_deg, a.restaurant_lat_deg, true, p.enter_radius_m,
                        p.dwell_min_s, p.dwell_max_s, p.dwell_spread_m)))
                OR (coalesce(f.fix_at >= a.at_restaurant_at, false)
                    AND p.to_restaurant_m > p.leave_radius_m
                    AND (a.left_restaurant_at IS NULL
                        OR f.fix_at <= a.left_restaurant_at + make_interval(secs => p.leave_max_s))
                    AND EXISTS (SELECT FROM evidence__partner(
                        f.driver_id, f.fix_at, f.lon_deg, f.lat_deg, a.left_restaurant_at,
                        a.restaurant_lon_deg, a.restaurant_lat_deg, false, p.leave_radius_m,
                        p.leave_min_s, p.leave_max_s, NULL)))
                OR (coalesce(f.fix_at >= a.picked_up_at, false)
                    AND p.to_customer_m <= p.arriving_radius_m AND a.visible @> f.fix_at
                    AND (a.arriving_at IS NULL OR f.fix_at < a.arriving_at))
                OR (coalesce(f.fix_at >= a.picked_up_at, false)
                    AND p.to_customer_m <= p.enter_radius_m AND a.visible @> f.fix_at
                    AND coalesce(f.speed_mps <= p.dwell_max_mps, true)
                    AND (a.at_customer_at IS NULL
                        OR f.fix_at <= a.at_customer_at + make_interval(secs => p.dwell_max_s))
                    AND EXISTS (SELECT FROM evidence__partner(
                        f.driver_id, f.fix_at, f.lon_deg, f.lat_deg, a.at_customer_at,
                        a.customer_lon_deg, a.customer_lat_deg, true, p.enter_radius_m,
                        p.dwell_min_s, p.dwell_max_s, p.dwell_spread_m)))
            )
    )
    SELECT array_agg(order_id), array_agg(assignment_no), array_agg(driver_id)
        INTO found_orders, found_assignment_nos, found_drivers
        FROM candidates;
    IF found_orders IS NULL THEN
        RETURN NULL;
    END IF;

    locked_orders := ARRAY(
        SELECT order_id FROM orders WHERE order_id = ANY (found_orders)
        ORDER BY order_id FOR NO KEY UPDATE SKIP LOCKED
    );
    IF cardinality(locked_orders) < (SELECT count(DISTINCT o) FROM unnest(found_orders) o) THEN
        RAISE EXCEPTION 'orders are locked by another transaction' USING
            ERRCODE = 'DS012',
            DETAIL = (
                SELECT jsonb_agg(DISTINCT f.driver_id)
                FROM unnest(found_orders, found_drivers) AS f (order_id, driver_id)
                WHERE f.order_id <> ALL (locked_orders)
            );
    END IF;
    PERFORM evidence__derive(found_orders, found_assignment_nos, false);
    PERFORM orders__apply_evidence(found_orders);
    PERFORM evidence__defer(found_orders, found_assignment_nos);
    RETURN NULL;
END
$$;

CREATE TRIGGER _520_derive_evidence
AFTER INSERT ON fix_history REFERENCING NEW TABLE AS new_fixes
FOR EACH STATEMENT EXECUTE FUNCTION fix_history__derive_evidence();
