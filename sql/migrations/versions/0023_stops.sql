-- Several open orders per driver, in a sequence of stops.

SET LOCAL search_path = doorstep, public;
SET LOCAL check_function_bodies = off;  -- functions may refer to objects that are created later

ALTER TABLE limits
    ADD COLUMN max_open_orders int NOT NULL DEFAULT 3 CHECK (max_open_orders BETWEEN 1 AND 20);
ALTER TABLE assignment ADD COLUMN stop_no int;
UPDATE assignment SET stop_no = 1 WHERE ended_at IS NULL;
ALTER TABLE assignment
    ADD CONSTRAINT assignment_has_stop CHECK ((stop_no IS NULL) = (ended_at IS NOT NULL)),
    ADD CONSTRAINT assignment_stop EXCLUDE (driver_id WITH =, stop_no WITH =)
    WHERE (ended_at IS NULL) DEFERRABLE INITIALLY DEFERRED;
DROP INDEX assignment_one_open;

-- Open assignments whose evidence is derived again once due_at is past, and once until_at is:
-- fixes dated up to then are stored. evidence__settle_v1 does it.
CREATE TABLE evidence_due (
    order_id uuid NOT NULL,
    assignment_no int NOT NULL,
    due_at timestamptz NOT NULL,
    until_at timestamptz NOT NULL CHECK (until_at >= due_at),
    PRIMARY KEY (order_id, assignment_no),
    FOREIGN KEY (order_id, assignment_no) REFERENCES assignment
);
CREATE INDEX evidence_due_due ON evidence_due (due_at);

-- All that the customer of an order learns of its courier while another stop is next: whole
-- multiples of 5 minutes, written at most once a minute.
CREATE TABLE order_eta (
    order_id uuid PRIMARY KEY REFERENCES orders,
    earliest_at timestamptz NOT NULL,
    latest_at timestamptz NOT NULL CHECK (latest_at > earliest_at),
    estimated_at timestamptz NOT NULL
);

-- An open order of a driver, as the way along all stops needs it.
CREATE TYPE driver_stop AS (
    restaurant_lon_deg float8,
    restaurant_lat_deg float8,
    customer_lon_deg float8,
    customer_lat_deg float8,
    is_picked_up bool
);

-- Fixes with the customer count if they are dated before this instant, the present. Those after it
-- might still be excluded by a command that closes the range.
CREATE OR REPLACE FUNCTION evidence__counts_before()
RETURNS timestamptz LANGUAGE sql
RETURN clock_timestamp();

-- Notes the open assignments for which fixes from the future are stored that may prove something
-- with the customer when they are past.
CREATE OR REPLACE FUNCTION evidence__defer(of_orders uuid[], of_assignment_nos int[])
RETURNS void LANGUAGE plpgsql
SET enable_hashjoin = off  -- every join is a look-up by key
SET enable_mergejoin = off
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    INSERT INTO evidence_due AS e (order_id, assignment_no, due_at, until_at)
    SELECT DISTINCT a.order_id, a.assignment_no, d.fix_at, d.fix_at
    FROM unnest(of_orders, of_assignment_nos) AS k (order_id, assignment_no)
    JOIN assignment a ON a.order_id = k.order_id AND a.assignment_no = k.assignment_no
    JOIN driver_state d ON d.driver_id = a.driver_id
    WHERE a.stop_no = 1 AND a.picked_up_at IS NOT NULL AND d.fix_at >= evidence__counts_before()
    ON CONFLICT (order_id, assignment_no) DO UPDATE
        SET due_at = least(e.due_at, EXCLUDED.due_at),
            until_at = greatest(e.until_at, EXCLUDED.until_at);
END
$$;

-- Derives what was deferred and is due, for at most so many drivers; skips one whose row is locked.
-- Returns their number.
CREATE OR REPLACE FUNCTION evidence__settle_v1(at_most int)
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
        UPDATE evidence_due e SET due_at = e.until_at
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

