-- Requests of orders compare all that they named; retries, estimates, webhooks and shares that went
-- on wrongly; orders are found by when they are due.

SET LOCAL search_path = doorstep, public;
SET LOCAL check_function_bodies = off;  -- functions may refer to objects that are created later

ALTER TABLE order_detail ADD COLUMN door_note_set_at timestamptz, ADD COLUMN ordered_door_note text;
ALTER TABLE order_command ADD COLUMN is_driver_named bool, ADD COLUMN stop_no int;
DELETE FROM share_link WHERE revoked_at IS NOT NULL;

-- It names the columns of order_detail.
CREATE OR REPLACE VIEW order_with_details AS
SELECT n.*, jsonb_build_object(
    'external_id', d.external_id, 'customer_phone', d.customer_phone,
    'customer_language', d.customer_language, 'address', d.address, 'door_note', d.door_note,
    'items', d.items, 'ready_at', d.ready_at, 'scheduled_for', d.scheduled_for,
    'promised_from', d.promised_from, 'promised_to', d.promised_to,
    'contact_rule', coalesce(d.contact_rule, 'none'), 'has_pin', d.pin_sha256 IS NOT NULL,
    'pickup', CASE WHEN r.is_ad_hoc THEN jsonb_build_object(
        'name', r.name, 'address', r.address, 'lon_deg', r.lon_deg, 'lat_deg', r.lat_deg,
        'phone', r.phone) END,
    'failure', (  -- a look-up per row that is returned
        SELECT jsonb_build_object('reason', c.failure_reason, 'note', c.note)
        FROM order_command c
        WHERE c.order_id = n.order_id AND c.command = 'fail' AND c.failure_reason IS NOT NULL
    )
) AS details
FROM order_now n
-- OFFSET 0 forces look-ups by key, however many orders the planner expects
CROSS JOIN LATERAL (
    SELECT * FROM restaurant t WHERE t.restaurant_id = n.restaurant_id OFFSET 0
) r
LEFT JOIN LATERAL (SELECT * FROM order_detail t WHERE t.order_id = n.order_id OFFSET 0) d ON true;

-- Creates an order with details, as create_order_v2. The pickup is a restaurant, or at_pickup: a
-- place {name, address, lon_deg, lat_deg, phone} for this order alone. Raises DS032 for an
-- external_id that by_name has used before.
CREATE OR REPLACE FUNCTION create_order_v3(
    at_restaurant_id int, at_pickup jsonb, to_lon_deg float8, to_lat_deg float8,
    token_sha256 bytea, with_policy_id int, with_idempotency_key text, for_customer_name text,
    details jsonb, by_name text
)
RETURNS TABLE (
    order_id uuid, state order_state, assignment_no int, driver_id text, order_seq int,
    restaurant_id int, lon_deg float8, lat_deg float8, customer_name text, policy_id int,
    created_at timestamptz, assigned_at timestamptz, ended_at timestamptz, created bool
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
SET enable_hashjoin = off  -- every join is a look-up by key
SET enable_mergejoin = off
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    d order_details;
    made record;
    k order_detail;
BEGIN
    IF details IS NOT NULL THEN
        d := jsonb_populate_record(NULL::order_details, details);
    END IF;
    IF at_pickup IS NOT NULL THEN
        at_restaurant_id := restaurant__ad_hoc(at_pickup, by_name, with_idempotency_key);
    END IF;
    SELECT * INTO STRICT made FROM create_order_v2(at_restaurant_id, to_lon_deg, to_lat_deg,
        token_sha256, with_policy_id, with_idempotency_key, for_customer_name, by_name);
    IF NOT made.created THEN
        SELECT * INTO k FROM order_detail t WHERE t.order_id = made.order_id;
        IF (k.external_id, k.customer_phone, k.customer_language, k.address,
            CASE WHEN k.door_note_set_at IS NULL THEN k.door_note ELSE k.ordered_door_note END,
            k.items,
            CASE WHEN k.ready_set_at IS NULL THEN k.ready_at ELSE k.ordered_ready_at END,
            k.scheduled_for, k.promised_from, k.promised_to,
            coalesce(k.contact_rule, 'none'), k.pin_sha256)
            IS DISTINCT FROM (d.external_id, d.customer_phone, d.customer_language, d.address,
            d.door_note, d.items, d.ready_at, d.scheduled_for, d.promised_from, d.promised_to,
            coalesce(d.contact_rule, 'none'), order_detail__pin_sha256(made.order_id, d.pin))
        THEN
            RAISE EXCEPTION 'this key made another order' USING ERRCODE = 'DS008';
        END IF;
    ELSIF details IS NOT NULL OR for_customer_name IS NOT NULL THEN
        INSERT INTO order_detail AS t (order_id, created_by, external_id, customer_phone,
            customer_language, address, door_note, items, ready_at, scheduled_for, promised_from,
            promised_to, contact_rule, pin_sha256, search)
        VALUES (made.order_id, coalesce(by_name, ''), d.external_id, d.customer_phone,
            d.customer_language, d.address, d.door_note, d.items, d.ready_at, d.scheduled_for,
            d.promised_from, d.promised_to, coalesce(d.contact_rule, 'none'),
            order_detail__pin_sha256(made.order_id, d.pin),
            to_tsvector('simple', concat_ws(' ', for_customer_name, d.external_id,
                d.customer_phone, regexp_replace(d.customer_phone, '\D', '', 'g'), d.address,
                d.door_note, d.items)))
        ON CONFLICT (created_by, external_id) WHERE external_id IS NOT NULL DO NOTHING;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'you have an order with the external_id %', d.external_id
                USING ERRCODE = 'DS032';
        END IF;
    END IF;
    RETURN QUERY SELECT made.order_id, made.state, made.assignment_no, made.driver_id,
        made.order_seq, made.restaurant_id, made.lon_deg, made.lat_deg, made.customer_name,
        made.policy_id, made.created_at, made.assigned_at, made.ended_at, made.created;
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
    -- which assign_order_as_staff_v1 sets
    wanted_stop_no CONSTANT int := nullif(current_setting('doorstep.stop_no', true), '');
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
        IF repeated.command <> verb OR repeated.driver_id <> to_driver_id
            OR repeated.is_driver_named <> (to_driver_id IS NOT NULL)
            OR repeated.is_driver_named IS NOT NULL
                AND repeated.stop_no IS DISTINCT FROM wanted_stop_no
        THEN
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
        assignment_no, idempotency_key, commanded_at, is_driver_named, stop_no)
    VALUES (of_order_id, verb, by_role, by_actor_id, chosen_driver_id, o.state, target, target_no,
        with_idempotency_key, at, to_driver_id IS NOT NULL, wanted_stop_no);

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

