-- The sequence of a driver's stops: docs/explanation/stacked-orders.md. The driver's row is locked
-- in every function that reads it to decide. Only functions that services execute set the
-- planner's parameters, which hold for what they call: each setting costs time.

-- The open orders of a driver, the next stop first.
CREATE FUNCTION driver_stops__of(of_driver_id text)
RETURNS uuid[] LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN ARRAY(
        SELECT a.order_id FROM assignment a
        WHERE a.driver_id = of_driver_id AND a.ended_at IS NULL ORDER BY a.stop_no
    );
END
$$;

-- Whether a driver may be given an order: on duty, below the limit, and without this order.
CREATE FUNCTION driver_stops__has_room(of_driver_id text, for_order_id uuid)
RETURNS bool LANGUAGE plpgsql  -- volatile: sees what was committed while the caller waited
AS $$
DECLARE
    present driver_status;
    open_orders uuid[];
BEGIN
    SELECT d.state INTO present FROM driver_state d
        WHERE d.driver_id = of_driver_id AND d.duty = 'on_duty';
    IF NOT FOUND OR present = 'available' THEN
        RETURN FOUND;
    END IF;
    open_orders := driver_stops__of(of_driver_id);
    RETURN cardinality(open_orders) < (SELECT l.max_open_orders FROM limits l)
        AND for_order_id <> ALL (open_orders);
END
$$;

-- When a driver's next range may begin: ranges never overlap, even if the clock is set back.
CREATE FUNCTION driver_stops__free_from(of_driver_id text, at timestamptz)
RETURNS timestamptz LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN greatest(at, (
        SELECT max(greatest(a.ended_at, lower(r), upper(r)))  -- greatest() skips nulls
        FROM assignment a
        LEFT JOIN LATERAL unnest(a.visible) AS r ON true
        WHERE a.driver_id = of_driver_id AND coalesce(a.ended_at, 'infinity') > at
    ));
END
$$;

-- Metres in straight lines: from a place (nulls: unknown) along stops, with a restaurant before the
-- first of its orders that is not picked up.
CREATE FUNCTION driver_stops__way_m(lon_deg float8, lat_deg float8, stops driver_stop[])
RETURNS float8 LANGUAGE plpgsql IMMUTABLE
AS $$
DECLARE
    stop driver_stop;
    restaurants float8[] := '{}';  -- those on the way, lon_deg and lat_deg of each
    way_m float8 := 0;
BEGIN
    FOREACH stop IN ARRAY stops LOOP
        IF NOT stop.is_picked_up AND NOT EXISTS (
            SELECT FROM generate_subscripts(restaurants, 1) k WHERE k % 2 = 1
                AND restaurants[k] = stop.restaurant_lon_deg
                AND restaurants[k + 1] = stop.restaurant_lat_deg
        ) THEN
            restaurants := restaurants || stop.restaurant_lon_deg || stop.restaurant_lat_deg;
            way_m := way_m + coalesce(ground_distance_m(
                lon_deg, lat_deg, stop.restaurant_lon_deg, stop.restaurant_lat_deg), 0);
            lon_deg := stop.restaurant_lon_deg;
            lat_deg := stop.restaurant_lat_deg;
        END IF;
        way_m := way_m + coalesce(ground_distance_m(
            lon_deg, lat_deg, stop.customer_lon_deg, stop.customer_lat_deg), 0);
        lon_deg := stop.customer_lon_deg;
        lat_deg := stop.customer_lat_deg;
    END LOOP;
    RETURN way_m;
END
$$;

-- Where a new stop goes in a driver's sequence: at wanted_no, or with the least detour, the last of
-- equal ones to the metre; but no stop that is picked up moves behind it.
CREATE FUNCTION driver_stops__place(
    of_driver_id text, new_stop driver_stop, wanted_no int,
    OUT stop_no int, OUT detour_m float8
)
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    stops driver_stop[];
    first_no int;  -- that is possible
    from_lon_deg float8;
    from_lat_deg float8;
    way_m float8;
    extra_m float8;