-- The open orders of a driver, the next stop first.
CREATE OR REPLACE FUNCTION driver_stops__of(of_driver_id text)
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
CREATE OR REPLACE FUNCTION driver_stops__has_room(of_driver_id text, for_order_id uuid)
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
CREATE OR REPLACE FUNCTION driver_stops__free_from(of_driver_id text, at timestamptz)
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
CREATE OR REPLACE FUNCTION driver_stops__way_m(lon_deg float8, lat_deg float8, stops driver_stop[])
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
CREATE OR REPLACE FUNCTION driver_stops__place(
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
CREATE OR REPLACE FUNCTION driver_stops__arrange(of_driver_id text, of_orders uuid[], at timestamptz)
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
CREATE OR REPLACE FUNCTION evidence__derive_open(of_orders uuid[], of_assignment_nos int[])
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
CREATE OR REPLACE FUNCTION set_driver_stops_v1(of_driver_id text, of_orders uuid[], by_name text)
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
CREATE OR REPLACE FUNCTION assign_order_as_staff_v1(
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
    -- read by the trigger on the new assignment
    PERFORM set_config('doorstep.stop_no', coalesce(at_stop_no::text, ''), true);
    RETURN QUERY SELECT * FROM apply_order_command_v1(
        of_order_id, command_name, 'staff', by_name, to_driver_id, with_idempotency_key);
    PERFORM set_config('doorstep.stop_no', '', true);
END
$$;

-- Drivers near a restaurant who have an order and room for another, with their detours: of the
-- nearest 20, the least detour first.
CREATE OR REPLACE FUNCTION driver_stops__candidates(o orders)
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
                    AND k.fix_at > clock_timestamp() - make_interval(secs => l.nearest_max_age_s)
                OFFSET 0
            ) d
            CROSS JOIN LATERAL (
                SELECT ground_distance_m(d.lon_deg, d.lat_deg, r.lon_deg, r.lat_deg)
            ) AS m (distance_m)
            WHERE m.distance_m <= l.nearest_max_m
                AND driver_stops__has_room(d.driver_id, o.order_id)
            ORDER BY m.distance_m, d.driver_id
            LIMIT at_most
        );
        EXIT WHEN cardinality(nearest) = at_most;
    END LOOP;
    RETURN QUERY
        SELECT k, p.detour_m FROM unnest(nearest) k
        CROSS JOIN LATERAL driver_stops__place(
            k, (r.lon_deg, r.lat_deg, o.lon_deg, o.lat_deg, false)::driver_stop, NULL) p
        ORDER BY p.detour_m, k;
END
$$;

-- 510: close the gap of a stop that has ended, and derive what waited for it.
CREATE OR REPLACE FUNCTION assignment__arrange_stops()
RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM evidence_due e
        WHERE e.order_id = NEW.order_id AND e.assignment_no = NEW.assignment_no
    ) AND NOT EXISTS (
        SELECT FROM assignment a WHERE a.driver_id = NEW.driver_id AND a.ended_at IS NULL
    ) THEN
        RETURN NULL;
    END IF;
    DELETE FROM evidence_due e
        WHERE e.order_id = NEW.order_id AND e.assignment_no = NEW.assignment_no;
    IF FOUND THEN
        PERFORM evidence__derive(ARRAY[NEW.order_id], ARRAY[NEW.assignment_no], true);
    END IF;
    PERFORM driver_stops__arrange(NEW.driver_id, driver_stops__of(NEW.driver_id),
        driver_stops__free_from(NEW.driver_id, NEW.ended_at));
    RETURN NULL;
END
$$;

-- The open orders of the driver of a token, the next stop first, each with what its courier may
-- see, as current_order of driver_read_v2.
CREATE OR REPLACE FUNCTION driver_read_stops_v1(of_token_sha256 bytea)
RETURNS jsonb LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
SET enable_hashjoin = off  -- every join is a look-up by key
SET enable_mergejoin = off
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    RETURN (
        SELECT coalesce(jsonb_agg(jsonb_build_object(
            'stop_no', a.stop_no,
            'order_id', o.order_id, 'state', o.state, 'assignment_no', a.assignment_no,
            'assigned_at', a.assigned_at,
            'restaurant', jsonb_build_object('name', r.name, 'lon_deg', r.lon_deg,
                'lat_deg', r.lat_deg, 'address', r.address, 'phone', r.phone),
            'destination', jsonb_build_object('lon_deg', o.lon_deg, 'lat_deg', o.lat_deg),
            'customer', jsonb_build_object('name', o.customer_name,
                'phone', CASE WHEN d.contact_rule <> 'none' THEN d.customer_phone END,
                'contact_rule', coalesce(d.contact_rule, 'none'),
                'address', d.address, 'note', d.door_note),
            'items', d.items, 'ready_at', d.ready_at,
            'promised_from', d.promised_from, 'promised_to', d.promised_to
        ) ORDER BY a.stop_no), '[]')
        FROM assignment a
        JOIN orders o ON o.order_id = a.order_id
        JOIN restaurant r ON r.restaurant_id = o.restaurant_id
        LEFT JOIN order_detail d ON d.order_id = o.order_id
        WHERE a.driver_id = driver__of_token(of_token_sha256) AND a.ended_at IS NULL
    );
END
$$;