-- Returns available drivers with a recent position, nearest first; `with_orders` also those on duty
-- who have orders and room for another. Searches a block of cells around the place, and enlarges it
-- until it holds enough drivers. A driver counts only if no nearer one can be outside the block.
-- The first block is the place's cell, because a cell may hold thousands.
CREATE OR REPLACE FUNCTION nearest_drivers_v2(
    from_lon_deg float8, from_lat_deg float8, at_most int, with_orders bool
)
RETURNS TABLE (
    driver_id text, distance_m float8, fix_at timestamptz, lon_deg float8, lat_deg float8,
    open_orders int
)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_memoize = off  -- no driver is in two cells
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    -- Cells of 0.01 degrees from the grid lines nearest to the place to each edge of the block.
    -- -1 is the place's cell alone, 0 that and the cell across its nearest edge.
    reach int;
    south int;  -- the first row of the block, and its last one; then its columns
    north int;
    west int;
    east int;
    rows_deg float8;  -- from the place to the nearer edge of the block, north or south
    columns_deg float8;  -- east or west
    first_columns int[];  -- of the block: two ranges where it crosses 180 degrees
    last_columns int[];
    safe_m float8;
    l limits;
    recent_at timestamptz;
    nearest driver_distance[];
BEGIN
    SELECT * INTO STRICT l FROM limits;
    recent_at := clock_timestamp() - make_interval(secs => l.nearest_max_age_s);
    FOREACH reach IN ARRAY ARRAY[-1, 0, 1, 3, 9, 27, 81] LOOP
        IF reach = -1 THEN
            south := floor(from_lat_deg * 100);
            north := south;
            west := floor(from_lon_deg * 100);
            east := west;
        ELSIF reach = 0 THEN
            IF rows_deg < columns_deg * cosd(from_lat_deg) THEN
                south := least(south, round(from_lat_deg * 100) - 1);
                north := greatest(north, round(from_lat_deg * 100));
            ELSE
                west := least(west, round(from_lon_deg * 100) - 1);
                east := greatest(east, round(from_lon_deg * 100));
            END IF;
        ELSE
            south := round(from_lat_deg * 100) - reach;
            north := south + 2 * reach - 1;
            west := round(from_lon_deg * 100) - reach;
            east := west + 2 * reach - 1;
        END IF;
        rows_deg := least(from_lat_deg - south / 100.0, (north + 1) / 100.0 - from_lat_deg);
        columns_deg := least(from_lon_deg - west / 100.0, (east + 1) / 100.0 - from_lon_deg);
        first_columns := ARRAY[greatest(west + 18000, 0)];
        last_columns := ARRAY[least(east + 18000, 35999)];
        IF west + 18000 < 0 THEN
            first_columns := first_columns || west + 54000;
            last_columns := last_columns || 35999;
        ELSIF east + 18000 > 35999 THEN
            first_columns := first_columns || 0;
            last_columns := last_columns || east - 18000;
        END IF;
        -- a degree of longitude is shortest at the block's edge nearest to a pole
        safe_m := 111195 * least(rows_deg,
            columns_deg * cosd(least(abs(from_lat_deg) + rows_deg, 89)));
        nearest := ARRAY(
            SELECT (d.driver_id, m.distance_m)::driver_distance
            FROM generate_series(south + 9000, north + 9000) AS r (cell_row)
            CROSS JOIN unnest(first_columns, last_columns) AS k (first_column, last_column)
            -- OFFSET 0 keeps the order of the look-ups, whatever the planner expects of a block
            CROSS JOIN LATERAL (
                SELECT c.driver_id FROM driver_cell c
                WHERE c.cell BETWEEN r.cell_row * 36000 + k.first_column
                    AND r.cell_row * 36000 + k.last_column
                OFFSET 0
            ) c
            CROSS JOIN LATERAL (
                SELECT s.driver_id, s.lon_deg, s.lat_deg FROM driver_state s
                WHERE s.driver_id = c.driver_id
                    AND (s.state = 'available'
                        OR with_orders AND s.order_id IS NOT NULL AND s.duty = 'on_duty')
                    AND s.lat_deg BETWEEN from_lat_deg - safe_m / 111195
                        AND from_lat_deg + safe_m / 111195  -- excludes many cheaply
                    AND s.fix_at > recent_at
                OFFSET 0
            ) d
            CROSS JOIN LATERAL (
                SELECT ground_distance_m(d.lon_deg, d.lat_deg, from_lon_deg, from_lat_deg)
            ) AS m (distance_m)
            WHERE m.distance_m <= least(safe_m, l.nearest_max_m)
                AND (NOT with_orders
                    OR cardinality(driver_stops__of(d.driver_id)) < l.max_open_orders)
            ORDER BY m.distance_m, d.driver_id
            LIMIT at_most
        );
        EXIT WHEN cardinality(nearest) >= at_most OR safe_m >= l.nearest_max_m;
    END LOOP;
    RETURN QUERY
        SELECT d.driver_id, f.distance_m, d.fix_at, d.lon_deg, d.lat_deg,
            CASE WHEN d.order_id IS NULL THEN 0
                ELSE cardinality(driver_stops__of(d.driver_id)) END
        FROM unnest(nearest) f
        CROSS JOIN LATERAL (
            SELECT * FROM driver_state s WHERE s.driver_id = f.driver_id OFFSET 0
        ) d
        ORDER BY f.distance_m, d.driver_id;
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
    -- read by apply_order_command_v1 and by the trigger on the new assignment
    PERFORM set_config('doorstep.stop_no', coalesce(at_stop_no::text, ''), true);
    RETURN QUERY SELECT * FROM apply_order_command_v1(
        of_order_id, command_name, 'staff', by_name, to_driver_id, with_idempotency_key);
    PERFORM set_config('doorstep.stop_no', '', true);