BEGIN
    SELECT coalesce(array_agg((a.restaurant_lon_deg, a.restaurant_lat_deg, a.customer_lon_deg,
                a.customer_lat_deg, o.state >= 'picked_up')::driver_stop ORDER BY a.stop_no), '{}'),
            coalesce(max(a.stop_no) FILTER (WHERE o.state >= 'picked_up'), 0) + 1
        INTO stops, first_no
        FROM assignment a JOIN orders o ON o.order_id = a.order_id
        WHERE a.driver_id = of_driver_id AND a.ended_at IS NULL;
    IF wanted_no IS NOT NULL OR cardinality(stops) = 0 THEN
        stop_no := least(greatest(wanted_no, first_no), cardinality(stops) + 1);
        RETURN;
    END IF;
    SELECT d.lon_deg, d.lat_deg INTO from_lon_deg, from_lat_deg
        FROM driver_state d WHERE d.driver_id = of_driver_id;
    way_m := driver_stops__way_m(from_lon_deg, from_lat_deg, stops);
    FOR n IN REVERSE cardinality(stops) + 1 .. first_no LOOP
        extra_m := round(driver_stops__way_m(from_lon_deg, from_lat_deg,
            stops[: n - 1] || new_stop || stops[n :]) - way_m);
        IF detour_m IS NULL OR extra_m < detour_m THEN
            stop_no := n;
            detour_m := extra_m;
        END IF;
    END LOOP;
END
$$;

-- Puts the open assignments of a driver into a sequence: what was the next stop is no longer
-- visible from an instant on, what is now becomes it. Evidence of both is derived.
CREATE FUNCTION driver_stops__arrange(of_driver_id text, of_orders uuid[], at timestamptz)
RETURNS void LANGUAGE plpgsql
AS $$
DECLARE
    touched_orders uuid[];  -- ranges of these have changed
    touched_nos int[];
BEGIN
    WITH moved AS (
        UPDATE assignment t SET stop_no = n.stop_no,
            visible = CASE
                WHEN t.stop_no = 1 THEN t.visible - tstzmultirange(tstzrange(at, NULL))
                WHEN n.stop_no = 1 THEN t.visible + tstzmultirange(tstzrange(at, NULL))
                ELSE t.visible
            END
        FROM unnest(of_orders) WITH ORDINALITY AS n (order_id, stop_no)
        WHERE t.order_id = n.order_id AND t.driver_id = of_driver_id AND t.ended_at IS NULL
            AND t.stop_no <> n.stop_no
        RETURNING t.order_id, t.assignment_no, n.stop_no = 1 OR upper(t.visible) = at AS is_touched
    )
    SELECT array_agg(order_id ORDER BY order_id), array_agg(assignment_no ORDER BY order_id)
        INTO touched_orders, touched_nos
        FROM moved WHERE is_touched;
    IF EXISTS (SELECT FROM evidence_due e WHERE e.order_id = ANY (touched_orders)) OR EXISTS (
        SELECT FROM driver_state d WHERE d.driver_id = of_driver_id AND d.fix_at >= at
    ) THEN
        PERFORM evidence__derive_open(touched_orders, touched_nos);
    END IF;
END
$$;

-- Derives the evidence of open assignments of a driver who is locked.
CREATE FUNCTION evidence__derive_open(of_orders uuid[], of_assignment_nos int[])
RETURNS void LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM FROM orders o WHERE o.order_id = ANY (of_orders)
        ORDER BY o.order_id FOR NO KEY UPDATE;
    PERFORM evidence__derive(of_orders, of_assignment_nos, false);
    PERFORM orders__apply_evidence(of_orders);
    PERFORM evidence__defer(of_orders, of_assignment_nos);
END
$$;

-- Puts the open orders of a driver into a sequence. Raises DS033 if they are others, DS034 if a
-- stop that is picked up would move behind one that is not.
CREATE FUNCTION set_driver_stops_v1(of_driver_id text, of_orders uuid[], by_name text)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
SET enable_hashjoin = off  -- every join is a look-up by key
SET enable_mergejoin = off
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    open_orders uuid[];
BEGIN
    PERFORM FROM driver_state d WHERE d.driver_id = of_driver_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no driver %', of_driver_id USING ERRCODE = 'DS003';
    END IF;
    open_orders := driver_stops__of(of_driver_id);
    IF ARRAY(SELECT k FROM unnest(of_orders) k ORDER BY k)
        IS DISTINCT FROM ARRAY(SELECT k FROM unnest(open_orders) k ORDER BY k)
    THEN
        RAISE EXCEPTION 'the open orders of % are others', of_driver_id USING
            ERRCODE = 'DS033', DETAIL = jsonb_build_object('order_ids', open_orders);
    ELSIF EXISTS (
        SELECT FROM orders a CROSS JOIN orders b
        WHERE a.order_id = ANY (open_orders) AND b.order_id = ANY (open_orders)
            AND a.state >= 'picked_up' AND b.state < 'picked_up'
            AND array_position(open_orders, a.order_id) < array_position(open_orders, b.order_id)
            AND array_position(of_orders, a.order_id) > array_position(of_orders, b.order_id)
    ) THEN
        RAISE EXCEPTION 'an order that is picked up would come after one that is not'
            USING ERRCODE = 'DS034';
    ELSIF open_orders = of_orders THEN
        RETURN;
    END IF;
    PERFORM FROM orders o WHERE o.order_id = ANY (open_orders)
        ORDER BY o.order_id FOR NO KEY UPDATE;
    PERFORM driver_stops__arrange(
        of_driver_id, of_orders, driver_stops__free_from(of_driver_id, clock_timestamp()));
    PERFORM driver_state__derive(ARRAY[of_driver_id]);
    PERFORM record_audit_v1(by_name, 'driver.stops', of_driver_id,
        jsonb_build_object('order_ids', of_orders));
