-- Photos of deliveries, the way back of failed orders, and how an order's end is read.

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