END
$$;

-- Estimates when the customers of orders behind another stop are reached: in straight lines, from
-- the driver's newest fix over the stops before. Rounds outward to 5 minutes. Writes an order at
-- most once a minute, and none while its driver is silent; one caller at a time. Returns the number
-- of orders.
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

-- Returns couriers who may take an order, by their straight line to its pickup place: those without
-- an order, and those who may have one more. `is_current` is the one who has it.
CREATE OR REPLACE FUNCTION order_couriers_v1(of_order_id uuid, at_most int)
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

-- Changes the note for the courier, or clears it. The note that the order was made with is kept, so
-- that its creator can repeat the request. Raises DS001 after pick-up.
CREATE OR REPLACE FUNCTION customer_note_v1(of_token_sha256 bytea, of_order_id uuid, new_note text)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
DECLARE
    o orders;
BEGIN
    PERFORM customer_links__require(of_token_sha256, of_order_id);
    PERFORM pg_advisory_xact_lock(hashtextextended(of_order_id::text, 1));  -- as commands do
    SELECT * INTO STRICT o FROM orders t WHERE t.order_id = of_order_id;
    IF NOT order_state__is_before_pick_up(o.state) THEN
        RAISE EXCEPTION 'the door note cannot be changed after pick-up' USING ERRCODE = 'DS001',
            DETAIL = json_build_object('subject_id', of_order_id, 'command', 'door_note',
                'current_state', o.state, 'allowed', '[]'::json)::text;
    END IF;
    INSERT INTO order_detail AS t (order_id, created_by, door_note, door_note_set_at, search)
    VALUES (of_order_id, o.created_by, new_note, clock_timestamp(), '')
    ON CONFLICT (order_id) DO UPDATE
        SET ordered_door_note = CASE WHEN t.door_note_set_at IS NULL THEN t.door_note
                ELSE t.ordered_door_note END,
            door_note = EXCLUDED.door_note, door_note_set_at = EXCLUDED.door_note_set_at;
    UPDATE order_detail t SET search = to_tsvector('simple', concat_ws(' ', o.customer_name,
        t.external_id, t.customer_phone, regexp_replace(t.customer_phone, '\D', '', 'g'),
        t.address, t.door_note, t.items))
    WHERE t.order_id = of_order_id;
