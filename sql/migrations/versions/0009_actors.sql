-- A function per actor, idempotency keys per actor, one token per order, and least privilege.

SET LOCAL search_path = doorstep, public;
SET LOCAL check_function_bodies = off;  -- functions may refer to objects that are created later

ALTER TABLE orders ADD created_by text NOT NULL DEFAULT '';
-- A key of before stays its maker's, so that a request repeated across the upgrade makes no second
-- order. Before the audit there was one staff token, now named 'stack'.
UPDATE orders o SET created_by = coalesce(made.who, 'stack')
FROM orders k
LEFT JOIN (
    SELECT a.subject, min(a.who) AS who FROM audit a WHERE a.action = 'order.create' GROUP BY 1
) made ON made.subject = k.order_id::text
WHERE k.order_id = o.order_id AND o.idempotency_key IS NOT NULL;
ALTER TABLE orders DROP CONSTRAINT orders_idempotency_key_key,
    ADD UNIQUE (created_by, idempotency_key);
ALTER TABLE order_command DROP CONSTRAINT order_command_order_id_idempotency_key_key,
    ADD UNIQUE (order_id, actor, actor_id, idempotency_key);
ALTER TABLE driver_command DROP CONSTRAINT driver_command_driver_id_idempotency_key_key,
    ADD UNIQUE (driver_id, actor, idempotency_key);

DROP FUNCTION create_order_v1;

-- Applies one command. Commands on one order are serialized by an advisory lock, then lock the
-- driver row, then the order row: the lock order of record_fixes_v1. Services execute a function
-- per actor: command_order_as_staff_v1, driver_command_order_v1, customer_cancel_v1.
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
AS $$
#variable_conflict use_column
DECLARE
    verb CONSTANT order_verb := command_name;
    by_role CONSTANT actor := by_actor;
    o orders;
    a assignment;  -- the open assignment
    repeated order_command;
    chosen_driver_id text;
    target order_state;
    target_no int;
    at timestamptz;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(of_order_id::text, 1));
    SELECT * INTO o FROM orders WHERE order_id = of_order_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no order %', of_order_id USING ERRCODE = 'DS002';
    END IF;
    IF by_role = 'driver' AND NOT EXISTS (
        SELECT FROM assignment WHERE order_id = of_order_id AND assignment_no = o.assignment_no
            AND driver_id = by_actor_id
    ) AND NOT EXISTS (  -- a driver who repeats a decline no longer has the order
        SELECT FROM order_command WHERE order_id = of_order_id AND actor = 'driver'
            AND idempotency_key = with_idempotency_key AND actor_id = by_actor_id
    ) THEN
        RAISE EXCEPTION 'driver % has no order %', by_actor_id, of_order_id USING ERRCODE = 'DS002';
    END IF;
    SELECT * INTO repeated FROM order_command
        WHERE order_id = of_order_id AND actor = by_role AND actor_id = by_actor_id
            AND idempotency_key = with_idempotency_key;
    IF FOUND THEN
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
    SELECT * INTO a FROM assignment WHERE order_id = of_order_id AND ended_at IS NULL;
    PERFORM FROM driver_state d
        WHERE d.driver_id IN (
            a.driver_id, CASE WHEN verb IN ('assign', 'reassign') THEN to_driver_id END
        )
        ORDER BY d.driver_id FOR NO KEY UPDATE;
    SELECT * INTO o FROM orders WHERE order_id = of_order_id FOR NO KEY UPDATE;
    at := clock_timestamp();

    SELECT to_state INTO target FROM order_transition
        WHERE from_state = o.state AND via = 'command' AND command = verb AND actor = by_role;
    IF NOT FOUND THEN
        PERFORM orders__raise_illegal_transition(of_order_id, command_name, o.state, by_role);
    END IF;

    IF verb IN ('assign', 'reassign') THEN
        chosen_driver_id := orders__choose_driver(o, to_driver_id, a.driver_id);
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

    IF a.order_id IS NOT NULL AND verb IN ('decline', 'reassign', 'deliver', 'cancel', 'fail') THEN
        UPDATE assignment SET ended_at = greatest(at, assigned_at), ended_by = verb
            WHERE order_id = of_order_id AND assignment_no = a.assignment_no;
        PERFORM evidence__derive(ARRAY[of_order_id], ARRAY[a.assignment_no], true);
    END IF;
    IF chosen_driver_id IS NOT NULL THEN
        INSERT INTO assignment (order_id, assignment_no, driver_id, assigned_at, policy_id,
            restaurant_lon_deg, restaurant_lat_deg, customer_lon_deg, customer_lat_deg)
        SELECT of_order_id, target_no, chosen_driver_id,
            -- the windows of a driver never overlap, even if the clock is set back
            greatest(at, (
                SELECT max(greatest(ended_at, assigned_at + interval '1 microsecond'))
                FROM assignment t WHERE t.driver_id = chosen_driver_id
            )),
            o.policy_id, r.lon_deg, r.lat_deg, o.lon_deg, o.lat_deg
        FROM restaurant r WHERE r.restaurant_id = o.restaurant_id;
    END IF;
    IF target <> o.state OR target_no <> o.assignment_no THEN
        UPDATE orders SET state = target, assignment_no = target_no, state_at = at,
            state_source = by_role::text::state_source,
            ended_at = CASE WHEN target IN ('delivered', 'cancelled', 'failed') THEN at END
        WHERE order_id = of_order_id;
    END IF;
    IF verb IN ('assign', 'reassign', 'pick_up') THEN  -- fixes may already be stored
        PERFORM evidence__derive(ARRAY[of_order_id], ARRAY[target_no], false);
        PERFORM orders__apply_evidence(ARRAY[of_order_id]);
    END IF;
    RETURN QUERY SELECT * FROM order_now WHERE order_id = of_order_id;
