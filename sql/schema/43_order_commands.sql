-- Creating orders, applying commands, and choosing drivers.

-- Raises DS001 with the commands that this actor may give in this state.
CREATE FUNCTION orders__raise_illegal_transition(
    of_order_id uuid, rejected_command text, from_order_state order_state, by_actor actor
)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is not possible from %', rejected_command, from_order_state USING
        ERRCODE = 'DS001',
        DETAIL = jsonb_build_object(
            'subject_id', of_order_id, 'command', rejected_command,
            'current_state', from_order_state,
            'allowed', ARRAY(
                SELECT DISTINCT command FROM order_transition
                WHERE from_state = from_order_state AND via = 'command'
                    AND (by_actor IS NULL OR actor = by_actor)
                ORDER BY command
            )
        );
END
$$;

-- Creates an order and its customer's token. Under an idempotency key that by_name has used before,
-- returns that order and ignores the token: an order never gets a second good one.
CREATE FUNCTION create_order_v2(
    at_restaurant_id int, to_lon_deg float8, to_lat_deg float8, token_sha256 bytea,
    with_policy_id int, with_idempotency_key text, for_customer_name text, by_name text
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
    pinned_policy_id CONSTANT int :=
        coalesce(with_policy_id, (SELECT s.policy_id FROM policy_status s WHERE s.is_default));
    created_order orders;
    is_new bool;
BEGIN
    IF NOT EXISTS (SELECT FROM restaurant WHERE restaurant_id = at_restaurant_id) THEN
        RAISE EXCEPTION 'there is no restaurant %', at_restaurant_id USING ERRCODE = 'DS004';
    END IF;
    IF NOT EXISTS (SELECT FROM policy WHERE policy_id = pinned_policy_id) THEN
        RAISE EXCEPTION 'there is no policy %', pinned_policy_id USING ERRCODE = 'DS005';
    END IF;
    INSERT INTO orders (restaurant_id, lon_deg, lat_deg, policy_id, idempotency_key, customer_name,
        created_by)
    VALUES (at_restaurant_id, to_lon_deg, to_lat_deg, pinned_policy_id, with_idempotency_key,
        for_customer_name, coalesce(by_name, ''))
    ON CONFLICT (created_by, idempotency_key) DO NOTHING
    RETURNING * INTO created_order;
    is_new := FOUND;
    IF is_new THEN
        IF EXISTS (SELECT FROM restaurant r
            WHERE r.restaurant_id = at_restaurant_id AND r.retired_at IS NOT NULL)
        THEN
            RAISE EXCEPTION 'the restaurant % is retired', at_restaurant_id
                USING ERRCODE = 'DS040';
        ELSIF EXISTS (SELECT FROM policy_status s
            WHERE s.policy_id = pinned_policy_id AND s.retired_at IS NOT NULL)
        THEN
            RAISE EXCEPTION 'the policy % is retired', pinned_policy_id USING ERRCODE = 'DS040';
        END IF;
        INSERT INTO access_token (token_sha256, role, order_id)
        VALUES (token_sha256, 'customer', created_order.order_id);
        PERFORM record_audit_v1(by_name, 'order.create', created_order.order_id::text, NULL);
    ELSE
        SELECT * INTO STRICT created_order FROM orders
            WHERE created_by = coalesce(by_name, '') AND idempotency_key = with_idempotency_key;
        IF (created_order.restaurant_id, created_order.lon_deg, created_order.lat_deg,
            created_order.policy_id, created_order.customer_name)
            IS DISTINCT FROM (at_restaurant_id, to_lon_deg, to_lat_deg,
            coalesce(with_policy_id, created_order.policy_id), for_customer_name)
        THEN
            RAISE EXCEPTION 'this key made another order' USING ERRCODE = 'DS008';
        END IF;
    END IF;
    RETURN QUERY SELECT v.*, is_new FROM order_now v WHERE v.order_id = created_order.order_id;
END
$$;

-- Applies one command. Commands on one order are serialized by an advisory lock, then lock the
-- driver row, then the order row: the lock order of record_fixes_v1. Services execute a function
-- per actor: command_order_as_staff_v1, driver_command_order_v1, customer_cancel_v1.
--
-- Every fix that is stored has derived its evidence, and while the driver's row is locked none is
-- added. So a command derives evidence only if there is a fix that it makes count, or count no
-- more: one dated at its instant or later.
CREATE FUNCTION apply_order_command_v1(
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

-- Applies a command of a member of staff.
CREATE FUNCTION command_order_as_staff_v1(
    of_order_id uuid, command_name text, by_name text, to_driver_id text,
    with_idempotency_key text
)
RETURNS TABLE (
    order_id uuid, state order_state, assignment_no int, driver_id text, order_seq int,
    restaurant_id int, lon_deg float8, lat_deg float8, customer_name text, policy_id int,
    created_at timestamptz, assigned_at timestamptz, ended_at timestamptz
)
LANGUAGE plpgsql SECURITY DEFINER  -- in SQL it would be planned again for each call
SET search_path = doorstep, public, pg_temp
AS $$
BEGIN
    RETURN QUERY SELECT * FROM apply_order_command_v1(
        of_order_id, command_name, 'staff', by_name, to_driver_id, with_idempotency_key);
END
$$;

-- Chooses and locks the driver of a new assignment: the named one, the nearest available one, or
-- of those with room for another order the one with the least detour. A batch of fixes locks its
-- driver rows briefly, so a locked candidate is polled for up to a second. Waiting for the lock
-- could deadlock two callers.
CREATE FUNCTION orders__choose_driver(o orders, named_driver_id text, excluded_driver_id text)
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

-- Returns available drivers with a recent position, nearest first; `with_orders` also those on duty
-- who have orders and room for another. Searches a block of cells around the place, and enlarges it
-- until it holds enough drivers. A driver counts only if no nearer one can be outside the block.
-- The first block is the place's cell, because a cell may hold thousands.
CREATE FUNCTION nearest_drivers_v2(
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

-- Returns available drivers with a recent position, nearest first.
CREATE FUNCTION nearest_drivers_v1(from_lon_deg float8, from_lat_deg float8, at_most int)
RETURNS TABLE (
    driver_id text, distance_m float8, fix_at timestamptz, lon_deg float8, lat_deg float8
)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
BEGIN
    RETURN QUERY
        SELECT n.driver_id, n.distance_m, n.fix_at, n.lon_deg, n.lat_deg
        FROM nearest_drivers_v2(from_lon_deg, from_lat_deg, at_most, false) n;
END
$$;
