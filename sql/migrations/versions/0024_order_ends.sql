-- Ends of orders: PIN, photo, note, reasons, a second attempt, the way back.

SET LOCAL search_path = doorstep, public;
SET LOCAL check_function_bodies = off;  -- functions may refer to objects that are created later

-- The PIN of an order, readable for its customer only: no service may read this table. An order
-- made before 0.3.0 has only the hash in order_detail, and a row here once a driver gave the PIN.
CREATE TABLE order_pin (
    order_id uuid PRIMARY KEY REFERENCES orders,
    pin text CHECK (pin ~ '^[0-9]{4,8}$'),
    is_generated bool NOT NULL DEFAULT false,
    given_by text COLLATE "C",  -- the driver who has given the right PIN
    given_at timestamptz
);

-- Wrong PINs of drivers. Five within 10 minutes close an order to more (57_order_ends.sql).
CREATE TABLE order_pin_try (
    order_id uuid NOT NULL REFERENCES orders,
    tried_at timestamptz NOT NULL,
    driver_id text COLLATE "C" NOT NULL
);
CREATE INDEX order_pin_try_order ON order_pin_try (order_id, tried_at);

-- The courier's photo of a delivery. The last one counts.
CREATE TABLE order_photo (
    order_id uuid PRIMARY KEY REFERENCES orders,
    driver_id text COLLATE "C" NOT NULL REFERENCES driver,
    stored_at timestamptz NOT NULL,
    media_type text NOT NULL CHECK (media_type IN ('image/jpeg', 'image/png', 'image/webp')),
    content bytea NOT NULL CHECK (octet_length(content) BETWEEN 1 AND 524288)
);
ALTER TABLE order_photo ALTER COLUMN content SET STORAGE EXTERNAL;  -- compressed already
CREATE INDEX order_photo_expiry ON order_photo (stored_at);

-- The order that tries once more what a failed order did not deliver.
CREATE TABLE order_retry (
    order_id uuid PRIMARY KEY REFERENCES orders,
    retry_of uuid NOT NULL UNIQUE REFERENCES orders
);

-- The way of a failed order back to its restaurant: a leg of its own, after the assignment.
CREATE TABLE order_return (
    order_id uuid PRIMARY KEY REFERENCES orders,
    driver_id text COLLATE "C" NOT NULL REFERENCES driver,
    started_at timestamptz NOT NULL,
    ended_at timestamptz CHECK (ended_at >= started_at),
    ended_by text,  -- the driver, or a member of staff
    ended_role actor,
    CHECK ((ended_at IS NULL) = (ended_by IS NULL)),
    CHECK ((ended_at IS NULL) = (ended_role IS NULL))
);
CREATE INDEX order_return_open ON order_return (driver_id, started_at) WHERE ended_at IS NULL;

INSERT INTO retention (kind, days, least_days) VALUES ('photos', 30, 1);

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
        failed.ended_at,
        (SELECT r.order_id FROM order_retry r WHERE r.retry_of = of_order_id), is_new_command;
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
-- external_id stays with the failed order.
CREATE FUNCTION order__retry(of_order_id uuid, by_name text, retry_token_sha256 bytea)
RETURNS uuid LANGUAGE plpgsql
AS $$
DECLARE
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
        door_note, items, promised_from, promised_to, contact_rule, pin_sha256, search)
    SELECT new_id, d.created_by, d.customer_phone, d.customer_language, d.address, d.door_note,
        d.items, d.promised_from, d.promised_to, d.contact_rule,
        order_detail__pin_sha256(new_id, new_pin), d.search
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