-- The links, of those given, whose customers wait while their courier has another delivery first,
-- with the estimate; null before the first one.
CREATE OR REPLACE FUNCTION customer_waits_v1(token_sha256s bytea[], order_ids uuid[])
RETURNS TABLE (n int8, earliest_at timestamptz, latest_at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
SET enable_hashjoin = off  -- every join is a look-up by key
SET enable_mergejoin = off
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT k.n, e.earliest_at, e.latest_at
    FROM customer_links__good(token_sha256s, order_ids) k
    CROSS JOIN LATERAL (SELECT * FROM orders t WHERE t.order_id = k.order_id OFFSET 0) o
    CROSS JOIN LATERAL (
        SELECT * FROM assignment t WHERE t.order_id = o.order_id
            AND t.assignment_no = o.assignment_no AND t.ended_at IS NULL
            AND NOT upper_inf(t.visible) OFFSET 0
    ) a
    LEFT JOIN LATERAL (
        SELECT * FROM order_eta t WHERE t.order_id = o.order_id
            AND t.estimated_at > clock_timestamp() - interval '3 min' OFFSET 0
    ) e ON true;
END
$$;

-- Estimates when the customers of orders behind another stop are reached: in straight lines, from
-- the driver's newest fix over the stops before. Rounds outward to 5 minutes. Writes an order at
-- most once a minute; one caller at a time. Returns the number of orders.
CREATE OR REPLACE FUNCTION order_eta__refresh_v1(at_most int)
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
        SELECT FROM assignment a
        WHERE a.order_id = e.order_id AND a.ended_at IS NULL AND a.stop_no > 1
    );
    WITH waiting AS MATERIALIZED (
        SELECT a.order_id, a.driver_id, a.stop_no, p.pace, p.dwell_min_s
        FROM assignment a
        JOIN policy p ON p.policy_id = a.policy_id
        WHERE a.ended_at IS NULL AND a.stop_no > 1 AND NOT EXISTS (
            SELECT FROM order_eta e WHERE e.order_id = a.order_id AND e.estimated_at >= stale_before
        )
        LIMIT at_most
    ),
    estimated AS (
        SELECT w.order_id,
            detour_factor * driver_stops__way_m(d.lon_deg, d.lat_deg, s.stops)
                / (ride_mps * w.pace)
            + w.dwell_min_s * (at_restaurant_dwells * s.restaurants
                + at_door_dwells * (w.stop_no - 1)) AS takes_s
        FROM waiting w
        JOIN driver_state d ON d.driver_id = w.driver_id
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

-- Derives the four facts of the assignments (of_orders[i], of_assignment_nos[i]) and records those
-- that are new or earlier. `recompute` ignores the facts recorded so far: a closed window is
-- evaluated as if it had been closed from the start, so that fixes dated after the closing command
-- never count, whichever arrived first. All assignments share one statement, because starting a
-- statement costs more than evaluating an assignment. Each fact starts at the one before it, so
-- each is a CTE of its own. The caller has locked the order rows.
CREATE OR REPLACE FUNCTION evidence__derive(of_orders uuid[], of_assignment_nos int[], recompute bool)
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

-- Chooses and locks the driver of a new assignment: the named one, the nearest available one, or
-- of those with room for another order the one with the least detour. A batch of fixes locks its
-- driver rows briefly, so a locked candidate is polled for up to a second. Waiting for the lock
-- could deadlock two callers.
CREATE OR REPLACE FUNCTION orders__choose_driver(o orders, named_driver_id text, excluded_driver_id text)
RETURNS text LANGUAGE plpgsql
AS $$
DECLARE
    named_state driver_status;
    candidate text;
    at_most int;
    polls_left int := 50;  -- 50 x 20 ms = 1 s
BEGIN
    IF named_driver_id IS NOT NULL THEN
        SELECT d.state INTO named_state FROM driver_state d
            WHERE d.driver_id = named_driver_id FOR NO KEY UPDATE;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'there is no driver %', named_driver_id USING ERRCODE = 'DS003';
        ELSIF named_state <> 'available'
            AND NOT driver_stops__has_room(named_driver_id, o.order_id) THEN
            RAISE EXCEPTION 'driver % is off duty, or has this order or no room for another',
                named_driver_id USING ERRCODE = 'DS006';
        END IF;
        RETURN named_driver_id;
    END IF;
    -- The few nearest are found in a small box; the others count only if none of these is free.
    FOREACH at_most IN ARRAY ARRAY[5, 100] LOOP
        FOR candidate IN
            SELECT n.driver_id FROM restaurant r
            CROSS JOIN LATERAL nearest_drivers_v1(r.lon_deg, r.lat_deg, at_most) n
            WHERE r.restaurant_id = o.restaurant_id
                AND n.driver_id IS DISTINCT FROM excluded_driver_id
            ORDER BY n.distance_m
        LOOP
            LOOP
                PERFORM FROM driver_state d
                    WHERE d.driver_id = candidate AND d.state = 'available'
                    FOR NO KEY UPDATE SKIP LOCKED;
                IF FOUND THEN
                    RETURN candidate;
                END IF;
                PERFORM FROM driver_state d
                    WHERE d.driver_id = candidate AND d.state = 'available';
                EXIT WHEN NOT FOUND OR polls_left = 0;
                polls_left := polls_left - 1;
                PERFORM pg_sleep(0.02);
            END LOOP;
        END LOOP;
    END LOOP;
    FOR candidate IN SELECT c.driver_id FROM driver_stops__candidates(o) c LOOP
        LOOP
            PERFORM FROM driver_state d WHERE d.driver_id = candidate
                FOR NO KEY UPDATE SKIP LOCKED;
            EXIT WHEN FOUND OR polls_left = 0;
            polls_left := polls_left - 1;
            PERFORM pg_sleep(0.02);
        END LOOP;
        -- FOUND: locked; another caller may have taken the room meanwhile
        IF FOUND AND driver_stops__has_room(candidate, o.order_id) THEN
            RETURN candidate;
        END IF;
    END LOOP;
    RAISE EXCEPTION 'no driver on duty is free and near' USING ERRCODE = 'DS007';
END
$$;

-- Applies one command. Commands on one order are serialized by an advisory lock, then lock the
-- driver row, then the order row: the lock order of record_fixes_v1. Services execute a function
-- per actor: command_order_as_staff_v1, driver_command_order_v1, customer_cancel_v1.
--
-- Every fix that is stored has derived its evidence, and while the driver's row is locked none is
-- added. So a command derives evidence only if there is a fix that it makes count, or count no
-- more: one dated at its instant or later.
CREATE OR REPLACE FUNCTION apply_order_command_v1(
    of_order_id uuid, command_name text, by_actor text, by_actor_id text, to_driver_id text,
    with_idempotency_key text
)
RETURNS TABLE (
    order_id uuid, state order_state, assignment_no int, driver_id text, order_seq int,
    restaurant_id int, lon_deg float8, lat_deg float8, customer_name text, policy_id int,
    created_at timestamptz, assigned_at timestamptz, ended_at timestamptz
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
SET enable_hashjoin = off  -- every join is a look-up by key, in the triggers too
SET enable_mergejoin = off
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    verb CONSTANT order_verb := command_name;
    by_role CONSTANT actor := by_actor;
    o orders;
    a record;  -- the current assignment
    is_open bool;
    repeated order_command;
    chosen_driver_id text;
    target order_state;
    target_no int;
    at timestamptz;
    counts_from timestamptz;  -- fixes from this instant on may prove something new
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(of_order_id::text, 1));
    SELECT t.assignment_no, t.driver_id, t.assigned_at, t.ended_at, t.picked_up_at INTO a
        FROM orders k
        LEFT JOIN assignment t ON t.order_id = k.order_id AND t.assignment_no = k.assignment_no
        WHERE k.order_id = of_order_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no order %', of_order_id USING ERRCODE = 'DS002';
    END IF;
    is_open := a.driver_id IS NOT NULL AND a.ended_at IS NULL;
    IF by_role = 'driver' AND a.driver_id IS DISTINCT FROM by_actor_id AND NOT EXISTS (
        -- a driver who repeats a decline no longer has the order
        SELECT FROM order_command WHERE order_id = of_order_id AND actor = 'driver'
            AND idempotency_key = with_idempotency_key AND actor_id = by_actor_id
    ) AND NOT (verb = 'assign' AND to_driver_id IS NOT DISTINCT FROM by_actor_id AND EXISTS (
        SELECT FROM order_offer f WHERE f.order_id = of_order_id AND f.driver_id = by_actor_id
            AND f.ended_at IS NULL
    )) THEN
        RAISE EXCEPTION 'driver % has no order %', by_actor_id, of_order_id USING ERRCODE = 'DS002';
    END IF;
    IF with_idempotency_key IS NOT NULL THEN
        SELECT * INTO repeated FROM order_command
            WHERE order_id = of_order_id AND actor = by_role AND actor_id = by_actor_id
                AND idempotency_key = with_idempotency_key;
    END IF;
    IF repeated.order_id IS NOT NULL THEN
        IF repeated.command <> verb OR repeated.driver_id <> to_driver_id THEN
            RAISE EXCEPTION 'this key was used for %', repeated.command USING ERRCODE = 'DS008';
        END IF;
        -- Returns the current order. A driver who no longer has it gets the state that the command
        -- left, and none of the later changes.
        RETURN QUERY
            SELECT v.order_id,
                CASE WHEN given_up THEN repeated.to_state ELSE v.state END,
                CASE WHEN given_up THEN repeated.assignment_no ELSE v.assignment_no END,
                CASE WHEN NOT given_up THEN v.driver_id END,
                CASE WHEN NOT given_up THEN v.order_seq ELSE (
                    SELECT max(e.order_seq) FROM order_event e WHERE e.order_id = v.order_id
                        AND (e.assignment_no, e.state) = (repeated.assignment_no, repeated.to_state)
                ) END,
                v.restaurant_id, v.lon_deg, v.lat_deg, v.customer_name, v.policy_id, v.created_at,
                CASE WHEN NOT given_up THEN v.assigned_at END,
                CASE WHEN NOT given_up THEN v.ended_at END
            FROM order_now v
            CROSS JOIN LATERAL (
                SELECT by_role = 'driver' AND NOT EXISTS (
                    SELECT FROM assignment t WHERE t.order_id = v.order_id
                        AND t.assignment_no = v.assignment_no AND t.driver_id = by_actor_id
                ) AS given_up
            ) AS g
            WHERE v.order_id = of_order_id;
        RETURN;
    END IF;

    -- Lock the rows, drivers first
    IF is_open OR verb IN ('assign', 'reassign') THEN
        PERFORM FROM driver_state d
            WHERE d.driver_id IN (
                CASE WHEN is_open THEN a.driver_id END,
                CASE WHEN verb IN ('assign', 'reassign') THEN to_driver_id END
            )
            ORDER BY d.driver_id FOR NO KEY UPDATE;
    END IF;
    SELECT * INTO o FROM orders WHERE order_id = of_order_id FOR NO KEY UPDATE;
    at := clock_timestamp();

    SELECT to_state INTO target FROM order_transition
        WHERE from_state = o.state AND via = 'command' AND command = verb AND actor = by_role;
    IF NOT FOUND THEN
        PERFORM orders__raise_illegal_transition(of_order_id, command_name, o.state, by_role);
    END IF;

    IF verb IN ('assign', 'reassign') THEN
        chosen_driver_id := orders__choose_driver(
            o, to_driver_id, CASE WHEN is_open THEN a.driver_id END);
    END IF;
    target_no := CASE
        WHEN verb IN ('decline', 'reassign') THEN o.assignment_no + 1
        WHEN verb = 'assign' AND o.assignment_no = 0 THEN 1
        ELSE o.assignment_no
    END;

    INSERT INTO order_command (order_id, command, actor, actor_id, driver_id, from_state, to_state,
        assignment_no, idempotency_key, commanded_at)
    VALUES (of_order_id, verb, by_role, by_actor_id, chosen_driver_id, o.state, target, target_no,
        with_idempotency_key, at);

    IF o.state = 'confirmed' THEN
        PERFORM order_offer__end_with_state(of_order_id, by_role, at);
    END IF;
    IF is_open AND verb IN ('decline', 'reassign', 'deliver', 'cancel', 'fail') THEN
        UPDATE assignment SET ended_at = greatest(at, assigned_at), ended_by = verb
            WHERE order_id = of_order_id AND assignment_no = a.assignment_no;
        IF EXISTS (
            SELECT FROM driver_state d
            WHERE d.driver_id = a.driver_id AND d.fix_at >= greatest(at, a.assigned_at)
        ) THEN
            PERFORM evidence__derive(ARRAY[of_order_id], ARRAY[a.assignment_no], true);
        END IF;
    END IF;
    IF chosen_driver_id IS NOT NULL THEN
        INSERT INTO assignment (order_id, assignment_no, driver_id, assigned_at, policy_id,
            restaurant_lon_deg, restaurant_lat_deg, customer_lon_deg, customer_lat_deg)
        SELECT of_order_id, target_no, chosen_driver_id,
            -- no two begin together, even if the clock is set back
            greatest(at, (
                SELECT greatest(ended_at, assigned_at + interval '1 microsecond')
                FROM assignment t WHERE t.driver_id = chosen_driver_id
                ORDER BY t.assigned_at DESC LIMIT 1
            )),
            o.policy_id, r.lon_deg, r.lat_deg, o.lon_deg, o.lat_deg
        FROM restaurant r WHERE r.restaurant_id = o.restaurant_id
        RETURNING assigned_at INTO counts_from;
    ELSIF verb = 'pick_up' THEN
        -- carrying begins now, unless the fixes have proved that it began before
        counts_from := greatest(at, a.assigned_at);
        UPDATE assignment SET picked_up_at = at
            WHERE order_id = of_order_id AND assignment_no = a.assignment_no
                AND (picked_up_at > at) IS NOT FALSE;
    END IF;
    IF target <> o.state OR target_no <> o.assignment_no THEN
        UPDATE orders SET state = target, assignment_no = target_no, state_at = at,
            state_source = by_role::text::state_source,
            ended_at = CASE WHEN target IN ('delivered', 'cancelled', 'failed') THEN at END
        WHERE order_id = of_order_id;
    END IF;
    IF verb IN ('assign', 'reassign', 'pick_up') AND EXISTS (  -- fixes may already be stored
        SELECT FROM driver_state d
        WHERE d.driver_id = coalesce(chosen_driver_id, a.driver_id) AND d.fix_at >= counts_from
    ) THEN
        PERFORM evidence__derive_open(ARRAY[of_order_id], ARRAY[target_no]);
    END IF;
    RETURN QUERY SELECT * FROM order_now WHERE order_id = of_order_id;
END
$$;

-- Derives the state from the duty and the order of the next stop. Writes only changed rows.
CREATE OR REPLACE FUNCTION driver_state__derive(of_drivers text[])
RETURNS void LANGUAGE plpgsql  -- in SQL it would be planned again for each call
SET enable_hashjoin = off  -- every join is a look-up by key
SET enable_mergejoin = off
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    UPDATE driver_state d SET state = s.state, order_id = s.order_id
    FROM (
        SELECT k.driver_id, o.order_id,
            CASE
                WHEN o.state = 'assigned' THEN 'to_restaurant'
                WHEN o.state = 'at_restaurant' THEN 'at_restaurant'
                WHEN o.state IN ('picked_up', 'arriving') THEN 'to_customer'
                WHEN o.state = 'at_customer' THEN 'at_customer'
                WHEN k.duty = 'on_duty' THEN 'available'
                ELSE k.duty::text
            END::driver_status AS state
        FROM driver_state k
        LEFT JOIN assignment a ON a.driver_id = k.driver_id AND a.ended_at IS NULL
            AND a.stop_no = 1
        LEFT JOIN orders o ON o.order_id = a.order_id
        WHERE k.driver_id = ANY (of_drivers)
    ) s
    WHERE d.driver_id = s.driver_id
        AND (d.state, d.order_id) IS DISTINCT FROM (s.state, s.order_id);
END
$$;

-- 500: give a new assignment its stop, make room for it, and open its range if it is the first one;
-- end the ranges of one that ends. `doorstep.stop_no` is the stop that assign_order_as_staff_v1
-- wants.
CREATE OR REPLACE FUNCTION assignment__derive_visible()
RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    others uuid[];
BEGIN
    IF TG_OP = 'INSERT' THEN
        NEW.stop_no := CASE WHEN NEW.ended_at IS NULL THEN 1 END;
        IF NEW.ended_at IS NULL AND EXISTS (  -- open, or the clock was set back
            SELECT FROM assignment a WHERE a.driver_id = NEW.driver_id
                AND coalesce(a.ended_at, 'infinity') > NEW.assigned_at
        ) THEN
            NEW.assigned_at := driver_stops__free_from(NEW.driver_id, NEW.assigned_at);
            NEW.stop_no := (driver_stops__place(
                NEW.driver_id, (NEW.restaurant_lon_deg, NEW.restaurant_lat_deg,
                    NEW.customer_lon_deg, NEW.customer_lat_deg, false)::driver_stop,
                nullif(current_setting('doorstep.stop_no', true), '')::int)).stop_no;
            others := driver_stops__of(NEW.driver_id);
            IF NEW.stop_no <= cardinality(others) THEN
                PERFORM driver_stops__arrange(
                    NEW.driver_id,
                    others[: NEW.stop_no - 1] || NEW.order_id || others[NEW.stop_no :],
                    NEW.assigned_at);
            END IF;
        END IF;
        IF coalesce(NEW.stop_no, 1) = 1 THEN
            NEW.visible := tstzmultirange(tstzrange(NEW.assigned_at, NEW.ended_at));
        END IF;
        RETURN NEW;
    END IF;
    IF NEW.assigned_at < OLD.assigned_at AND lower(OLD.visible) = OLD.assigned_at THEN
        NEW.visible := NEW.visible + tstzmultirange(tstzrange(NEW.assigned_at, OLD.assigned_at));
    END IF;
    NEW.visible := NEW.visible * tstzmultirange(tstzrange(NEW.assigned_at, NEW.ended_at));
    IF NEW.ended_at IS NOT NULL THEN
        NEW.stop_no := NULL;
    ELSIF OLD.ended_at IS NOT NULL THEN  -- repaired
        NEW.stop_no := cardinality(driver_stops__of(NEW.driver_id)) + 1;
    END IF;
    RETURN NEW;
END
$$;

-- 520: derive the evidence of the assignments to which a new fix may contribute: the fix is in the
-- right place, early enough to matter, and (except for `arriving`) has a partner at the right
-- distance in time. Most fixes cost one look-up of the driver's assignments that have not ended
-- before. AND does not stop at NULL, so each bound is false where the instant is NULL.
CREATE OR REPLACE FUNCTION fix_history__derive_evidence()
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

-- The driver, and the order of the next stop with its two places, or nulls.
CREATE OR REPLACE FUNCTION driver_read_v1(of_token_sha256 bytea)
RETURNS TABLE (
    driver_id text, duty driver_duty, driver_state driver_status, order_id uuid,
    order_state order_state, assignment_no int, assigned_at timestamptz,
    restaurant_name text, restaurant_lon_deg float8, restaurant_lat_deg float8,
    destination_lon_deg float8, destination_lat_deg float8
)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    SELECT s.driver_id, s.duty, s.state, o.order_id, o.state, a.assignment_no, a.assigned_at,
        r.name, r.lon_deg, r.lat_deg, o.lon_deg, o.lat_deg
    FROM driver_state s
    LEFT JOIN assignment a ON a.driver_id = s.driver_id AND a.ended_at IS NULL AND a.stop_no = 1
    LEFT JOIN orders o ON o.order_id = a.order_id
    LEFT JOIN restaurant r ON r.restaurant_id = o.restaurant_id
    WHERE s.driver_id = driver__of_token(of_token_sha256)
$$;

-- The driver, the order of the next stop with what its courier may see, or null, and the open
-- offers: without the customer's place.
CREATE OR REPLACE FUNCTION driver_read_v2(of_token_sha256 bytea)
RETURNS TABLE (
    driver_id text, duty driver_duty, driver_state driver_status, order_id uuid,
    current_order jsonb, offers jsonb
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
    of_driver_id CONSTANT text := driver__of_token(of_token_sha256);
BEGIN
    RETURN QUERY
    SELECT s.driver_id, s.duty, s.state, a.order_id,
        (
            SELECT jsonb_build_object(
                'order_id', o.order_id, 'state', o.state, 'assignment_no', a.assignment_no,
                'assigned_at', a.assigned_at,
                'restaurant', jsonb_build_object('name', r.name, 'lon_deg', r.lon_deg,
                    'lat_deg', r.lat_deg, 'address', r.address, 'phone', r.phone),
                'destination', jsonb_build_object('lon_deg', o.lon_deg, 'lat_deg', o.lat_deg),
                'customer', jsonb_build_object('name', o.customer_name,
                    'phone', CASE WHEN d.contact_rule <> 'none' THEN d.customer_phone END,
                    'contact_rule', coalesce(d.contact_rule, 'none'),
                    'address', d.address, 'note', d.door_note),
                'items', d.items, 'ready_at', d.ready_at,
                'promised_from', d.promised_from, 'promised_to', d.promised_to)
            FROM orders o
            JOIN restaurant r ON r.restaurant_id = o.restaurant_id
            LEFT JOIN order_detail d ON d.order_id = o.order_id
            WHERE o.order_id = a.order_id
        ),
        (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                'order_id', f.order_id,
                'restaurant', jsonb_build_object('name', r.name, 'lon_deg', r.lon_deg,
                    'lat_deg', r.lat_deg),
                'pickup_distance_m', round(ground_distance_m(
                    s.lon_deg, s.lat_deg, r.lon_deg, r.lat_deg)),
                'offered_at', f.offered_at, 'expires_at', f.expires_at
            ) ORDER BY f.expires_at, f.order_offer_id), '[]')
            FROM order_offer f
            JOIN orders o ON o.order_id = f.order_id
            JOIN restaurant r ON r.restaurant_id = o.restaurant_id
            WHERE f.driver_id = s.driver_id AND f.ended_at IS NULL
                AND f.expires_at > clock_timestamp()
        )
    FROM driver_state s
    LEFT JOIN assignment a ON a.driver_id = s.driver_id AND a.ended_at IS NULL AND a.stop_no = 1
    WHERE s.driver_id = of_driver_id;
