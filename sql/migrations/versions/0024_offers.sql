-- Offers of orders to drivers, details of orders, reasons of failures.

SET LOCAL search_path = doorstep, public;
SET LOCAL check_function_bodies = off;  -- functions may refer to objects that are created later

CREATE TYPE offer_outcome AS ENUM (
    'accepted',   -- open -> accepted: the driver accepts, which assigns the order
    'declined',   -- open -> declined: the driver declines
    'expired',    -- open -> expired: policy.offer_s have passed
    'withdrawn'   -- open -> withdrawn: the order is assigned or cancelled, or the driver is busy
);

-- How the courier may reach the customer: whether the phone number is shown, and for what.
CREATE TYPE contact_rule AS ENUM ('none', 'call', 'text', 'any');

CREATE TYPE failure_reason AS ENUM (
    'customer_absent', 'wrong_address', 'refused', 'damaged', 'accident', 'other'
);

-- What create_order_v3 takes of an order besides its places, as JSON: a row of order_detail.
CREATE TYPE order_details AS (
    external_id text,
    customer_phone text,
    customer_language text,
    address text,
    door_note text,
    items text,
    ready_at timestamptz,
    scheduled_for timestamptz,
    promised_from timestamptz,
    promised_to timestamptz,
    contact_rule contact_rule,
    pin text
);

ALTER TABLE policy
    ADD COLUMN offer_s float8 NOT NULL DEFAULT 45 CHECK (offer_s BETWEEN 1 AND 3600),
    ADD COLUMN auto_offer bool NOT NULL DEFAULT false;
ALTER TABLE restaurant
    ADD COLUMN IF NOT EXISTS address text,
    ADD COLUMN IF NOT EXISTS phone text,
    ADD COLUMN is_ad_hoc bool NOT NULL DEFAULT false;
CREATE SEQUENCE ad_hoc_restaurant_id AS int START WITH 2000000000;
ALTER TABLE order_command
    ADD COLUMN failure_reason failure_reason,
    ADD COLUMN note text;

-- What an order says of its customer and its times. Written once, so a change of state does not
-- copy it.
CREATE TABLE order_detail (
    order_id uuid PRIMARY KEY REFERENCES orders,
    created_by text NOT NULL,  -- as orders.created_by
    external_id text,
    customer_phone text,
    customer_language text,
    address text,
    door_note text,
    items text,
    ready_at timestamptz,
    scheduled_for timestamptz,
    promised_from timestamptz,
    promised_to timestamptz,
    contact_rule contact_rule NOT NULL DEFAULT 'none',
    pin_sha256 bytea CHECK (octet_length(pin_sha256) = 32),  -- of order_id, ':' and the PIN
    search tsvector NOT NULL,  -- the words of the texts above, and of orders.customer_name
    CONSTRAINT promised_window CHECK (promised_to >= promised_from)
);
CREATE UNIQUE INDEX order_detail_external_id ON order_detail (created_by, external_id)
WHERE external_id IS NOT NULL;
CREATE INDEX order_detail_search ON order_detail USING gin (search);

-- The same with the details that staff sees.
CREATE VIEW order_with_details AS
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

-- An offer is open while ended_at is null, and can be accepted until expires_at. Accepting it is a
-- command of the order. A driver may have several open offers, an order has one at most.
CREATE TABLE order_offer (
    order_offer_id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    order_id uuid NOT NULL REFERENCES orders,
    driver_id text COLLATE "C" NOT NULL REFERENCES driver,
    offered_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL CHECK (expires_at > offered_at),
    ended_at timestamptz CHECK (ended_at >= offered_at),
    outcome offer_outcome,
    offered_by text,  -- a member of staff; null: the policy
    offer_key text,  -- the idempotency key of offered_by
    decline_key text,  -- the idempotency key of the driver
    CHECK ((ended_at IS NULL) = (outcome IS NULL)),
    UNIQUE (order_id, offered_by, offer_key)
);
CREATE UNIQUE INDEX order_offer_one_open ON order_offer (order_id) WHERE ended_at IS NULL;
CREATE INDEX order_offer_due ON order_offer (expires_at) WHERE ended_at IS NULL;
CREATE INDEX order_offer_driver ON order_offer (driver_id, ended_at);

