-- How orders are made with a PIN and end: delivered with PIN and note, failed with a next step,
-- cancelled with a reason. The photo and the way back: 58_photos_and_returns.sql.

-- Creates an order, as create_order_v3. The pin `auto` draws one of four digits, the same one in a
-- repeat. Raises DS051 for a place that lies in a service area only with its coordinates swapped.
CREATE FUNCTION create_order_v4(
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
    pin text := details ->> 'pin';
    is_auto CONSTANT bool := coalesce(pin = 'auto', false);
    made record;
BEGIN
    IF service_area__is_swapped(to_lon_deg, to_lat_deg) THEN
        RAISE EXCEPTION 'the destination is in no service area, but in one with its longitude and '
            'latitude swapped' USING ERRCODE = 'DS051';
    ELSIF service_area__is_swapped(
        (at_pickup ->> 'lon_deg')::float8, (at_pickup ->> 'lat_deg')::float8)
    THEN
        RAISE EXCEPTION 'the pickup is in no service area, but in one with its longitude and '
            'latitude swapped' USING ERRCODE = 'DS051';
    END IF;
    IF is_auto THEN
        pin := order_pin__draw();
        IF with_idempotency_key IS NOT NULL THEN
            PERFORM pg_advisory_xact_lock(
                hashtextextended(concat_ws(' ', by_name, with_idempotency_key), 2));
            SELECT CASE WHEN p.is_generated THEN p.pin ELSE 'another' END INTO pin FROM orders o
                LEFT JOIN order_pin p ON p.order_id = o.order_id
                WHERE o.created_by = coalesce(by_name, '')
                    AND o.idempotency_key = with_idempotency_key;
            pin := coalesce(pin, order_pin__draw());
        END IF;
        details := details || jsonb_build_object('pin', pin);
    END IF;
    SELECT * INTO STRICT made FROM create_order_v3(at_restaurant_id, at_pickup, to_lon_deg,
        to_lat_deg, token_sha256, with_policy_id, with_idempotency_key, for_customer_name, details,
        by_name);
    IF made.created AND pin IS NOT NULL THEN
        INSERT INTO order_pin (order_id, pin, is_generated) VALUES (made.order_id, pin, is_auto);
    END IF;
    RETURN QUERY SELECT made.order_id, made.state, made.assignment_no, made.driver_id,
        made.order_seq, made.restaurant_id, made.lon_deg, made.lat_deg, made.customer_name,
        made.policy_id, made.created_at, made.assigned_at, made.ended_at, made.created;
END
$$;

-- Four digits from the server's strong random numbers, of which UUIDs consist.
CREATE FUNCTION order_pin__draw()
RETURNS text LANGUAGE sql VOLATILE
RETURN lpad((('x' || substr(md5(gen_random_uuid()::text), 1, 8))::bit(32)::int8 % 10000)::text, 4,
    '0');

-- Whether a command that ends an order is new, rather than a repeat. Locks the order's commands.
CREATE FUNCTION order_command__is_new(of_order_id uuid, verb order_verb)
RETURNS bool LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(of_order_id::text, 1));
    RETURN NOT EXISTS (
        SELECT FROM order_command c WHERE c.order_id = of_order_id AND c.command = verb
    );
END
$$;

-- Records the reason and the note of the command that has just ended an order. In a repeat of it,
-- raises DS008 if they differ.
CREATE FUNCTION order_command__describe(
    of_order_id uuid, verb order_verb, is_new bool, with_reason failure_reason, with_note text
)
RETURNS void LANGUAGE plpgsql
AS $$
BEGIN
    IF is_new AND (with_reason IS NOT NULL OR with_note IS NOT NULL) THEN
        UPDATE order_command c SET failure_reason = with_reason, note = with_note
            WHERE c.order_id = of_order_id AND c.command = verb;
    ELSIF NOT is_new AND EXISTS (
        SELECT FROM order_command c WHERE c.order_id = of_order_id AND c.command = verb
            AND (c.failure_reason, c.note) IS DISTINCT FROM (with_reason, with_note)
    ) THEN
        RAISE EXCEPTION 'this key ended the order with another reason or note'
            USING ERRCODE = 'DS008';
    END IF;
END
$$;