END
$$;

-- Offers a confirmed order: to the named driver, with room for it, or to the nearest available one
-- who was not offered it yet. Raises DS031 if it has an open offer.
CREATE OR REPLACE FUNCTION offer_order_as_staff_v1(
    of_order_id uuid, to_driver_id text, by_name text, with_idempotency_key text
)
RETURNS SETOF order_offer LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
SET enable_hashjoin = off  -- every join is a look-up by key
SET enable_mergejoin = off
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    o orders;
    offer order_offer;
    is_free bool;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(of_order_id::text, 1));
    SELECT * INTO o FROM orders k WHERE k.order_id = of_order_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no order %', of_order_id USING ERRCODE = 'DS002';
    END IF;
    SELECT * INTO offer FROM order_offer f WHERE f.order_id = of_order_id
        AND f.offered_by = by_name AND f.offer_key = with_idempotency_key;
    IF FOUND THEN
        IF offer.driver_id <> to_driver_id THEN
            RAISE EXCEPTION 'this key was used for another offer' USING ERRCODE = 'DS008';
        END IF;
        RETURN NEXT offer;
        RETURN;
    END IF;
    IF o.state <> 'confirmed' THEN
        PERFORM orders__raise_illegal_transition(of_order_id, 'offer', o.state, 'staff');
    END IF;
    UPDATE order_offer f SET ended_at = f.expires_at, outcome = 'expired'
        WHERE f.order_id = of_order_id AND f.ended_at IS NULL
            AND f.expires_at <= clock_timestamp();
    SELECT * INTO offer FROM order_offer f
        WHERE f.order_id = of_order_id AND f.ended_at IS NULL;
    IF FOUND THEN
        RAISE EXCEPTION 'this order is offered to %, until %', offer.driver_id,
            instant_text(offer.expires_at) USING ERRCODE = 'DS031';
    END IF;
    IF to_driver_id IS NULL THEN
        to_driver_id := order_offer__next_driver(o);
        IF to_driver_id IS NULL THEN
            RAISE EXCEPTION 'no driver on duty is free, near, and was not offered this order yet'
                USING ERRCODE = 'DS007';
        END IF;
    ELSE
        SELECT driver_stops__has_room(s.driver_id, of_order_id) INTO is_free FROM driver_state s
            WHERE s.driver_id = to_driver_id;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'there is no driver %', to_driver_id USING ERRCODE = 'DS003';
        ELSIF NOT is_free THEN
            RAISE EXCEPTION 'driver % is off duty or has no room for another order', to_driver_id
                USING ERRCODE = 'DS006';
        END IF;
    END IF;
    PERFORM record_audit_v1(by_name, 'order.offer', of_order_id::text,
        jsonb_build_object('driver_id', to_driver_id));
    RETURN NEXT order_offer__open(o, to_driver_id, by_name, with_idempotency_key);
