-- Orders with details: the customer, the address, the times, any pickup place; why one failed.

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