END
$$;

-- Applies `assign` or `reassign` of staff, with the place of the new stop: null for the least
-- detour.
CREATE FUNCTION assign_order_as_staff_v1(
    of_order_id uuid, command_name text, by_name text, to_driver_id text, at_stop_no int,
    with_idempotency_key text
)
RETURNS TABLE (
    order_id uuid, state order_state, assignment_no int, driver_id text, order_seq int,
    restaurant_id int, lon_deg float8, lat_deg float8, customer_name text, policy_id int,
    created_at timestamptz, assigned_at timestamptz, ended_at timestamptz
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
BEGIN
    -- read by apply_order_command_v1 and by the trigger on the new assignment
    PERFORM set_config('doorstep.stop_no', coalesce(at_stop_no::text, ''), true);
    RETURN QUERY SELECT * FROM apply_order_command_v1(
        of_order_id, command_name, 'staff', by_name, to_driver_id, with_idempotency_key);
    PERFORM set_config('doorstep.stop_no', '', true);
END
$$;

-- Drivers near a restaurant who have an order and room for another, with their detours: of the
-- nearest 20 that are not excluded, the least detour first.
CREATE FUNCTION driver_stops__candidates(o orders, excluded text[] DEFAULT '{}')
RETURNS TABLE (driver_id text, detour_m float8)
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    at_most CONSTANT int := 20;
    l limits;
    r restaurant;
    reach int;  -- in cells of 0.01 degrees each way
    nearest text[];
BEGIN
    SELECT * INTO STRICT l FROM limits;
    SELECT * INTO STRICT r FROM restaurant k WHERE k.restaurant_id = o.restaurant_id;
    FOREACH reach IN ARRAY ARRAY[1, 4, 16, 64] LOOP
        nearest := ARRAY(
            SELECT d.driver_id
            FROM generate_series(greatest(floor(r.lat_deg * 100)::int - reach + 9000, 0),
                floor(r.lat_deg * 100)::int + reach + 9000) AS s (cell_row)
            CROSS JOIN LATERAL (
                SELECT c.driver_id FROM driver_cell c
                WHERE c.cell BETWEEN s.cell_row * 36000
                        + greatest(floor(r.lon_deg * 100)::int - reach + 18000, 0)
                    AND s.cell_row * 36000
                        + least(floor(r.lon_deg * 100)::int + reach + 18000, 35999)
                OFFSET 0
            ) c
            CROSS JOIN LATERAL (
                SELECT k.* FROM driver_state k
                WHERE k.driver_id = c.driver_id AND k.order_id IS NOT NULL
                    AND k.duty = 'on_duty'
                    AND k.fix_at > clock_timestamp() - make_interval(secs => l.nearest_max_age_s)
                OFFSET 0
            ) d
            CROSS JOIN LATERAL (
                SELECT ground_distance_m(d.lon_deg, d.lat_deg, r.lon_deg, r.lat_deg)
            ) AS m (distance_m)
            -- as driver_stops__has_room, which costs ten times as much in a loop
            CROSS JOIN LATERAL (
                SELECT count(*) AS open_orders, bool_or(a.order_id = o.order_id) AS has_this
                FROM assignment a WHERE a.driver_id = d.driver_id AND a.ended_at IS NULL
            ) AS b
            WHERE m.distance_m <= l.nearest_max_m AND d.driver_id <> ALL (excluded)
                AND b.open_orders < l.max_open_orders AND b.has_this IS NOT TRUE
            ORDER BY m.distance_m, d.driver_id
            LIMIT at_most
        );
        EXIT WHEN cardinality(nearest) = at_most;
    END LOOP;
    RETURN QUERY SELECT * FROM driver_stops__rank(o, r, nearest);
END
$$;

-- Drivers with the detour that an order is for each, the least first.
CREATE FUNCTION driver_stops__rank(o orders, r restaurant, of_drivers text[])
RETURNS TABLE (driver_id text, detour_m float8)
LANGUAGE plpgsql
AS $$
BEGIN
    RETURN QUERY
        SELECT k, p.detour_m FROM unnest(of_drivers) k
        CROSS JOIN LATERAL driver_stops__place(
            k, (r.lon_deg, r.lat_deg, o.lon_deg, o.lat_deg, false)::driver_stop, NULL) p
        ORDER BY p.detour_m, k;
END
$$;

-- Estimates when the customers of orders behind another stop are reached: in straight lines, from
-- the driver's newest fix over the stops before. Rounds outward to 5 minutes. Writes an order at
-- most once a minute, and none while its driver is silent; one caller at a time. Returns the number
-- of orders.
CREATE FUNCTION order_eta__refresh_v1(at_most int)
RETURNS int LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
SET enable_hashjoin = off  -- every join is a look-up by key
SET enable_mergejoin = off
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    at CONSTANT timestamptz := clock_timestamp();
    stale_before CONSTANT timestamptz := at - interval '1 min';
    silent_before CONSTANT timestamptz := at - make_interval(
        secs => (SELECT l.lost_alert_s FROM limits l));
    -- As tracking_api's estimate without streets has them
    detour_factor CONSTANT float8 := 1.5;
    ride_mps CONSTANT float8 := 4.5;
    least_ratio CONSTANT float8 := 0.65;
    greatest_ratio CONSTANT float8 := 1.6;
    at_restaurant_dwells CONSTANT int := 8;  -- times policy.dwell_min_s
    at_door_dwells CONSTANT int := 4;
    refreshed int;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('doorstep.order_eta', 0)) THEN
        RETURN 0;
    END IF;
    DELETE FROM order_eta e WHERE e.estimated_at < stale_before AND NOT EXISTS (
        SELECT FROM assignment a JOIN driver_state d ON d.driver_id = a.driver_id
        WHERE a.order_id = e.order_id AND a.ended_at IS NULL AND a.stop_no > 1
            AND d.fix_at > silent_before
    );
    WITH waiting AS MATERIALIZED (
        SELECT a.order_id, a.driver_id, a.stop_no, p.pace, p.dwell_min_s, d.lon_deg, d.lat_deg
        FROM assignment a
        JOIN policy p ON p.policy_id = a.policy_id
        JOIN driver_state d ON d.driver_id = a.driver_id AND d.fix_at > silent_before
        WHERE a.ended_at IS NULL AND a.stop_no > 1 AND NOT EXISTS (
            SELECT FROM order_eta e WHERE e.order_id = a.order_id AND e.estimated_at >= stale_before
        )
        LIMIT at_most
    ),
    estimated AS (
        SELECT w.order_id,
            detour_factor * driver_stops__way_m(w.lon_deg, w.lat_deg, s.stops)
                / (ride_mps * w.pace)
            + w.dwell_min_s * (at_restaurant_dwells * s.restaurants
                + at_door_dwells * (w.stop_no - 1)) AS takes_s
        FROM waiting w
        CROSS JOIN LATERAL (
            SELECT array_agg((t.restaurant_lon_deg, t.restaurant_lat_deg, t.customer_lon_deg,
                    t.customer_lat_deg, o.state >= 'picked_up')::driver_stop ORDER BY t.stop_no
                ) AS stops,
                count(DISTINCT o.restaurant_id) FILTER (WHERE o.state < 'picked_up') AS restaurants
            FROM assignment t JOIN orders o ON o.order_id = t.order_id
            WHERE t.driver_id = w.driver_id AND t.ended_at IS NULL AND t.stop_no <= w.stop_no
        ) s
    )
    INSERT INTO order_eta AS e (order_id, earliest_at, latest_at, estimated_at)
    SELECT order_id,
        date_bin('5 min', at + make_interval(secs => takes_s * least_ratio), 'epoch'),
        date_bin('5 min', at + make_interval(secs => takes_s * greatest_ratio), 'epoch')
            + interval '5 min', at
    FROM estimated ORDER BY order_id
    ON CONFLICT (order_id) DO UPDATE SET earliest_at = EXCLUDED.earliest_at,
        latest_at = EXCLUDED.latest_at, estimated_at = EXCLUDED.estimated_at;
    GET DIAGNOSTICS refreshed = ROW_COUNT;
    RETURN refreshed;
END
$$;