END
$$;

-- Ends offers that have expired or whose driver has no more room, and makes the next ones.
-- Skips an order while a command holds it. Returns the number of orders.
CREATE OR REPLACE FUNCTION order_offer__advance_v1(at_most int)
RETURNS int LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
SET enable_hashjoin = off  -- every join is a look-up by key
SET enable_mergejoin = off
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    due_order_id uuid;
    advanced_count int := 0;
BEGIN
    FOR due_order_id IN
        SELECT f.order_id FROM order_offer f
        WHERE f.ended_at IS NULL AND f.expires_at <= clock_timestamp()
        UNION ALL
        SELECT f.order_id FROM order_offer f
        JOIN driver_state s ON s.driver_id = f.driver_id
        WHERE f.ended_at IS NULL AND NOT driver_stops__has_room(f.driver_id, f.order_id)
        UNION ALL
        SELECT o.order_id FROM orders o JOIN policy p ON p.policy_id = o.policy_id
        WHERE o.state = 'confirmed' AND o.ended_at IS NULL AND p.auto_offer
            AND NOT EXISTS (SELECT FROM order_offer f
                WHERE f.order_id = o.order_id AND f.ended_at IS NULL)
            AND NOT EXISTS (SELECT FROM unassigned_order u WHERE u.order_id = o.order_id
                AND u.checked_at > clock_timestamp() - interval '10 s')
        LIMIT at_most
    LOOP
        CONTINUE WHEN NOT pg_try_advisory_xact_lock(hashtextextended(due_order_id::text, 1));
        UPDATE order_offer f SET ended_at = greatest(clock_timestamp(), f.offered_at),
            outcome = CASE WHEN f.expires_at <= clock_timestamp() THEN 'expired'
                ELSE 'withdrawn' END::offer_outcome
            WHERE f.order_id = due_order_id AND f.ended_at IS NULL
                AND (f.expires_at <= clock_timestamp()
                    OR NOT driver_stops__has_room(f.driver_id, f.order_id));
        PERFORM order_offer__continue(due_order_id);
        advanced_count := advanced_count + 1;
    END LOOP;
    RETURN advanced_count;
END
$$;

CREATE TRIGGER _510_arrange_stops AFTER UPDATE OF ended_at ON assignment
FOR EACH ROW WHEN (OLD.ended_at IS NULL AND NEW.ended_at IS NOT NULL)
EXECUTE FUNCTION assignment__arrange_stops();

REVOKE EXECUTE ON FUNCTION
    assign_order_as_staff_v1,
    assignment__arrange_stops,
    customer_waits_v1,
    driver_read_stops_v1,
    driver_stops__arrange,
    driver_stops__candidates,
    driver_stops__free_from,
    driver_stops__has_room,
    driver_stops__of,
    driver_stops__place,
    driver_stops__way_m,
    evidence__counts_before,
    evidence__defer,
    evidence__derive_open,
    evidence__settle_v1,
    order_eta__refresh_v1,
    set_driver_stops_v1
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION evidence__settle_v1, order_eta__refresh_v1 TO driver_events;
GRANT EXECUTE ON FUNCTION driver_read_stops_v1 TO driver_api;
GRANT EXECUTE ON FUNCTION customer_waits_v1 TO customer;
GRANT EXECUTE ON FUNCTION set_driver_stops_v1, assign_order_as_staff_v1 TO tracking_api;