-- Stores a photo of an order, as its driver, from the pick-up until an hour after its end.
-- Raises DS002 for an order that is not the driver's, DS001 outside that time.
CREATE FUNCTION driver_store_photo_v1(
    of_token_sha256 bytea, of_order_id uuid, of_media_type text, with_content bytea
)
RETURNS timestamptz LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
DECLARE
    by_driver_id CONSTANT text := driver__of_token(of_token_sha256);
    at CONSTANT timestamptz := clock_timestamp();
    o record;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(of_order_id::text, 1));
    SELECT k.state, k.ended_at INTO o FROM orders k
        JOIN assignment a ON a.order_id = k.order_id AND a.assignment_no = k.assignment_no
        WHERE k.order_id = of_order_id AND a.driver_id = by_driver_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'driver % has no order %', by_driver_id, of_order_id
            USING ERRCODE = 'DS002';
    ELSIF o.state NOT IN ('picked_up', 'arriving', 'at_customer', 'delivered', 'failed')
        OR o.ended_at < at - interval '1 hour'
    THEN
        PERFORM orders__raise_illegal_transition(of_order_id, 'photo', o.state, 'driver');
    END IF;
    INSERT INTO order_photo AS p (order_id, driver_id, stored_at, media_type, content)
    VALUES (of_order_id, by_driver_id, at, of_media_type, with_content)
    ON CONFLICT (order_id) DO UPDATE SET driver_id = by_driver_id, stored_at = at,
        media_type = of_media_type, content = with_content;
    RETURN at;
END
$$;