END
$$;

CREATE OR REPLACE FUNCTION apply_driver_command_v1(
    of_driver_id text, command_name text, by_actor text, with_idempotency_key text
)
RETURNS TABLE (driver_id text, duty driver_duty, state driver_status, order_id uuid)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    verb CONSTANT driver_verb := command_name;
    d driver_state;
    repeated driver_verb;
    target driver_status;
BEGIN
    SELECT * INTO d FROM driver_state WHERE driver_id = of_driver_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no driver %', of_driver_id USING ERRCODE = 'DS003';
    END IF;
    SELECT command INTO repeated FROM driver_command
        WHERE driver_id = of_driver_id AND actor = by_actor::actor
            AND idempotency_key = with_idempotency_key;
    IF repeated <> verb THEN
        RAISE EXCEPTION 'this key was used for %', repeated USING ERRCODE = 'DS008';
    END IF;
    -- A repeated command or key changes nothing.
    IF repeated IS NULL AND d.duty::text <> verb::text THEN
        SELECT to_state INTO target FROM driver_transition
            WHERE from_state = d.state AND command = verb;
        IF NOT FOUND THEN
            RAISE EXCEPTION '% is not possible from %', command_name, d.state USING
                ERRCODE = 'DS001',
                DETAIL = jsonb_build_object(
                    'subject_id', of_driver_id, 'command', command_name, 'current_state', d.state,
                    'allowed', ARRAY(SELECT command FROM driver_transition
                        WHERE from_state = d.state ORDER BY command)
                );
        END IF;
        INSERT INTO driver_command (driver_id, command, actor, from_state, to_state,
            idempotency_key)
        VALUES (of_driver_id, verb, by_actor::actor, d.state, target, with_idempotency_key);
        UPDATE driver_state SET duty = verb::text::driver_duty WHERE driver_id = of_driver_id;
        PERFORM driver_state__derive(ARRAY[of_driver_id]);
    END IF;
    RETURN QUERY SELECT driver_id, duty, state, order_id FROM driver_state
        WHERE driver_id = of_driver_id;
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
AS $$
#variable_conflict use_column
DECLARE
    pinned_policy_id CONSTANT int := coalesce(with_policy_id, 1);
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
        INSERT INTO access_token (token_sha256, role, order_id)
        VALUES (token_sha256, 'customer', created_order.order_id);
        PERFORM record_audit_v1(by_name, 'order.create', created_order.order_id::text, NULL);
    ELSE
        SELECT * INTO STRICT created_order FROM orders
            WHERE created_by = coalesce(by_name, '') AND idempotency_key = with_idempotency_key;
        IF (created_order.restaurant_id, created_order.lon_deg, created_order.lat_deg,
            created_order.policy_id, created_order.customer_name)
            IS DISTINCT FROM (at_restaurant_id, to_lon_deg, to_lat_deg, pinned_policy_id,
            for_customer_name)
        THEN
            RAISE EXCEPTION 'this key made another order' USING ERRCODE = 'DS008';
        END IF;
    END IF;
    RETURN QUERY SELECT v.*, is_new FROM order_now v WHERE v.order_id = created_order.order_id;
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
LANGUAGE sql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    SELECT * FROM apply_order_command_v1(
        of_order_id, command_name, 'staff', by_name, to_driver_id, with_idempotency_key)
$$;

CREATE FUNCTION driver__of_token(of_token_sha256 bytea)
RETURNS text LANGUAGE plpgsql STABLE
AS $$
DECLARE
    found_id text;
BEGIN
    SELECT t.driver_id INTO found_id FROM find_token_v1(of_token_sha256) t WHERE t.role = 'driver';
    IF found_id IS NULL THEN
        RAISE EXCEPTION 'this token is not a driver''s' USING ERRCODE = 'DS026';
    END IF;
    RETURN found_id;
END
$$;

-- The driver, and the order of the open assignment with its two places, or nulls.
CREATE FUNCTION driver_read_v1(of_token_sha256 bytea)
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
    LEFT JOIN assignment a ON a.driver_id = s.driver_id AND a.ended_at IS NULL
    LEFT JOIN orders o ON o.order_id = a.order_id
    LEFT JOIN restaurant r ON r.restaurant_id = o.restaurant_id
    WHERE s.driver_id = driver__of_token(of_token_sha256)
$$;

