-- What a restaurant sees and does. Each function takes the token of a member of its staff, and
-- reaches the orders of their restaurant only. No other function accepts such a token, because
-- find_token_v2 does not return it.

-- The member of a restaurant's staff whose token this is; no row if it is not good.
CREATE FUNCTION restaurant_staff__of(of_token_sha256 bytea)
RETURNS TABLE (name text, restaurant_id int, expires_at timestamptz, is_session bool)
LANGUAGE sql STABLE ROWS 1
AS $$
    SELECT s.name, s.restaurant_id, t.expires_at, t.is_session
    FROM access_token t JOIN staff s ON s.name = t.name
    WHERE t.token_sha256 = of_token_sha256 AND t.role = 'staff' AND t.revoked_at IS NULL
        AND s.revoked_at IS NULL AND s.role = 'restaurant' AND s.restaurant_id IS NOT NULL
        AND (t.expires_at IS NULL OR clock_timestamp() < t.expires_at)
$$;

-- Opens a session as open_staff_session_v1, for the staff of restaurants too.
CREATE FUNCTION open_staff_session_v2(
    of_token_sha256 bytea, session_sha256 bytea, lifetime_s float8
)
RETURNS TABLE (name text, role text, expires_at timestamptz)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    holder record;
BEGIN
    RETURN QUERY SELECT * FROM open_staff_session_v1(of_token_sha256, session_sha256, lifetime_s);
    IF FOUND THEN
        RETURN;
    END IF;
    -- Locked, so that a revocation at the same time also ends this session.
    PERFORM FROM staff s JOIN access_token t ON t.name = s.name
        WHERE t.token_sha256 = of_token_sha256 FOR SHARE OF s;
    SELECT s.name, least(s.expires_at, clock_timestamp() + make_interval(secs => lifetime_s))
            AS expires_at INTO holder
        FROM restaurant_staff__of(of_token_sha256) s WHERE NOT s.is_session;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    DELETE FROM access_token t WHERE t.name = holder.name AND t.is_session
        AND (t.revoked_at IS NOT NULL OR t.expires_at < clock_timestamp());
    INSERT INTO access_token (token_sha256, role, name, expires_at, is_session)
    VALUES (session_sha256, 'staff', holder.name, holder.expires_at, true);
    PERFORM record_audit_v1(holder.name, 'staff.sign_in', holder.name, NULL);
    RETURN QUERY SELECT holder.name, 'restaurant', holder.expires_at;
END
$$;

-- Whose token this is, and their restaurant; no row if it is not good.
CREATE FUNCTION restaurant_session_v1(of_token_sha256 bytea)
RETURNS TABLE (
    name text, restaurant_id int, restaurant_name text, city text, time_zone text, lon_deg float8,
    lat_deg float8, preparation_s int
)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    SELECT s.name, r.restaurant_id, r.name, r.city, coalesce(a.time_zone, 'UTC'), r.lon_deg,
        r.lat_deg, r.preparation_s
    FROM restaurant_staff__of(of_token_sha256) s
    JOIN restaurant r ON r.restaurant_id = s.restaurant_id
    LEFT JOIN service_area a ON a.name = r.city
$$;