-- Checks a PIN that the driver of an order gives. Returns null if it is right or the order has
-- none; else `missing`, `wrong` or `locked`. A right one is recorded for the driver, a wrong one
-- is counted: the caller commits both. The caller holds the order's advisory lock.
CREATE FUNCTION order_pin__check(of_order_id uuid, by_driver_id text, with_pin text)
RETURNS TABLE (refusal text, tries_left int, retry_after_s int)
LANGUAGE plpgsql
AS $$
DECLARE
    most_tries CONSTANT int := 5;
    within CONSTANT interval := interval '10 min';
    at CONSTANT timestamptz := clock_timestamp();
    expected bytea;
    tries int;
    oldest_at timestamptz;
BEGIN
    SELECT d.pin_sha256 INTO expected FROM order_detail d WHERE d.order_id = of_order_id;
    IF expected IS NULL THEN
        RETURN;
    END IF;
    SELECT count(*), min(t.tried_at) INTO tries, oldest_at FROM order_pin_try t
        WHERE t.order_id = of_order_id AND t.tried_at > at - within;
    IF tries >= most_tries THEN
        RETURN QUERY SELECT 'locked', 0,
            greatest(1, ceil(extract(epoch FROM oldest_at + within - at)))::int;
    ELSIF with_pin IS NULL THEN
        RETURN QUERY SELECT 'missing', most_tries - tries, NULL::int;
    ELSIF order_detail__pin_sha256(of_order_id, with_pin) <> expected THEN
        INSERT INTO order_pin_try (order_id, tried_at, driver_id)
        VALUES (of_order_id, at, by_driver_id);
        RETURN QUERY SELECT 'wrong', most_tries - tries - 1, NULL::int;
    ELSE
        INSERT INTO order_pin AS p (order_id, given_by, given_at)
        VALUES (of_order_id, by_driver_id, at)
        ON CONFLICT (order_id) DO UPDATE SET given_by = by_driver_id, given_at = at;
    END IF;
END
$$;

-- 110: a driver delivers an order with a PIN only after the right one: driver_deliver_order_v1.
CREATE FUNCTION order_command__guard_pin()
RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT FROM order_detail d WHERE d.order_id = NEW.order_id AND d.pin_sha256 IS NOT NULL
    ) AND NOT EXISTS (
        SELECT FROM order_pin p WHERE p.order_id = NEW.order_id AND p.given_by = NEW.actor_id
    ) THEN
        RAISE EXCEPTION 'deliver needs the PIN of this order' USING ERRCODE = 'DS001',
            DETAIL = jsonb_build_object('subject_id', NEW.order_id, 'command', 'deliver',
                'current_state', NEW.from_state, 'allowed', jsonb_build_array('fail'));
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER _110_guard_pin BEFORE INSERT ON order_command
FOR EACH ROW WHEN (NEW.command = 'deliver' AND NEW.actor = 'driver')
EXECUTE FUNCTION order_command__guard_pin();