-- Confirmed orders whose offers have all ended, with no driver left to offer them to.
CREATE TABLE unassigned_order (
    order_id uuid PRIMARY KEY REFERENCES orders,
    since timestamptz NOT NULL,
    checked_at timestamptz NOT NULL  -- when a driver was last looked for
);

INSERT INTO order_transition (from_state, to_state, via, command, actor)
VALUES ('confirmed', 'assigned', 'command', 'assign', 'driver');

-- Names of present orders are found, too.
INSERT INTO order_detail (order_id, created_by, search)
SELECT order_id, created_by, to_tsvector('simple', customer_name)
FROM orders WHERE customer_name IS NOT NULL;

-- Creates an order with details, as create_order_v2. The pickup is a restaurant, or at_pickup: a
-- place {name, address, lon_deg, lat_deg, phone} for this order alone. Raises DS032 for an
-- external_id that by_name has used before.
CREATE FUNCTION create_order_v3(
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
        IF (k.external_id, k.customer_phone, k.customer_language, k.address, k.door_note, k.items,
            k.ready_at, k.scheduled_for, k.promised_from, k.promised_to,
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

CREATE FUNCTION order_detail__pin_sha256(of_order_id uuid, pin text)
RETURNS bytea LANGUAGE sql IMMUTABLE
RETURN sha256(convert_to(of_order_id || ':' || pin, 'UTF8'));

-- The pickup place of one order, as a row of restaurant: that of the order that by_name created
-- under this key, or a new one. Requests with one key are serialized.
CREATE FUNCTION restaurant__ad_hoc(pickup jsonb, by_name text, with_idempotency_key text)
RETURNS int LANGUAGE plpgsql
AS $$
DECLARE
    r restaurant;
    new_id int;
BEGIN
    IF with_idempotency_key IS NOT NULL THEN
        PERFORM pg_advisory_xact_lock(
            hashtextextended(concat_ws(' ', by_name, with_idempotency_key), 2));
        SELECT p.* INTO r FROM orders o JOIN restaurant p ON p.restaurant_id = o.restaurant_id
            WHERE o.created_by = coalesce(by_name, '') AND o.idempotency_key = with_idempotency_key;
        IF FOUND THEN
            IF (r.is_ad_hoc, r.name, r.address, r.phone, r.lon_deg, r.lat_deg) IS DISTINCT FROM
                (true, pickup ->> 'name', pickup ->> 'address', pickup ->> 'phone',
                (pickup ->> 'lon_deg')::float8, (pickup ->> 'lat_deg')::float8)
            THEN
                RAISE EXCEPTION 'this key made another order' USING ERRCODE = 'DS008';
            END IF;
            RETURN r.restaurant_id;
        END IF;
    END IF;
    INSERT INTO restaurant (restaurant_id, name, address, phone, lon_deg, lat_deg, is_ad_hoc)
    VALUES (nextval('ad_hoc_restaurant_id'), pickup ->> 'name', pickup ->> 'address',
        pickup ->> 'phone', (pickup ->> 'lon_deg')::float8, (pickup ->> 'lat_deg')::float8, true)
    RETURNING restaurant_id INTO new_id;
    RETURN new_id;
END
$$;

-- Records why an order failed, with the command that has just failed it. Raises DS008 if the
-- command was given before for another reason.
CREATE FUNCTION order_command__set_failure(of_order_id uuid, with_reason text, with_note text)
RETURNS void LANGUAGE plpgsql
AS $$
DECLARE
    c order_command;
BEGIN
    SELECT * INTO STRICT c FROM order_command k
        WHERE k.order_id = of_order_id AND k.command = 'fail';
    IF c.failure_reason IS NULL THEN
        UPDATE order_command k SET failure_reason = with_reason::failure_reason, note = with_note
            WHERE k.order_command_id = c.order_command_id;
    ELSIF (c.failure_reason, c.note)
        IS DISTINCT FROM (with_reason::failure_reason, with_note)
    THEN
        RAISE EXCEPTION 'this key failed the order for another reason' USING ERRCODE = 'DS008';
    END IF;
END
$$;

-- Fails an order for a reason, as a member of staff.
CREATE FUNCTION fail_order_as_staff_v1(
    of_order_id uuid, by_name text, with_reason text, with_note text, with_idempotency_key text
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
BEGIN
    RETURN QUERY SELECT * FROM apply_order_command_v1(
        of_order_id, 'fail', 'staff', by_name, NULL, with_idempotency_key);
    PERFORM order_command__set_failure(of_order_id, with_reason, with_note);
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
            -- the windows of a driver never overlap, even if the clock is set back
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
        PERFORM evidence__derive(ARRAY[of_order_id], ARRAY[target_no], false);
        PERFORM orders__apply_evidence(ARRAY[of_order_id]);
    END IF;
    RETURN QUERY SELECT * FROM order_now WHERE order_id = of_order_id;
END
$$;

-- Makes orders anonymous: the destination becomes the restaurant's place, and links end. Evidence
-- and states stay. Returns the number of orders that were not anonymous.
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

-- Replaces the people who carried and commanded orders by `forgotten`: all of them, or one driver.
-- The orders have ended. Returns the number of assignments.
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
    IF of_driver_id IS NULL THEN  -- forget_driver_v1 deletes one driver's
        DELETE FROM order_offer f WHERE f.order_id = ANY (of_orders);
    END IF;
    RETURN forgotten_count;
END
$$;

-- Erases a driver: what tells of them is deleted, and orders name `forgotten` instead. The id stays
-- in device_credential, so that it is never used again, and in the audit. Returns the number of
-- rows per table. Raises DS003 for an unknown driver, and DS016 if an order of theirs is open.
CREATE OR REPLACE FUNCTION forget_driver_v1(of_driver_id text, by_who text)
RETURNS TABLE (table_name text, what text, row_count int8)
LANGUAGE plpgsql
SET search_path = doorstep, public, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    open_order uuid;
    of_orders uuid[];
    name_of_table text;
    deleted_count int8;
BEGIN
    -- Compaction holds this row while it packs: a chunk that it has just written is deleted too.
    PERFORM FROM history_bounds FOR UPDATE;
    PERFORM FROM driver_state d WHERE d.driver_id = of_driver_id FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no driver %', of_driver_id USING ERRCODE = 'DS003';
    END IF;
    SELECT a.order_id INTO open_order FROM assignment a
        WHERE a.driver_id = of_driver_id AND a.ended_at IS NULL LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION '% has the open order %: reassign, cancel or fail it first', of_driver_id,
            open_order USING ERRCODE = 'DS016';
    END IF;
    PERFORM FROM change_device_v2('driver', of_driver_id, 'remove', NULL, NULL, NULL);
    UPDATE device_credential c SET forgotten_at = clock_timestamp()
        WHERE c.device_id = of_driver_id;

    of_orders := ARRAY(
        SELECT c.order_id FROM order_command c
        WHERE c.driver_id = of_driver_id OR c.actor_id = of_driver_id
        UNION SELECT a.order_id FROM assignment a WHERE a.driver_id = of_driver_id
    );
    RETURN QUERY SELECT 'assignment', 'names `forgotten`',
        orders__forget_people(of_orders, of_driver_id);
    DELETE FROM outbox o
        WHERE o.topic = 'dead-letter' AND o.key = convert_to(of_driver_id, 'UTF8');
    GET DIAGNOSTICS deleted_count = ROW_COUNT;
    RETURN QUERY SELECT 'outbox', 'deleted', deleted_count;
    FOREACH name_of_table IN ARRAY ARRAY[
        'fix_history', 'fix_chunk', 'parked_fix', 'driver_cell', 'driver_clock', 'driver_command',
        'driver_pace', 'driver_quota', 'driver_sampling', 'boot_seq_block', 'boot_seqs',
        'access_token', 'invitation', 'order_offer', 'driver_state', 'driver'
    ] LOOP
        EXECUTE format('DELETE FROM %I WHERE driver_id = $1', name_of_table) USING of_driver_id;
        GET DIAGNOSTICS deleted_count = ROW_COUNT;
        RETURN QUERY SELECT name_of_table, 'deleted', deleted_count;
    END LOOP;
    -- What their device published as a source. In ASCII, '0' follows '/'.
    DELETE FROM series_point p USING series s
        WHERE s.name >= of_driver_id || '/' AND s.name < of_driver_id || '0'
            AND p.series_no = s.series_no;
    GET DIAGNOSTICS deleted_count = ROW_COUNT;
    RETURN QUERY SELECT 'series_point', 'deleted', deleted_count;
    DELETE FROM series s WHERE s.name >= of_driver_id || '/' AND s.name < of_driver_id || '0';
    GET DIAGNOSTICS deleted_count = ROW_COUNT;
    RETURN QUERY SELECT 'series', 'deleted', deleted_count;
    PERFORM record_audit_v1(by_who, 'driver.forget', of_driver_id, NULL);
END
$$;

-- The driver, the order of the open assignment with what its courier may see, or null, and the open
-- offers: without the customer's place.
CREATE FUNCTION driver_read_v2(of_token_sha256 bytea)
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
    LEFT JOIN assignment a ON a.driver_id = s.driver_id AND a.ended_at IS NULL
    WHERE s.driver_id = of_driver_id;
END
$$;

-- Fails an order for a reason.
CREATE FUNCTION driver_fail_order_v1(
    of_token_sha256 bytea, of_order_id uuid, with_reason text, with_note text,
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
BEGIN
    RETURN QUERY SELECT * FROM driver_command_order_v1(
        of_token_sha256, of_order_id, 'fail', with_idempotency_key);
    PERFORM order_command__set_failure(of_order_id, with_reason, with_note);
END
$$;

-- The nearest available driver who was not offered the order and never had it, or null.
CREATE FUNCTION order_offer__next_driver(o orders)
RETURNS text LANGUAGE plpgsql
AS $$
DECLARE
    found_id text;
    at_most int;
BEGIN
    -- The few nearest are found in a small box; the others count only if none of these is left.
    FOREACH at_most IN ARRAY ARRAY[5, 100] LOOP
        SELECT n.driver_id INTO found_id FROM restaurant r
            CROSS JOIN LATERAL nearest_drivers_v1(r.lon_deg, r.lat_deg, at_most) n
            WHERE r.restaurant_id = o.restaurant_id
                AND NOT EXISTS (SELECT FROM order_offer f
                    WHERE f.order_id = o.order_id AND f.driver_id = n.driver_id)
                AND NOT EXISTS (SELECT FROM assignment a
                    WHERE a.order_id = o.order_id AND a.driver_id = n.driver_id)
            ORDER BY n.distance_m, n.driver_id LIMIT 1;
        EXIT WHEN FOUND;
    END LOOP;
    RETURN found_id;
END
$$;

CREATE FUNCTION order_offer__open(o orders, to_driver_id text, by_name text, with_key text)
RETURNS order_offer LANGUAGE plpgsql
AS $$
DECLARE
    at CONSTANT timestamptz := clock_timestamp();
    opened order_offer;
BEGIN
    INSERT INTO order_offer (order_id, driver_id, offered_at, expires_at, offered_by, offer_key)
    SELECT o.order_id, to_driver_id, at, at + make_interval(secs => p.offer_s), by_name, with_key
    FROM policy p WHERE p.policy_id = o.policy_id
    RETURNING * INTO opened;
    DELETE FROM unassigned_order u WHERE u.order_id = o.order_id;
    RETURN opened;
END
$$;

-- Ends the open offer of an order that leaves the state `confirmed`.
CREATE FUNCTION order_offer__end_with_state(of_order_id uuid, by_actor actor, at timestamptz)
RETURNS void LANGUAGE plpgsql
AS $$
BEGIN
    UPDATE order_offer f SET ended_at = greatest(at, f.offered_at), outcome = CASE
            WHEN by_actor = 'driver' THEN 'accepted'
            WHEN f.expires_at <= at THEN 'expired'
            ELSE 'withdrawn'
        END::offer_outcome
        WHERE f.order_id = of_order_id AND f.ended_at IS NULL;
    DELETE FROM unassigned_order u WHERE u.order_id = of_order_id;
END
$$;

-- Offers a confirmed order without an open offer to the next driver, if its policy says so. Lists
-- it as unassigned if there is no next one.
CREATE FUNCTION order_offer__continue(of_order_id uuid)
RETURNS void LANGUAGE plpgsql
AS $$
DECLARE
    o orders;
    next_driver_id text;
    at CONSTANT timestamptz := clock_timestamp();
BEGIN
    SELECT * INTO o FROM orders k WHERE k.order_id = of_order_id AND k.state = 'confirmed';
    IF NOT FOUND OR EXISTS (
        SELECT FROM order_offer f WHERE f.order_id = of_order_id AND f.ended_at IS NULL
    ) THEN
        RETURN;
    END IF;
    IF (SELECT p.auto_offer FROM policy p WHERE p.policy_id = o.policy_id) THEN
        next_driver_id := order_offer__next_driver(o);
    END IF;
    IF next_driver_id IS NULL THEN
        INSERT INTO unassigned_order (order_id, since, checked_at) VALUES (of_order_id, at, at)
        ON CONFLICT (order_id) DO UPDATE SET checked_at = at;
    ELSE
        PERFORM order_offer__open(o, next_driver_id, NULL, NULL);
    END IF;
END
$$;

-- Returns the newest offer of an order to a driver. Raises DS002 if there is none, DS030 if it is
-- not open.
CREATE FUNCTION order_offer__of_driver(of_order_id uuid, to_driver_id text)
RETURNS order_offer LANGUAGE plpgsql
AS $$
DECLARE
    newest order_offer;
BEGIN
    SELECT * INTO newest FROM order_offer f
        WHERE f.order_id = of_order_id AND f.driver_id = to_driver_id
        ORDER BY f.order_offer_id DESC LIMIT 1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'driver % has no offer of order %', to_driver_id, of_order_id
            USING ERRCODE = 'DS002';
    ELSIF newest.ended_at IS NULL AND newest.expires_at > clock_timestamp() THEN
        RETURN newest;
    END IF;
    RAISE EXCEPTION USING ERRCODE = 'DS030', MESSAGE = CASE newest.outcome
        WHEN 'accepted' THEN 'you have accepted this offer already'
        WHEN 'declined' THEN 'you have declined this offer'
        WHEN 'withdrawn' THEN 'this offer was withdrawn'
        ELSE 'this offer has expired'
    END;
END
$$;

-- Offers a confirmed order to an available driver: the named one, or the nearest who was not
-- offered it yet. Raises DS031 if it has an open offer.
CREATE FUNCTION offer_order_as_staff_v1(
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
        SELECT s.state = 'available' INTO is_free FROM driver_state s
            WHERE s.driver_id = to_driver_id;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'there is no driver %', to_driver_id USING ERRCODE = 'DS003';
        ELSIF NOT is_free THEN
            RAISE EXCEPTION 'driver % is off duty or has an order', to_driver_id
                USING ERRCODE = 'DS006';
        END IF;
    END IF;
    PERFORM record_audit_v1(by_name, 'order.offer', of_order_id::text,
        jsonb_build_object('driver_id', to_driver_id));
    RETURN NEXT order_offer__open(o, to_driver_id, by_name, with_idempotency_key);
END
$$;

-- Accepts an open offer, which assigns the order, for an available driver.
CREATE FUNCTION driver_accept_offer_v1(
    of_token_sha256 bytea, of_order_id uuid, with_idempotency_key text
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
#variable_conflict use_column
DECLARE
    by_driver_id CONSTANT text := driver__of_token(of_token_sha256);
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(of_order_id::text, 1));
    IF EXISTS (SELECT FROM order_offer f WHERE f.order_id = of_order_id
        AND f.driver_id = by_driver_id AND f.decline_key = with_idempotency_key)
    THEN
        RAISE EXCEPTION 'this key declined the offer' USING ERRCODE = 'DS008';
    ELSIF NOT EXISTS (SELECT FROM order_command k WHERE k.order_id = of_order_id
        AND k.actor = 'driver' AND k.actor_id = by_driver_id
        AND k.idempotency_key = with_idempotency_key)
    THEN
        PERFORM order_offer__of_driver(of_order_id, by_driver_id);
    END IF;
    RETURN QUERY
        SELECT c.order_id, c.state, c.assignment_no, c.order_seq, c.driver_id
        FROM apply_order_command_v1(of_order_id, 'assign', 'driver', by_driver_id, by_driver_id,
            with_idempotency_key) c;
END
$$;

-- Declines an open offer. The next driver is offered the order, if its policy says so.
CREATE FUNCTION driver_decline_offer_v1(
    of_token_sha256 bytea, of_order_id uuid, with_idempotency_key text
)
RETURNS SETOF order_offer LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
SET enable_hashjoin = off  -- every join is a look-up by key
SET enable_mergejoin = off
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    by_driver_id CONSTANT text := driver__of_token(of_token_sha256);
    offer order_offer;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(of_order_id::text, 1));
    SELECT * INTO offer FROM order_offer f WHERE f.order_id = of_order_id
        AND f.driver_id = by_driver_id AND f.decline_key = with_idempotency_key;
    IF FOUND THEN
        RETURN NEXT offer;
        RETURN;
    ELSIF EXISTS (SELECT FROM order_command k WHERE k.order_id = of_order_id
        AND k.actor = 'driver' AND k.actor_id = by_driver_id
        AND k.idempotency_key = with_idempotency_key)
    THEN
        RAISE EXCEPTION 'this key was used for a command' USING ERRCODE = 'DS008';
    END IF;
    offer := order_offer__of_driver(of_order_id, by_driver_id);
    UPDATE order_offer f
        SET ended_at = greatest(clock_timestamp(), f.offered_at), outcome = 'declined',
            decline_key = with_idempotency_key
        WHERE f.order_offer_id = offer.order_offer_id
        RETURNING * INTO offer;
    PERFORM order_offer__continue(of_order_id);
    RETURN NEXT offer;
END
$$;

-- Ends offers that have expired or whose driver is no longer available, and makes the next ones.
-- Skips an order while a command holds it. Returns the number of orders.
CREATE FUNCTION order_offer__advance_v1(at_most int)
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
        WHERE f.ended_at IS NULL AND s.state <> 'available'
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
                AND (f.expires_at <= clock_timestamp() OR EXISTS (SELECT FROM driver_state s
                    WHERE s.driver_id = f.driver_id AND s.state <> 'available'));
        PERFORM order_offer__continue(due_order_id);
        advanced_count := advanced_count + 1;
    END LOOP;
    RETURN advanced_count;
END
$$;

REVOKE EXECUTE ON FUNCTION
    create_order_v3,
    driver_accept_offer_v1,
    driver_decline_offer_v1,
    driver_fail_order_v1,
    driver_read_v2,
    fail_order_as_staff_v1,
    offer_order_as_staff_v1,
    order_command__set_failure,
    order_detail__pin_sha256,
    order_offer__advance_v1,
    order_offer__continue,
    order_offer__end_with_state,
    order_offer__next_driver,
    order_offer__of_driver,
    order_offer__open,
    restaurant__ad_hoc
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION order_offer__advance_v1 TO driver_events;
GRANT EXECUTE ON FUNCTION
    driver_read_v2, driver_fail_order_v1, driver_accept_offer_v1, driver_decline_offer_v1
TO driver_api;
GRANT EXECUTE ON FUNCTION
    create_order_v3, fail_order_as_staff_v1, offer_order_as_staff_v1
TO tracking_api;
GRANT SELECT ON order_with_details, unassigned_order TO tracking_api;
GRANT SELECT (order_id, search) ON order_detail TO tracking_api;
GRANT SELECT (order_offer_id, order_id, driver_id, offered_at, expires_at, ended_at, outcome)
ON order_offer TO tracking_api;