-- The restaurant's view of its orders: open ones, and those that ended within ended_within_s; or
-- one of them. A courier is in it between assignment and pick-up only. Their position, for the
-- estimate of the arrival, is one that the order's customer may see as well; it stays in the API.
CREATE FUNCTION restaurant_orders_v1(
    of_token_sha256 bytea, of_order_id uuid, ended_within_s float8, at_most int
)
RETURNS TABLE (
    order_id uuid, state text, external_id text, customer_name text, items text,
    created_at timestamptz, ready_at timestamptz, scheduled_for timestamptz,
    promised_from timestamptz, promised_to timestamptz, picked_up_at timestamptz,
    ended_at timestamptz, courier_name text, assigned_at timestamptz, driver_id text, pace float8,
    fix_at timestamptz, lon_deg float8, lat_deg float8
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
    now CONSTANT timestamptz := clock_timestamp();
    of_restaurant_id CONSTANT int := (
        SELECT s.restaurant_id FROM restaurant_staff__of(of_token_sha256) s);
BEGIN
    IF of_restaurant_id IS NULL THEN
        RAISE EXCEPTION 'the token is not good' USING ERRCODE = 'DS026';
    END IF;
    RETURN QUERY
        WITH mine AS MATERIALIZED (
            SELECT * FROM orders o
            WHERE of_order_id IS NULL AND o.restaurant_id = of_restaurant_id AND o.ended_at IS NULL
            UNION ALL
            SELECT * FROM orders o
            WHERE of_order_id IS NULL AND o.restaurant_id = of_restaurant_id
                AND o.ended_at > now - make_interval(secs => ended_within_s)
            UNION ALL
            SELECT * FROM orders o
            WHERE o.order_id = of_order_id AND o.restaurant_id = of_restaurant_id
        )
        SELECT o.order_id,
            CASE WHEN o.state IN ('arriving', 'at_customer') THEN 'picked_up'
                ELSE o.state::text END,
            d.external_id, o.customer_name, d.items, o.created_at, d.ready_at, d.scheduled_for,
            d.promised_from, d.promised_to, a.picked_up_at, o.ended_at, c.name, c.assigned_at,
            c.driver_id, p.pace, f.fix_at, f.lon_deg, f.lat_deg
        FROM mine o
        CROSS JOIN LATERAL (
            SELECT * FROM policy t WHERE t.policy_id = o.policy_id OFFSET 0
        ) p
        LEFT JOIN LATERAL (
            SELECT * FROM order_detail t WHERE t.order_id = o.order_id OFFSET 0
        ) d ON true
        LEFT JOIN LATERAL (
            SELECT * FROM assignment t
            WHERE t.order_id = o.order_id AND t.assignment_no = o.assignment_no OFFSET 0
        ) a ON true
        LEFT JOIN LATERAL (
            SELECT w.driver_id, w.name, a.assigned_at FROM driver w
            WHERE w.driver_id = a.driver_id AND a.ended_at IS NULL
                AND o.state IN ('assigned', 'at_restaurant') OFFSET 0
        ) c ON true
        LEFT JOIN LATERAL (
            SELECT s.* FROM customer_view__of(o.order_id, o.assignment_no) v
            CROSS JOIN LATERAL customer_view__position(v, now + interval '1 hour') s
            WHERE c.driver_id IS NOT NULL AND o.state = 'assigned'
        ) f ON true
        ORDER BY o.ended_at IS NOT NULL, coalesce(o.ended_at, o.created_at) DESC, o.order_id
        LIMIT at_most;
END
$$;

-- Raises DS002 for an order of another restaurant, as for one that does not exist.
CREATE FUNCTION restaurant__check_order(of_restaurant_id int, of_order_id uuid)
RETURNS void LANGUAGE plpgsql STABLE
AS $$
BEGIN
    IF of_restaurant_id IS NULL THEN
        RAISE EXCEPTION 'the token is not good' USING ERRCODE = 'DS026';
    ELSIF NOT EXISTS (
        SELECT FROM orders o
        WHERE o.order_id = of_order_id AND o.restaurant_id = of_restaurant_id
    ) THEN
        RAISE EXCEPTION 'there is no order %', of_order_id USING ERRCODE = 'DS002';
    END IF;
END
$$;

-- Confirms an order as its restaurant.
CREATE FUNCTION restaurant_confirm_v1(
    of_token_sha256 bytea, of_order_id uuid, with_idempotency_key text
)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
DECLARE
    s record;
BEGIN
    SELECT * INTO s FROM restaurant_staff__of(of_token_sha256);
    PERFORM restaurant__check_order(s.restaurant_id, of_order_id);
    PERFORM FROM apply_order_command_v1(
        of_order_id, 'confirm', 'staff', s.name, NULL, with_idempotency_key);
END
$$;

-- Sets when the food is ready, until it is picked up. Setting the same instant again changes
-- nothing.
CREATE FUNCTION restaurant_set_ready_v1(
    of_token_sha256 bytea, of_order_id uuid, new_ready_at timestamptz
)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
DECLARE
    s record;
    o orders;
BEGIN
    SELECT * INTO s FROM restaurant_staff__of(of_token_sha256);
    PERFORM restaurant__check_order(s.restaurant_id, of_order_id);
    SELECT * INTO STRICT o FROM orders t WHERE t.order_id = of_order_id FOR SHARE;
    IF o.state NOT IN ('created', 'confirmed', 'assigned', 'at_restaurant') THEN
        PERFORM orders__raise_illegal_transition(of_order_id, 'set_ready', o.state, 'staff');
    END IF;
    INSERT INTO order_detail AS d (order_id, created_by, ready_at, ready_set_at, search)
    VALUES (of_order_id, o.created_by, new_ready_at, clock_timestamp(), '')
    ON CONFLICT (order_id) DO UPDATE
        SET ordered_ready_at = CASE WHEN d.ready_set_at IS NULL THEN d.ready_at
                ELSE d.ordered_ready_at END,
            ready_at = EXCLUDED.ready_at, ready_set_at = EXCLUDED.ready_set_at
        WHERE d.ready_at IS DISTINCT FROM EXCLUDED.ready_at;
    IF FOUND THEN
        PERFORM record_audit_v1(s.name, 'order.ready_at', of_order_id::text,
            jsonb_build_object('ready_at', new_ready_at));
    END IF;
END
$$;