-- Delivers an order as its driver, with the PIN if it has one. A refusal of the PIN is returned as
-- `pin_refusal` beside nulls, and must be committed: it counts the try.
CREATE FUNCTION driver_deliver_order_v1(
    of_token_sha256 bytea, of_order_id uuid, with_pin text, with_note text,
    with_idempotency_key text
)
RETURNS TABLE (
    order_id uuid, state order_state, assignment_no int, order_seq int, driver_id text,
    pin_refusal text, tries_left int, retry_after_s int
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
    by_driver_id CONSTANT text := driver__of_token(of_token_sha256);
    is_new CONSTANT bool := order_command__is_new(of_order_id, 'deliver');
    pin record;
    done record;
BEGIN
    -- Only the driver who may deliver it now can try a PIN.
    IF EXISTS (
        SELECT FROM orders o
        JOIN assignment a ON a.order_id = o.order_id AND a.assignment_no = o.assignment_no
            AND a.driver_id = by_driver_id AND a.ended_at IS NULL
        JOIN order_transition t ON t.from_state = o.state AND t.command = 'deliver'
            AND t.actor = 'driver'
        WHERE o.order_id = of_order_id
    ) THEN
        SELECT * INTO pin FROM order_pin__check(of_order_id, by_driver_id, with_pin);
        IF pin.refusal IS NOT NULL THEN
            RETURN QUERY SELECT NULL::uuid, NULL::order_state, NULL::int, NULL::int, NULL::text,
                pin.refusal, pin.tries_left, pin.retry_after_s;
            RETURN;
        END IF;
    END IF;
    SELECT * INTO STRICT done FROM apply_order_command_v1(
        of_order_id, 'deliver', 'driver', by_driver_id, NULL, with_idempotency_key);
    PERFORM order_command__describe(of_order_id, 'deliver', is_new, NULL, with_note);
    RETURN QUERY SELECT done.order_id, done.state, done.assignment_no, done.order_seq,
        done.driver_id, NULL::text, NULL::int, NULL::int;
END
$$;

-- Ends an order as a member of staff, with a note: deliver, without its PIN, or cancel, with a
-- reason that the customer reads.
CREATE FUNCTION end_order_as_staff_v1(
    of_order_id uuid, command_name text, by_name text, with_note text, with_idempotency_key text
)
RETURNS TABLE (
    order_id uuid, state order_state, assignment_no int, driver_id text, order_seq int,
    restaurant_id int, lon_deg float8, lat_deg float8, customer_name text, policy_id int,
    created_at timestamptz, assigned_at timestamptz, ended_at timestamptz
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
SET enable_hashjoin = off  -- every join is a look-up by key
SET enable_mergejoin = off
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    is_new bool;
BEGIN
    IF command_name NOT IN ('deliver', 'cancel') THEN
        RAISE EXCEPTION 'not deliver or cancel' USING ERRCODE = '22023';
    END IF;
    is_new := order_command__is_new(of_order_id, command_name::order_verb);
    RETURN QUERY SELECT * FROM apply_order_command_v1(
        of_order_id, command_name, 'staff', by_name, NULL, with_idempotency_key);
    PERFORM order_command__describe(
        of_order_id, command_name::order_verb, is_new, NULL, with_note);
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
CREATE FUNCTION fail_order_as_staff_v2(
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

-- Fails an order for a reason, as its driver, with a next step: `retry`, `return` or null. A retry
-- stays `created`: staff confirms it.
CREATE FUNCTION driver_fail_order_v2(
    of_token_sha256 bytea, of_order_id uuid, with_reason text, with_note text, next_step text,
    with_idempotency_key text
)
RETURNS TABLE (
    order_id uuid, state order_state, assignment_no int, order_seq int, driver_id text
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
SET enable_hashjoin = off  -- every join is a look-up by key
SET enable_mergejoin = off
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    is_new CONSTANT bool := order_command__is_new(of_order_id, 'fail');
BEGIN
    RETURN QUERY SELECT * FROM driver_command_order_v1(
        of_token_sha256, of_order_id, 'fail', with_idempotency_key);
    PERFORM order_command__describe(
        of_order_id, 'fail', is_new, with_reason::failure_reason, with_note);
    PERFORM order__take_next_step(of_order_id, next_step, is_new, NULL, NULL);
END
$$;

-- Begins the retry or the way back of an order that has just failed. If the failure is not new,
-- raises DS008 unless this was its next step. `by_name` is a member of staff, null for the driver.
CREATE FUNCTION order__take_next_step(
    of_order_id uuid, next_step text, is_new bool, by_name text, retry_token_sha256 bytea
)
RETURNS void LANGUAGE plpgsql
AS $$
DECLARE
    taken text;
BEGIN
    IF NOT is_new THEN
        taken := CASE
            WHEN EXISTS (SELECT FROM order_retry r WHERE r.retry_of = of_order_id) THEN 'retry'
            WHEN EXISTS (SELECT FROM order_return r WHERE r.order_id = of_order_id) THEN 'return'
        END;
        IF taken IS DISTINCT FROM next_step THEN
            RAISE EXCEPTION 'this key failed the order with another next step'
                USING ERRCODE = 'DS008';
        END IF;
    ELSIF next_step = 'retry' THEN
        PERFORM order__retry(of_order_id, by_name, retry_token_sha256);
    ELSIF next_step = 'return' THEN
        INSERT INTO order_return (order_id, driver_id, started_at)
        SELECT o.order_id, a.driver_id, o.ended_at FROM orders o
        JOIN assignment a ON a.order_id = o.order_id AND a.assignment_no = o.assignment_no
        WHERE o.order_id = of_order_id;
    END IF;
END
$$;

-- Creates the order that tries a failed one again: the same places, customer, details and PIN. The
-- external_id stays with the failed order. A promised window that has passed begins now, as long as
-- before, or 30 minutes if it had no length. Other instants are kept unless they have passed.
CREATE FUNCTION order__retry(of_order_id uuid, by_name text, retry_token_sha256 bytea)
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