-- Applies on_duty, on_break or off_duty.
CREATE FUNCTION driver_change_duty_v1(
    of_token_sha256 bytea, command_name text, with_idempotency_key text
)
RETURNS TABLE (driver_id text, duty driver_duty, state driver_status, order_id uuid)
LANGUAGE sql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    SELECT * FROM apply_driver_command_v1(
        driver__of_token(of_token_sha256), command_name, 'driver', with_idempotency_key)
$$;

-- Applies decline, pick_up, deliver or fail. Raises DS002 for an order that is not the driver's.
CREATE FUNCTION driver_command_order_v1(
    of_token_sha256 bytea, of_order_id uuid, command_name text, with_idempotency_key text
)
RETURNS TABLE (
    order_id uuid, state order_state, assignment_no int, order_seq int, driver_id text
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    by_driver_id CONSTANT text := driver__of_token(of_token_sha256);
BEGIN
    RETURN QUERY
        SELECT c.order_id, c.state, c.assignment_no, c.order_seq, c.driver_id
        FROM apply_order_command_v1(
            of_order_id, command_name, 'driver', by_driver_id, NULL, with_idempotency_key) c;
END
$$;

-- The positions of good links in the arguments.
CREATE FUNCTION customer_links_v1(token_sha256s bytea[], order_ids uuid[])
RETURNS TABLE (n int8) LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    SELECT g.n FROM customer_links__good(token_sha256s, order_ids) g
$$;

-- Returns the devices of a kind in the order of their addition, removed ones too.
CREATE FUNCTION list_devices_v1(of_kind text)
RETURNS TABLE (
    device_id text, kind text, generation int, is_derived bool, created_at timestamptz,
    rotated_at timestamptz, revoked_at timestamptz, removed_at timestamptz
)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    SELECT d.device_id, d.kind::text, d.generation, d.mqtt_hash IS NULL, d.created_at,
        d.rotated_at, d.revoked_at, d.removed_at
    FROM device_credential d WHERE d.kind = of_kind::device_kind
    ORDER BY d.created_at, d.device_id
$$;

-- All grants of the services' roles again.

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA doorstep FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA doorstep
FROM driver_events, driver_api, tracking_api, customer, broker_sync;
REVOKE ALL ON ALL TABLES IN SCHEMA doorstep
FROM driver_events, driver_api, tracking_api, customer, broker_sync;

GRANT EXECUTE ON FUNCTION
    prepare_incoming_v1, record_fixes_v1, record_parked_v1, read_watermarks_v2,
    open_offsets_v1, advance_offsets_v1, add_dead_letters_v1, take_outbox_v1, delete_outbox_v1,
    fix_history__ensure_partitions_v1,
    driver_sampling__take_v1, driver_sampling__confirm_v1, driver_sampling__mark_undelivered_v1,
    driver_sampling__follow_demand_v1,
    series__prepare_v1, series__record_v1, series__expire_v1,
    fix_history__seal_limits_v1, fix_history__seal_v1, fix_history__writers_finished_v1,
    fix_history__unpacked_days_v1, fix_history__pack_v1, fix_history__switch_v1,
    fix_history__drop_packed_v1, fix_chunk__expire_v1, retention__expire_v1
TO driver_events;
GRANT SELECT ON kafka_offset, history_bounds TO driver_events;
GRANT SELECT (driver_id) ON parked_fix TO driver_events;
GRANT SELECT (history_days) ON limits TO driver_events;

GRANT EXECUTE ON FUNCTION
    prepare_incoming_v1, record_fixes_v1, find_token_v2,
    driver_read_v1, driver_change_duty_v1, driver_command_order_v1
TO driver_api;

GRANT EXECUTE ON FUNCTION
    find_token_v2, record_audit_v1, create_order_v2, command_order_as_staff_v1,
    replace_customer_token_v1, revoke_customer_tokens_v1, create_policy_v1, change_device_v2,
    change_staff_v1, list_staff_v1, list_devices_v1, open_staff_session_v1, close_staff_session_v1,
    driver_sampling__set_v1, driver_sampling__unpin_v1,
    simulation_target__set_v1, watch_orders_v1,
    nearest_drivers_v1, fleet_tile_v1, fleet_history_v1, fix_history__between_v1,
    fix_chunk__unpack, fix_chunk__sample, series__downsample_v1, series__points,
    eta_model__read_v1
TO tracking_api;
GRANT SELECT ON
    driver, driver_state, driver_cell, restaurant, policy, orders, order_now, assignment, evidence,
    order_event, order_transition, fix_history, fix_chunk, history_bounds, driver_sampling, series,
    series_point, simulation_target
TO tracking_api;
GRANT SELECT (device_id, removed_at) ON device_credential TO tracking_api;

-- Customers read no table: what they may see is decided inside these functions.
GRANT EXECUTE ON FUNCTION
    customer_links_v1, customer_tracks_v1, customer_polls_v1, customer_history_v1,
    customer_watch_v1, customer_cancel_v1, eta_model__read_v1
TO customer;

GRANT EXECUTE ON FUNCTION changed_devices_v2 TO broker_sync;