END
$$;

-- Makes a link to share; an earlier one of this customer's token ends, and is deleted.
CREATE OR REPLACE FUNCTION customer_share_v1(
    of_token_sha256 bytea, of_order_id uuid, new_token_sha256 bytea
)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
BEGIN
    PERFORM customer_unshare_v1(of_token_sha256, of_order_id);
    INSERT INTO share_link (token_sha256, order_id, owner_sha256)
    VALUES (new_token_sha256, of_order_id, of_token_sha256);
END
$$;

-- Withdraws the link that a customer shares, if there is one.
CREATE OR REPLACE FUNCTION customer_unshare_v1(of_token_sha256 bytea, of_order_id uuid)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
BEGIN
    PERFORM customer_links__require(of_token_sha256, of_order_id);
    -- one at a time, so that no second link stays open
    PERFORM FROM access_token t WHERE t.token_sha256 = of_token_sha256 FOR NO KEY UPDATE;
    DELETE FROM share_link s WHERE s.owner_sha256 = of_token_sha256;
END
$$;

-- What the details of an order tell with a share: not the PIN, the reason of the end, or whether
-- there is a photo. The places stay, for the estimate.
CREATE FUNCTION share_link__details(details text)
RETURNS text LANGUAGE sql IMMUTABLE
RETURN jsonb_set(details::jsonb, '{13}', '{}')::text;

-- As customer_tracks_v2, of shares. The service must not pass on the door either.
CREATE OR REPLACE FUNCTION share_tracks_v1(
    token_sha256s bytea[], order_ids uuid[], known_order_seqs int[],
    estimated_order_seqs int[], estimated_fix_ats timestamptz[]
)
RETURNS TABLE (
    n int8, now timestamptz, order_seq int, driver_id text,
    fix_at timestamptz, received_at timestamptz, lon_deg float8, lat_deg float8,
    accuracy_m float8, speed_mps float8, heading_deg float8, details text, trail text
)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    SELECT t.n, t.now, t.order_seq, t.driver_id, t.fix_at, t.received_at, t.lon_deg, t.lat_deg,
        t.accuracy_m, t.speed_mps, t.heading_deg, share_link__details(t.details), t.trail
    FROM customer_tracks_v2(share_link__owners(token_sha256s, order_ids), order_ids,
        known_order_seqs, estimated_order_seqs, estimated_fix_ats) t
$$;

-- As customer_tracks_v3, of shares. The service must not pass on the door either. Details come
-- without a stamp: they are less than the customer's own, and must not be kept for them.
CREATE OR REPLACE FUNCTION share_tracks_v2(
    token_sha256s bytea[], order_ids uuid[], known_order_seqs int[], known_stamps int8[],
    estimated_order_seqs int[], estimated_fix_ats timestamptz[]
)
RETURNS TABLE (
    n int8, now timestamptz, order_seq int, driver_id text,
    fix_at timestamptz, received_at timestamptz, lon_deg float8, lat_deg float8,
    accuracy_m float8, speed_mps float8, heading_deg float8, details text, trail text, stamp int8
)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
BEGIN
    RETURN QUERY
    SELECT t.n, t.now, t.order_seq, t.driver_id, t.fix_at, t.received_at, t.lon_deg, t.lat_deg,
        t.accuracy_m, t.speed_mps, t.heading_deg, share_link__details(t.details), t.trail,
        CASE WHEN t.details IS NULL THEN t.stamp END
    FROM customer_tracks_v3(share_link__owners(token_sha256s, order_ids), order_ids,
        known_order_seqs, known_stamps, estimated_order_seqs, estimated_fix_ats) t;
