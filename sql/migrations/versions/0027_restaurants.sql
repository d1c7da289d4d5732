-- Staff of restaurants: their own orders, when the food is ready. A day's report.

SET LOCAL search_path = doorstep, public;
SET LOCAL check_function_bodies = off;  -- functions may refer to objects that are created later

ALTER TABLE staff
    ADD COLUMN restaurant_id int REFERENCES restaurant ON DELETE SET NULL,
    ADD CONSTRAINT staff_restaurant CHECK (restaurant_id IS NULL OR role = 'restaurant');
ALTER TABLE order_detail
    ADD COLUMN ready_set_at timestamptz,
    ADD COLUMN ordered_ready_at timestamptz;
CREATE INDEX orders_restaurant ON orders (restaurant_id, ended_at);

-- The same view, which names the columns of order_detail.
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

-- Applies `add`, `revoke` or `rotate` to a member of staff. `add` makes a revoked one good again,
-- with a new token. The role restaurant needs a restaurant, which `rotate` may replace. Raises
-- DS023 for a name that exists, DS022 for one that does not, DS004 for a restaurant that does not.
CREATE FUNCTION change_staff_v2(
    of_name text, change text, to_role text, at_restaurant_id int, new_token_sha256 bytea,
    until timestamptz, by_who text
)
RETURNS TABLE (
    name text, role text, created_at timestamptz, rotated_at timestamptz, revoked_at timestamptz,
    expires_at timestamptz, restaurant_id int
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    now CONSTANT timestamptz := clock_timestamp();
    before staff;
    after staff;
    new_role staff_role;
    new_restaurant_id int;
BEGIN
    SELECT * INTO before FROM staff s WHERE s.name = of_name FOR UPDATE;
    IF change = 'add' THEN
        IF before.name IS NOT NULL AND before.revoked_at IS NULL THEN
            RAISE EXCEPTION '% is staff already', of_name USING ERRCODE = 'DS023';
        END IF;
        new_role := to_role::staff_role;
        new_restaurant_id := at_restaurant_id;
    ELSIF before.name IS NULL THEN
        RAISE EXCEPTION 'no staff is named %', of_name USING ERRCODE = 'DS022';
    ELSE
        new_role := coalesce(to_role::staff_role, before.role);
        new_restaurant_id := coalesce(at_restaurant_id, before.restaurant_id);
    END IF;
    IF new_role <> 'restaurant' THEN
        new_restaurant_id := NULL;
    ELSIF change <> 'revoke' AND NOT EXISTS (
        SELECT FROM restaurant r WHERE r.restaurant_id = new_restaurant_id AND NOT r.is_ad_hoc
    ) THEN
        RAISE EXCEPTION 'the role restaurant needs a restaurant, and there is no %',
            coalesce(new_restaurant_id::text, 'such one') USING ERRCODE = 'DS004';
    END IF;
    IF change = 'add' THEN
        INSERT INTO staff AS s (name, role, restaurant_id)
        VALUES (of_name, new_role, new_restaurant_id)
        ON CONFLICT (name) DO UPDATE
            SET role = EXCLUDED.role, restaurant_id = EXCLUDED.restaurant_id, rotated_at = now,
                revoked_at = NULL
        RETURNING * INTO after;
    ELSE
        UPDATE staff s SET role = new_role, restaurant_id = new_restaurant_id,
            rotated_at = CASE WHEN change = 'rotate' THEN now ELSE s.rotated_at END,
            revoked_at = CASE WHEN change = 'revoke' THEN coalesce(s.revoked_at, now) END
        WHERE s.name = of_name
        RETURNING * INTO after;
    END IF;
    UPDATE access_token t SET revoked_at = now
        WHERE t.role = 'staff' AND t.name = of_name AND t.revoked_at IS NULL;
    IF change <> 'revoke' THEN
        INSERT INTO access_token (token_sha256, role, name, expires_at)
        VALUES (new_token_sha256, 'staff', of_name, until);
    END IF;
    PERFORM record_audit_v1(by_who, 'staff.' || change, of_name, jsonb_build_object(
        'role', after.role, 'role_before', before.role, 'expires_at', until)
        || CASE WHEN after.restaurant_id IS NULL THEN '{}'
            ELSE jsonb_build_object('restaurant_id', after.restaurant_id) END);
    RETURN QUERY SELECT * FROM list_staff_v2() l WHERE l.name = of_name;
END
$$;

-- The same as services of 0.2 call it: they set no restaurant, but keep one.
CREATE OR REPLACE FUNCTION change_staff_v1(
    of_name text, change text, to_role text, new_token_sha256 bytea, until timestamptz,
    by_who text
)
RETURNS TABLE (
    name text, role text, created_at timestamptz, rotated_at timestamptz, revoked_at timestamptz,
    expires_at timestamptz
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
BEGIN
    RETURN QUERY SELECT c.name, c.role, c.created_at, c.rotated_at, c.revoked_at, c.expires_at
        FROM change_staff_v2(of_name, change, to_role, NULL, new_token_sha256, until, by_who) c;
END
$$;

-- The same with the restaurants of the role restaurant.
CREATE FUNCTION list_staff_v2()
RETURNS TABLE (
    name text, role text, created_at timestamptz, rotated_at timestamptz, revoked_at timestamptz,
    expires_at timestamptz, restaurant_id int
)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    SELECT l.*, s.restaurant_id FROM list_staff_v1() l JOIN staff s ON s.name = l.name
    ORDER BY l.name
$$;

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
        IF (k.external_id, k.customer_phone, k.customer_language, k.address, k.door_note, k.items,
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

-- A day's report: the orders created on a local day of a city, by restaurant and driver.
--
-- Every function starts from the orders of the day by the index orders_page, and looks the rest up
-- by key, so its work is bounded by the orders of the day, however large the tables are.

-- What is counted of an order. Stages follow its last assignment; null: not known, or not over.
CREATE TYPE reported_order AS (
    order_id uuid,
    restaurant_id int,
    restaurant_name text,
    state order_state,
    promised_from timestamptz,
    promised_to timestamptz,
    delivered_at timestamptz,
    stages_s float8[]  -- as Stage in tracking_api/reports/schemas.py
);

-- The local day of a city. Raises DS043 for a city that does not exist.
CREATE FUNCTION report_day_v1(of_city text, of_date date)
RETURNS TABLE (time_zone text, from_at timestamptz, to_at timestamptz, read_at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
BEGIN
    RETURN QUERY
        SELECT a.time_zone, of_date::timestamp AT TIME ZONE a.time_zone,
            (of_date + 1)::timestamp AT TIME ZONE a.time_zone, clock_timestamp()
        FROM service_area a WHERE a.name = of_city;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no service area %', of_city USING ERRCODE = 'DS043';
    END IF;
END
$$;

CREATE FUNCTION report__orders(of_city text, since timestamptz, before timestamptz)
RETURNS SETOF reported_order LANGUAGE sql STABLE
AS $$
    SELECT o.order_id, o.restaurant_id, r.name, o.state, d.promised_from, d.promised_to,
        e.delivered_at,
        ARRAY[
            report__seconds(o.created_at, c.confirmed_at),
            report__seconds(c.confirmed_at, f.assigned_at),
            report__seconds(a.assigned_at, a.at_restaurant_at),
            report__seconds(a.at_restaurant_at, a.picked_up_at),
            report__seconds(a.picked_up_at, coalesce(a.at_customer_at, e.delivered_at)),
            report__seconds(a.at_customer_at, e.delivered_at),
            report__seconds(o.created_at, e.delivered_at)
        ]
    FROM orders o
    CROSS JOIN LATERAL (
        SELECT CASE WHEN o.state = 'delivered' THEN o.ended_at END AS delivered_at
    ) e
    CROSS JOIN LATERAL (
        SELECT t.name FROM restaurant t
        WHERE t.restaurant_id = o.restaurant_id AND t.city = of_city OFFSET 0
    ) r
    LEFT JOIN LATERAL (
        SELECT * FROM order_detail t WHERE t.order_id = o.order_id OFFSET 0
    ) d ON true
    LEFT JOIN LATERAL (
        SELECT * FROM assignment t
        WHERE t.order_id = o.order_id AND t.assignment_no = o.assignment_no OFFSET 0
    ) a ON true
    LEFT JOIN LATERAL (
        SELECT t.assigned_at FROM assignment t WHERE t.order_id = o.order_id
        ORDER BY t.assignment_no LIMIT 1
    ) f ON true
    CROSS JOIN LATERAL (
        SELECT min(v.occurred_at) AS confirmed_at FROM order_event v
        WHERE v.order_id = o.order_id AND v.state = 'confirmed'
    ) c
    WHERE o.created_at >= since AND o.created_at < before
$$;

CREATE FUNCTION report__seconds(since timestamptz, before timestamptz)
RETURNS float8 LANGUAGE sql IMMUTABLE
RETURN CASE WHEN before > since THEN extract(epoch FROM before - since)::float8
    WHEN before <= since THEN 0 END;

-- The figures of each restaurant, and with a null restaurant_id those of the city.
CREATE FUNCTION report_restaurants_v1(of_city text, since timestamptz, before timestamptz)
RETURNS TABLE (
    restaurant_id int, restaurant_name text, orders int, open int, delivered int, cancelled int,
    failed int, promised int, early int, in_window int, late int, late_p50_s float8,
    late_max_s float8, open_late int, stage_orders int[], stage_p50_s float8[],
    stage_p90_s float8[]
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
BEGIN
    RETURN QUERY
        SELECT q.restaurant_id, min(q.restaurant_name), count(*)::int,
            count(*) FILTER (WHERE q.state < 'delivered')::int,
            count(*) FILTER (WHERE q.state = 'delivered')::int,
            count(*) FILTER (WHERE q.state = 'cancelled')::int,
            count(*) FILTER (WHERE q.state = 'failed')::int,
            count(*) FILTER (WHERE q.delivered_at IS NOT NULL AND q.promised_to IS NOT NULL)::int,
            count(*) FILTER (WHERE q.delivered_at < q.promised_from)::int,
            count(*) FILTER (WHERE q.delivered_at >= coalesce(q.promised_from, '-infinity')
                AND q.delivered_at <= q.promised_to)::int,
            count(*) FILTER (WHERE q.delivered_at > q.promised_to)::int,
            percentile_cont(0.5) WITHIN GROUP (ORDER BY l.late_s) FILTER (WHERE l.late_s > 0),
            max(l.late_s) FILTER (WHERE l.late_s > 0),
            count(*) FILTER (WHERE q.state < 'delivered' AND q.promised_to < now)::int,
            ARRAY[count(q.stages_s[1]), count(q.stages_s[2]), count(q.stages_s[3]),
                count(q.stages_s[4]), count(q.stages_s[5]), count(q.stages_s[6]),
                count(q.stages_s[7])]::int[],
            ARRAY[
                percentile_cont(0.5) WITHIN GROUP (ORDER BY q.stages_s[1]),
                percentile_cont(0.5) WITHIN GROUP (ORDER BY q.stages_s[2]),
                percentile_cont(0.5) WITHIN GROUP (ORDER BY q.stages_s[3]),
                percentile_cont(0.5) WITHIN GROUP (ORDER BY q.stages_s[4]),
                percentile_cont(0.5) WITHIN GROUP (ORDER BY q.stages_s[5]),
                percentile_cont(0.5) WITHIN GROUP (ORDER BY q.stages_s[6]),
                percentile_cont(0.5) WITHIN GROUP (ORDER BY q.stages_s[7])
            ],
            ARRAY[
                percentile_cont(0.9) WITHIN GROUP (ORDER BY q.stages_s[1]),
                percentile_cont(0.9) WITHIN GROUP (ORDER BY q.stages_s[2]),
                percentile_cont(0.9) WITHIN GROUP (ORDER BY q.stages_s[3]),
                percentile_cont(0.9) WITHIN GROUP (ORDER BY q.stages_s[4]),
                percentile_cont(0.9) WITHIN GROUP (ORDER BY q.stages_s[5]),
                percentile_cont(0.9) WITHIN GROUP (ORDER BY q.stages_s[6]),
                percentile_cont(0.9) WITHIN GROUP (ORDER BY q.stages_s[7])
            ]
        FROM report__orders(of_city, since, before) q
        CROSS JOIN LATERAL (
            SELECT extract(epoch FROM q.delivered_at - q.promised_to)::float8 AS late_s
        ) l
        GROUP BY GROUPING SETS ((), (q.restaurant_id))
        ORDER BY q.restaurant_id NULLS FIRST;
END
$$;

-- How many orders failed or were cancelled, by whom and for which reason; null: none was given. The
-- reason of a cancellation is a text.
CREATE FUNCTION report_reasons_v1(of_city text, since timestamptz, before timestamptz)
RETURNS TABLE (restaurant_id int, state text, by_actor text, reason text, orders int)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
SET enable_hashjoin = off  -- every join is a look-up by key
SET enable_mergejoin = off
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
        SELECT q.restaurant_id, q.state::text, c.actor::text, c.reason, count(*)::int
        FROM report__orders(of_city, since, before) q
        CROSS JOIN LATERAL (
            SELECT t.actor, CASE WHEN t.command = 'cancel' THEN left(t.note, 100)
                ELSE t.failure_reason::text END AS reason
            FROM order_command t
            WHERE t.order_id = q.order_id AND t.to_state = q.state
            ORDER BY t.order_command_id LIMIT 1
        ) c
        WHERE q.state IN ('cancelled', 'failed')
        GROUP BY q.restaurant_id, q.state, c.actor, c.reason
        ORDER BY q.restaurant_id, q.state, count(*) DESC, c.actor, c.reason;
END
$$;

-- The drivers who had one of these orders, and what became of it with them.
CREATE FUNCTION report_drivers_v1(
    of_city text, since timestamptz, before timestamptz, at_most int
)
RETURNS TABLE (
    driver_id text, name text, assignments int, delivered int, failed int, cancelled int,
    given_up int
)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
SET enable_hashjoin = off  -- every join is a look-up by key
SET enable_mergejoin = off
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
        SELECT w.driver_id, w.name, w.assignments, w.delivered, w.failed, w.cancelled, w.given_up
        FROM (
            SELECT a.driver_id, min(n.name) AS name, count(*)::int AS assignments,
                count(*) FILTER (WHERE a.ended_by = 'deliver')::int AS delivered,
                count(*) FILTER (WHERE a.ended_by = 'fail')::int AS failed,
                count(*) FILTER (WHERE a.ended_by = 'cancel')::int AS cancelled,
                count(*) FILTER (WHERE a.ended_by IN ('decline', 'reassign'))::int AS given_up
            FROM report__orders(of_city, since, before) q
            CROSS JOIN LATERAL (
                SELECT * FROM assignment t WHERE t.order_id = q.order_id OFFSET 0
            ) a
            CROSS JOIN LATERAL (
                SELECT t.name FROM driver t WHERE t.driver_id = a.driver_id OFFSET 0
            ) n
            GROUP BY a.driver_id
        ) w
        ORDER BY w.driver_id
        LIMIT at_most;
END
$$;

REVOKE EXECUTE ON FUNCTION
    change_staff_v2, list_staff_v2, restaurant_staff__of, open_staff_session_v2,
    restaurant_session_v1, restaurant_orders_v1, restaurant__check_order, restaurant_confirm_v1,
    restaurant_set_ready_v1, report_day_v1, report__orders, report__seconds,
    report_restaurants_v1, report_reasons_v1, report_drivers_v1
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    change_staff_v2, list_staff_v2, open_staff_session_v2, restaurant_session_v1,
    restaurant_orders_v1, restaurant_confirm_v1, restaurant_set_ready_v1,
    report_day_v1, report_restaurants_v1, report_reasons_v1, report_drivers_v1
TO tracking_api;