-- The photo of an order, for staff. No row without one.
CREATE FUNCTION order_photo_v1(of_order_id uuid)
RETURNS TABLE (media_type text, content bytea, stored_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    SELECT p.media_type, p.content, p.stored_at FROM order_photo p WHERE p.order_id = of_order_id
$$;

-- The photo of a link's order. Raises DS015 for an invalid link; no row without a photo.
CREATE FUNCTION customer_photo_v1(of_token_sha256 bytea, of_order_id uuid)
RETURNS TABLE (media_type text, content bytea, stored_at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
BEGIN
    PERFORM FROM customer_links__good(ARRAY[of_token_sha256], ARRAY[of_order_id]);
    IF NOT FOUND THEN
        RAISE EXCEPTION 'this link does not lead to an order' USING ERRCODE = 'DS015';
    END IF;
    RETURN QUERY SELECT * FROM order_photo_v1(of_order_id);
END
$$;

-- Ends the way back of an order: it is at the restaurant. A repeat changes nothing. `by_id` is the
-- driver on the way, or a member of staff. Raises DS002 for any other order.
CREATE FUNCTION order_return__end(of_order_id uuid, by_role actor, by_id text)
RETURNS TABLE (order_id uuid, driver_id text, started_at timestamptz, ended_at timestamptz)
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
BEGIN
    UPDATE order_return r SET ended_at = greatest(clock_timestamp(), r.started_at),
        ended_by = by_id, ended_role = by_role
    WHERE r.order_id = of_order_id AND r.ended_at IS NULL
        AND (by_role <> 'driver' OR r.driver_id = by_id);
    RETURN QUERY SELECT r.order_id, r.driver_id, r.started_at, r.ended_at FROM order_return r
        WHERE r.order_id = of_order_id AND (by_role <> 'driver' OR r.driver_id = by_id);
    IF NOT FOUND THEN
        RAISE EXCEPTION 'order % is not on its way back', of_order_id USING ERRCODE = 'DS002';
    END IF;
END
$$;

CREATE FUNCTION driver_end_return_v1(of_token_sha256 bytea, of_order_id uuid)
RETURNS TABLE (order_id uuid, driver_id text, started_at timestamptz, ended_at timestamptz)
LANGUAGE sql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    SELECT * FROM order_return__end(of_order_id, 'driver', driver__of_token(of_token_sha256))
$$;

CREATE FUNCTION end_return_as_staff_v1(of_order_id uuid, by_name text)
RETURNS TABLE (order_id uuid, driver_id text, started_at timestamptz, ended_at timestamptz)
LANGUAGE sql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    SELECT * FROM order_return__end(of_order_id, 'staff', by_name)
$$;

-- The orders on their way back, the first one first, for staff.
CREATE FUNCTION open_returns_v1(at_most int)
RETURNS TABLE (
    order_id uuid, driver_id text, started_at timestamptz, restaurant_id int, restaurant_name text
)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    SELECT r.order_id, r.driver_id, r.started_at, o.restaurant_id, p.name
    FROM order_return r
    JOIN orders o ON o.order_id = r.order_id
    JOIN restaurant p ON p.restaurant_id = o.restaurant_id
    WHERE r.ended_at IS NULL
    ORDER BY r.started_at, r.order_id LIMIT at_most
$$;

-- What the courier's page needs besides driver_read: the name, the open orders that need a PIN, and
-- the orders to take back.
CREATE FUNCTION driver_ends_v1(of_token_sha256 bytea)
RETURNS jsonb LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    of_driver_id CONSTANT text := driver__of_token(of_token_sha256);
BEGIN
    RETURN jsonb_build_object(
        'name', (SELECT d.name FROM driver d WHERE d.driver_id = of_driver_id),
        'pin_order_ids', (
            SELECT coalesce(jsonb_agg(a.order_id), '[]') FROM assignment a
            JOIN order_detail d ON d.order_id = a.order_id AND d.pin_sha256 IS NOT NULL
            WHERE a.driver_id = of_driver_id AND a.ended_at IS NULL
        ),
        'returns', (
            SELECT coalesce(jsonb_agg(jsonb_build_object('order_id', r.order_id,
                'started_at', r.started_at, 'items', d.items,
                'restaurant', jsonb_build_object('name', p.name, 'lon_deg', p.lon_deg,
                    'lat_deg', p.lat_deg, 'address', p.address, 'phone', p.phone)
            ) ORDER BY r.started_at, r.order_id), '[]')
            FROM order_return r
            JOIN orders o ON o.order_id = r.order_id
            JOIN restaurant p ON p.restaurant_id = o.restaurant_id
            LEFT JOIN order_detail d ON d.order_id = o.order_id
            WHERE r.driver_id = of_driver_id AND r.ended_at IS NULL
        )
    );
END
$$;

-- How an order ended, and what followed, for staff. `delivery.pin` is whether the right PIN was
-- given; null for an order without one.
CREATE FUNCTION order_ends_v1(of_order_id uuid)
RETURNS jsonb LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    RETURN jsonb_build_object(
        'delivery', (
            SELECT jsonb_build_object('by', c.actor, 'note', c.note,
                'pin', (
                    SELECT c.actor = 'driver' FROM order_detail d
                    WHERE d.order_id = of_order_id AND d.pin_sha256 IS NOT NULL
                ))
            FROM order_command c WHERE c.order_id = of_order_id AND c.command = 'deliver'
        ),
        'cancellation', (
            SELECT jsonb_build_object('by', c.actor, 'reason', c.note)
            FROM order_command c WHERE c.order_id = of_order_id AND c.command = 'cancel'
        ),
        'failure_reason', (
            SELECT c.failure_reason FROM order_command c
            WHERE c.order_id = of_order_id AND c.command = 'fail'
        ),
        'has_photo', EXISTS (SELECT FROM order_photo p WHERE p.order_id = of_order_id),
        'retry_of', (SELECT r.retry_of FROM order_retry r WHERE r.order_id = of_order_id),
        'retry_order_id', (SELECT r.order_id FROM order_retry r WHERE r.retry_of = of_order_id),
        'return', (
            SELECT jsonb_build_object('driver_id', r.driver_id, 'started_at', r.started_at,
                'ended_at', r.ended_at, 'ended_by', r.ended_by)
            FROM order_return r WHERE r.order_id = of_order_id
        )
    );
END
$$;

-- What a customer reads of an order's end: the PIN until then, the reason after it (staff's words
-- for a cancellation, a failure_reason), and whether there is a photo.
CREATE FUNCTION customer_order__ends(of_order_id uuid, is_ended bool)
RETURNS jsonb LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    IF NOT is_ended THEN
        RETURN jsonb_build_object('pin', (
            SELECT p.pin FROM order_pin p WHERE p.order_id = of_order_id
        ));
    END IF;
    RETURN jsonb_build_object(
        'ended_reason', (
            SELECT coalesce(c.failure_reason::text, c.note) FROM order_command c
            WHERE c.order_id = of_order_id AND c.command IN ('cancel', 'fail')
        ),
        'photo', EXISTS (SELECT FROM order_photo p WHERE p.order_id = of_order_id)
    );
END
$$;

CREATE OR REPLACE FUNCTION orders__forget(of_orders uuid[], at timestamptz)
RETURNS int8 LANGUAGE plpgsql AS $$
DECLARE
    forgotten_count int8;
BEGIN
    UPDATE orders o SET customer_name = NULL, idempotency_key = NULL, created_by = '',
        lon_deg = r.lon_deg, lat_deg = r.lat_deg, forgotten_at = at
    FROM restaurant r
    WHERE o.order_id = ANY (of_orders) AND o.forgotten_at IS NULL
        AND r.restaurant_id = o.restaurant_id;
    GET DIAGNOSTICS forgotten_count = ROW_COUNT;
    UPDATE assignment a SET customer_lon_deg = a.restaurant_lon_deg,
        customer_lat_deg = a.restaurant_lat_deg
    WHERE a.order_id = ANY (of_orders);
    UPDATE order_command c SET idempotency_key = NULL, note = NULL,
        actor_id = CASE WHEN c.actor = 'customer' THEN 'forgotten' ELSE c.actor_id END
    WHERE c.order_id = ANY (of_orders);
    UPDATE order_offer f SET offer_key = NULL, decline_key = NULL
    WHERE f.order_id = ANY (of_orders);
    DELETE FROM order_detail d WHERE d.order_id = ANY (of_orders);
    DELETE FROM order_pin p WHERE p.order_id = ANY (of_orders);
    DELETE FROM order_pin_try t WHERE t.order_id = ANY (of_orders);
    DELETE FROM order_photo p WHERE p.order_id = ANY (of_orders);
    -- A pickup place may be a person's home. The assignments keep its position, for the evidence.
    UPDATE restaurant r SET name = 'forgotten', address = NULL, phone = NULL
    WHERE r.is_ad_hoc AND r.restaurant_id = ANY (ARRAY(
        SELECT o.restaurant_id FROM orders o WHERE o.order_id = ANY (of_orders)
    ));
    DELETE FROM access_token t WHERE t.order_id = ANY (of_orders);
    DELETE FROM order_watch w WHERE w.order_id = ANY (of_orders);
    RETURN forgotten_count;
END
$$;

CREATE OR REPLACE FUNCTION orders__forget_people(of_orders uuid[], of_driver_id text)
RETURNS int8 LANGUAGE plpgsql AS $$
DECLARE
    a assignment;
    forgotten_count int8 := 0;
BEGIN
    INSERT INTO driver (driver_id, name) VALUES ('forgotten', 'forgotten') ON CONFLICT DO NOTHING;
    FOR a IN
        SELECT * FROM assignment t WHERE t.order_id = ANY (of_orders)
            AND t.driver_id = coalesce(of_driver_id, t.driver_id) AND t.driver_id <> 'forgotten'
        ORDER BY t.order_id, t.assignment_no
    LOOP
        WHILE EXISTS (SELECT FROM assignment t
            WHERE t.driver_id = 'forgotten' AND t.assigned_at = a.assigned_at)
        LOOP  -- two windows that began in one microsecond
            a.assigned_at := a.assigned_at - interval '1 microsecond';
        END LOOP;
        UPDATE assignment t SET driver_id = 'forgotten', assigned_at = a.assigned_at
            WHERE t.order_id = a.order_id AND t.assignment_no = a.assignment_no;
        forgotten_count := forgotten_count + 1;
    END LOOP;
    UPDATE order_event e SET driver_id = 'forgotten'
        WHERE e.order_id = ANY (of_orders) AND e.driver_id = coalesce(of_driver_id, e.driver_id);
    UPDATE order_command c SET
        actor_id = CASE WHEN c.actor_id = coalesce(of_driver_id, c.actor_id)
            THEN 'forgotten' ELSE c.actor_id END,
        driver_id = CASE WHEN c.driver_id = coalesce(of_driver_id, c.driver_id)
            THEN 'forgotten' ELSE c.driver_id END
    WHERE c.order_id = ANY (of_orders);
    UPDATE order_pin p SET given_by = 'forgotten'
        WHERE p.order_id = ANY (of_orders) AND p.given_by = coalesce(of_driver_id, p.given_by);
    DELETE FROM order_pin_try t
        WHERE t.order_id = ANY (of_orders) AND t.driver_id = coalesce(of_driver_id, t.driver_id);
    UPDATE order_photo p SET driver_id = 'forgotten'
        WHERE p.order_id = ANY (of_orders) AND p.driver_id = coalesce(of_driver_id, p.driver_id);
    UPDATE order_return r SET driver_id = 'forgotten',
        ended_at = coalesce(r.ended_at, greatest(r.started_at, clock_timestamp())),
        ended_by = 'forgotten', ended_role = coalesce(r.ended_role, 'driver')
    WHERE r.order_id = ANY (of_orders) AND r.driver_id = coalesce(of_driver_id, r.driver_id);
    IF of_driver_id IS NULL THEN  -- forget_driver_v1 deletes one driver's
        DELETE FROM order_offer f WHERE f.order_id = ANY (of_orders);
    END IF;
    RETURN forgotten_count;
END
$$;

CREATE OR REPLACE FUNCTION retention__expire(of_kind text, at_most int, as_of timestamptz)
RETURNS int8 LANGUAGE plpgsql
SET enable_mergejoin = off
AS $$
DECLARE
    before CONSTANT timestamptz := retention__before(of_kind, as_of);
    expired_count int8;
    of_orders uuid[];
    of_drivers text[];
BEGIN
    IF of_kind = 'orders' THEN
        of_orders := ARRAY(
            SELECT o.order_id FROM orders o WHERE o.ended_at < before AND o.forgotten_at IS NULL
            ORDER BY o.ended_at LIMIT at_most FOR NO KEY UPDATE SKIP LOCKED
        );
        RETURN orders__forget(of_orders, as_of);
    ELSIF of_kind = 'commands' THEN
        DELETE FROM driver_command c WHERE c.ctid = ANY (ARRAY(
            SELECT k.ctid FROM driver_command k
            WHERE k.commanded_at < before AND EXISTS (  -- the last one says who was on duty then
                SELECT FROM driver_command n
                WHERE n.driver_id = k.driver_id AND n.commanded_at < before
                    AND (n.commanded_at, n.driver_command_id)
                        > (k.commanded_at, k.driver_command_id)
            )
            LIMIT at_most
        ));
        GET DIAGNOSTICS expired_count = ROW_COUNT;
        of_orders := ARRAY(
            SELECT DISTINCT f.order_id FROM (
                SELECT a.order_id FROM assignment a
                JOIN orders o ON o.order_id = a.order_id AND o.ended_at < before
                WHERE a.ended_at < before AND a.driver_id <> 'forgotten'
                ORDER BY a.ended_at LIMIT at_most
            ) f
        );
        RETURN expired_count + orders__forget_people(of_orders, NULL);
    ELSIF of_kind = 'tokens' THEN
        -- A token without expires_at that was revoked must not be registered again: staff's stay.
        DELETE FROM access_token t WHERE t.token_sha256 = ANY (ARRAY(
            SELECT k.token_sha256 FROM access_token k LEFT JOIN orders o ON o.order_id = k.order_id
            WHERE CASE k.role WHEN 'staff' THEN k.expires_at < before
                ELSE coalesce(k.revoked_at < before, false) OR coalesce(o.ended_at < before, false)
                END
            LIMIT at_most
        ));
    ELSIF of_kind = 'clocks' THEN
        DELETE FROM driver_clock c WHERE c.ctid = ANY (ARRAY(
            SELECT k.ctid FROM driver_clock k WHERE k.hour < before LIMIT at_most
        ));
    ELSIF of_kind = 'contacts' THEN
        UPDATE driver d SET name = d.driver_id, vehicle = NULL, phone = NULL
        WHERE d.driver_id = ANY (ARRAY(
            SELECT k.driver_id FROM driver k JOIN device_credential c ON c.device_id = k.driver_id
            WHERE c.removed_at < before
                AND (k.name, k.vehicle, k.phone) IS DISTINCT FROM (k.driver_id, NULL, NULL)
            LIMIT at_most
        ));
    ELSIF of_kind = 'photos' THEN
        DELETE FROM order_photo p WHERE p.order_id = ANY (ARRAY(
            SELECT k.order_id FROM order_photo k WHERE k.stored_at < before
            ORDER BY k.stored_at LIMIT at_most
        ));
    ELSIF of_kind = 'audit' THEN
        DELETE FROM audit c WHERE c.audit_id = ANY (ARRAY(
            SELECT k.audit_id FROM audit k WHERE k.at < before ORDER BY k.at LIMIT at_most
        ));
    ELSIF of_kind = 'positions' THEN
        -- the newest position of a driver is kept as long as the history
        of_drivers := ARRAY(
            SELECT d.driver_id FROM driver_state d
            WHERE d.fix_at < as_of - make_interval(days => (SELECT l.history_days FROM limits l))
            LIMIT at_most FOR NO KEY UPDATE SKIP LOCKED
        );
        PERFORM driver_state__forget_position(of_drivers);
        RETURN cardinality(of_drivers);
    ELSE
        RAISE EXCEPTION 'there is no kind %', of_kind USING ERRCODE = '22023';
    END IF;
    GET DIAGNOSTICS expired_count = ROW_COUNT;
    RETURN expired_count;
END
$$;

CREATE OR REPLACE FUNCTION customer_order__details(of_order_id uuid)
RETURNS text LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    RETURN (
        SELECT json_build_array(o.state, o.assignment_no, o.order_seq, r.name, r.lon_deg, r.lat_deg,
            o.lon_deg, o.lat_deg, p.dwell_min_s, p.pace, a.assigned_at, (
                SELECT coalesce(json_agg(json_build_array(e.order_seq, e.state, e.source,
                    coalesce(g.occurred_at, e.occurred_at), e.assignment_no) ORDER BY e.order_seq
                ), '[]')
                FROM order_event e
                LEFT JOIN evidence g ON g.order_id = e.order_id
                    AND g.assignment_no = e.assignment_no AND g.state = e.state
                    AND g.source = e.source
                WHERE e.order_id = o.order_id
            ), r.city, customer_order__ends(o.order_id, o.ended_at IS NOT NULL))
        FROM orders o
        JOIN restaurant r ON r.restaurant_id = o.restaurant_id
        JOIN policy p ON p.policy_id = o.policy_id
        LEFT JOIN assignment a ON a.order_id = o.order_id AND a.assignment_no = o.assignment_no
            AND upper_inf(a.visible)
        WHERE o.order_id = of_order_id
    );
END
$$;

REVOKE EXECUTE ON FUNCTION
    create_order_v4, order_pin__draw, order_command__is_new, order_command__describe,
    order_pin__check, order_command__guard_pin, driver_deliver_order_v1, end_order_as_staff_v1,
    fail_order_as_staff_v2, driver_fail_order_v2, order__take_next_step, order__retry,
    driver_store_photo_v1, order_photo_v1, customer_photo_v1, order_return__end,
    driver_end_return_v1, end_return_as_staff_v1, open_returns_v1, driver_ends_v1,
    order_ends_v1, customer_order__ends
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    driver_deliver_order_v1, driver_fail_order_v2, driver_store_photo_v1, driver_end_return_v1,
    driver_ends_v1
TO driver_api;
GRANT EXECUTE ON FUNCTION
    create_order_v4, end_order_as_staff_v1, fail_order_as_staff_v2, order_photo_v1,
    end_return_as_staff_v1, open_returns_v1, order_ends_v1
TO tracking_api;
GRANT EXECUTE ON FUNCTION customer_photo_v1 TO customer;