END
$$;

-- Fails an order for a reason, as a member of staff, with a next step: `retry`, `return` or null.
-- A retry is a new order, confirmed, whose customer gets the token; a repeat ignores the token.
-- Returns the retry's promised window, too.
CREATE FUNCTION fail_order_as_staff_v3(
    of_order_id uuid, by_name text, with_reason text, with_note text, next_step text,
    retry_token_sha256 bytea, with_idempotency_key text
)
RETURNS TABLE (
    order_id uuid, state order_state, assignment_no int, driver_id text, order_seq int,
    restaurant_id int, lon_deg float8, lat_deg float8, customer_name text, policy_id int,
    created_at timestamptz, assigned_at timestamptz, ended_at timestamptz,
    retry_order_id uuid, is_new bool, retry_promised_from timestamptz,
    retry_promised_to timestamptz
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
SET enable_hashjoin = off  -- every join is a look-up by key
SET enable_mergejoin = off
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    is_new_command CONSTANT bool := order_command__is_new(of_order_id, 'fail');
    failed record;
BEGIN
    SELECT * INTO STRICT failed FROM apply_order_command_v1(
        of_order_id, 'fail', 'staff', by_name, NULL, with_idempotency_key);
    PERFORM order_command__describe(
        of_order_id, 'fail', is_new_command, with_reason::failure_reason, with_note);
    PERFORM order__take_next_step(
        of_order_id, next_step, is_new_command, by_name, retry_token_sha256);
    RETURN QUERY SELECT failed.order_id, failed.state, failed.assignment_no, failed.driver_id,
        failed.order_seq, failed.restaurant_id, failed.lon_deg, failed.lat_deg,
        failed.customer_name, failed.policy_id, failed.created_at, failed.assigned_at,
        failed.ended_at, r.order_id, is_new_command, d.promised_from, d.promised_to
    FROM (SELECT of_order_id) AS k (retry_of)
    LEFT JOIN order_retry r ON r.retry_of = k.retry_of
    LEFT JOIN order_detail d ON d.order_id = r.order_id;
END
$$;

-- As fail_order_as_staff_v3 without the window, for the services of an earlier release.
CREATE OR REPLACE FUNCTION fail_order_as_staff_v2(
    of_order_id uuid, by_name text, with_reason text, with_note text, next_step text,
    retry_token_sha256 bytea, with_idempotency_key text
)
RETURNS TABLE (
    order_id uuid, state order_state, assignment_no int, driver_id text, order_seq int,
    restaurant_id int, lon_deg float8, lat_deg float8, customer_name text, policy_id int,
    created_at timestamptz, assigned_at timestamptz, ended_at timestamptz,
    retry_order_id uuid, is_new bool
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
BEGIN
    RETURN QUERY SELECT f.order_id, f.state, f.assignment_no, f.driver_id, f.order_seq,
        f.restaurant_id, f.lon_deg, f.lat_deg, f.customer_name, f.policy_id, f.created_at,
        f.assigned_at, f.ended_at, f.retry_order_id, f.is_new
    FROM fail_order_as_staff_v3(of_order_id, by_name, with_reason, with_note, next_step,
        retry_token_sha256, with_idempotency_key) f;
END
$$;

-- Creates the order that tries a failed one again: the same places, customer, details and PIN. The
-- external_id stays with the failed order. A promised window that has passed begins now, as long as
-- before, or 30 minutes if it had no length. Other instants are kept unless they have passed.
CREATE OR REPLACE FUNCTION order__retry(of_order_id uuid, by_name text, retry_token_sha256 bytea)
RETURNS uuid LANGUAGE plpgsql
AS $$
DECLARE
    at CONSTANT timestamptz := clock_timestamp();
    new_id uuid;
    new_pin text;
BEGIN
    INSERT INTO orders (restaurant_id, lon_deg, lat_deg, customer_name, policy_id, created_by)
    SELECT o.restaurant_id, o.lon_deg, o.lat_deg, o.customer_name, o.policy_id, o.created_by
    FROM orders o WHERE o.order_id = of_order_id
    RETURNING order_id INTO new_id;
    -- of an order made before 0.3.0 only the hash is known, so its retry gets another PIN
    SELECT coalesce(p.pin, order_pin__draw()) INTO new_pin FROM order_detail d
        LEFT JOIN order_pin p ON p.order_id = d.order_id
        WHERE d.order_id = of_order_id AND d.pin_sha256 IS NOT NULL;
    INSERT INTO order_detail (order_id, created_by, customer_phone, customer_language, address,
        door_note, items, ready_at, scheduled_for, promised_from, promised_to, contact_rule,
        pin_sha256, search)
    SELECT new_id, d.created_by, d.customer_phone, d.customer_language, d.address, d.door_note,
        d.items, CASE WHEN d.ready_at > at THEN d.ready_at END,
        CASE WHEN d.scheduled_for > at THEN d.scheduled_for END,
        CASE WHEN coalesce(d.promised_to, d.promised_from) <= at AND d.promised_from IS NOT NULL
            THEN at ELSE d.promised_from END,
        CASE WHEN d.promised_to <= at THEN at + coalesce(
            nullif(d.promised_to - d.promised_from, '0'), interval '30 min')
            ELSE d.promised_to END,
        d.contact_rule, order_detail__pin_sha256(new_id, new_pin), d.search
    FROM order_detail d WHERE d.order_id = of_order_id;
    IF new_pin IS NOT NULL THEN
        INSERT INTO order_pin (order_id, pin) VALUES (new_id, new_pin);
    END IF;
    INSERT INTO order_retry (order_id, retry_of) VALUES (new_id, of_order_id);
    IF retry_token_sha256 IS NOT NULL THEN
        INSERT INTO access_token (token_sha256, role, order_id)
        VALUES (retry_token_sha256, 'customer', new_id);
    END IF;
    IF by_name IS NOT NULL THEN
        PERFORM record_audit_v1(by_name, 'order.create', new_id::text, NULL);
        PERFORM FROM apply_order_command_v1(new_id, 'confirm', 'staff', by_name, NULL, NULL);
    END IF;
    RETURN new_id;
END
$$;

-- Sets url, description, events (null: all) or is_on. Pending deliveries of one that is switched on
-- begin anew, due now. Raises DS071 for an unknown webhook.
CREATE OR REPLACE FUNCTION change_webhook_v1(of_webhook_id uuid, "values" jsonb, by_who text)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
DECLARE
    w webhook;
BEGIN
    IF "values" -> 'is_on' = 'true' THEN
        -- Before the webhook, as reports lock them. An attempt under way becomes a stale one.
        UPDATE webhook_delivery d SET attempts = 0, first_attempt_at = NULL,
            due_at = CASE WHEN d.sending_until > clock_timestamp() THEN d.due_at
                ELSE least(d.due_at, clock_timestamp()) END
        FROM webhook k
        WHERE k.webhook_id = of_webhook_id AND NOT k.is_on AND d.webhook_id = k.webhook_id
            AND d.ended_at IS NULL AND d.attempts > 0;
    END IF;
    SELECT * INTO w FROM webhook k WHERE k.webhook_id = of_webhook_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no webhook %', of_webhook_id USING ERRCODE = 'DS071';
    END IF;
    w := jsonb_populate_record(w, "values");
    UPDATE webhook k SET url = w.url, description = w.description, events = w.events,
        is_on = w.is_on,
        off_at = CASE WHEN NOT w.is_on THEN coalesce(k.off_at, clock_timestamp()) END,
        off_reason = CASE WHEN NOT w.is_on THEN coalesce(k.off_reason, 'admin') END,
        failing_since = CASE WHEN k.is_on = w.is_on THEN k.failing_since END
    WHERE k.webhook_id = of_webhook_id;
    PERFORM administration__record_audit(
        by_who, 'webhook.change', of_webhook_id::text, "values");
END
$$;

CREATE INDEX order_detail_due ON order_detail
(least(ready_at, scheduled_for, promised_from, promised_to))
WHERE coalesce(ready_at, scheduled_for, promised_from, promised_to) IS NOT NULL;

REVOKE EXECUTE ON FUNCTION share_link__details, fail_order_as_staff_v3 FROM PUBLIC;
GRANT EXECUTE ON FUNCTION fail_order_as_staff_v3 TO tracking_api;
GRANT SELECT (promised_from) ON order_detail TO tracking_api;
