-- What driver_api may execute for a driver. Each function takes the hash of the driver's token, and
-- reads and commands as that driver only. Raises DS026 for any other token.

CREATE FUNCTION driver__of_token(of_token_sha256 bytea)
RETURNS text LANGUAGE plpgsql STABLE
AS $$
DECLARE
    found_id text;
BEGIN
    SELECT t.driver_id INTO found_id FROM access_token t
        WHERE t.token_sha256 = of_token_sha256 AND t.role = 'driver' AND t.revoked_at IS NULL
            AND (t.expires_at IS NULL OR clock_timestamp() < t.expires_at);
    IF found_id IS NULL THEN
        RAISE EXCEPTION 'this token is not a driver''s' USING ERRCODE = 'DS026';
    END IF;
    RETURN found_id;
END
$$;

-- The driver, and the order of the next stop with its two places, or nulls.
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
    LEFT JOIN assignment a ON a.driver_id = s.driver_id AND a.ended_at IS NULL AND a.stop_no = 1
    LEFT JOIN orders o ON o.order_id = a.order_id
    LEFT JOIN restaurant r ON r.restaurant_id = o.restaurant_id
    WHERE s.driver_id = driver__of_token(of_token_sha256)
$$;

-- The driver, the order of the next stop with what its courier may see, or null, and the open
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
    LEFT JOIN assignment a ON a.driver_id = s.driver_id AND a.ended_at IS NULL AND a.stop_no = 1
    WHERE s.driver_id = of_driver_id;
END
$$;

-- The open orders of the driver of a token, the next stop first, each with what its courier may
-- see, as current_order of driver_read_v2.
CREATE FUNCTION driver_read_stops_v1(of_token_sha256 bytea)
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
