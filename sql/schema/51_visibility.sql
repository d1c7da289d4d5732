-- Which fixes a customer may see: docs/explanation/privacy.md. customer_view__shows decides for
-- every reader: position, trail, history, streams, the start of the ETA.
--
-- Each function in SQL is a set, so that the planner inlines it. The caller materializes the view:
-- inlined, its list of doors would be read again for each fix.

-- The view of an assignment, or no row if its customer may not look now.
CREATE FUNCTION customer_view__of(of_order_id uuid, of_assignment_no int)
RETURNS SETOF customer_view LANGUAGE sql STABLE ROWS 1
AS $$
    SELECT a.order_id, a.driver_id, a.visible,
        CASE WHEN EXISTS (
            SELECT FROM driver_clock c WHERE c.driver_id = a.driver_id AND c.hour >= s.clocks_since
        ) THEN s.clocks_since END,
        a.restaurant_lon_deg, a.restaurant_lat_deg, a.customer_lon_deg, a.customer_lat_deg,
        ARRAY(
            SELECT (o.customer_lon_deg, o.customer_lat_deg, o.assigned_at, o.ended_at)::other_door
            FROM assignment o
            WHERE o.driver_id = a.driver_id AND o.order_id <> a.order_id
                AND coalesce(o.ended_at, 'infinity') > lower(a.visible) - interval '24 hours'
        )
    FROM (
        SELECT * FROM assignment t
        WHERE t.order_id = of_order_id AND t.assignment_no = of_assignment_no
            AND upper_inf(t.visible) OFFSET 0
    ) a
    CROSS JOIN LATERAL (
        SELECT date_trunc('hour', a.assigned_at - interval '24 hours', 'UTC') AS clocks_since
    ) s
$$;

-- The earliest instant at which a fix can have been taken: fix_at, less how far ahead the phone's
-- clock is known to run, less the second within which a prompt fix arrives.
CREATE FUNCTION customer_view__taken_from(
    view customer_view, of_boot text, of_fix_at timestamptz
)
RETURNS SETOF timestamptz LANGUAGE sql STABLE ROWS 1
AS $$
    SELECT of_fix_at - interval '1 s' - greatest(interval '0.5 s', (
        SELECT max(c.lead) FROM driver_clock c
        WHERE (view).clocks_since IS NOT NULL AND c.driver_id = (view).driver_id
            AND c.boot = of_boot AND c.hour >= (view).clocks_since
    ))
    OFFSET 0
$$;

-- Whether the driver was away from a door between the end of its order and an instant: a fix exists
-- that was taken after the end and arrived before the instant. After a day, any door counts as
-- left. Rarely called, so it has a plan of its own.
CREATE FUNCTION customer_view__has_left(
    view customer_view, door other_door, before timestamptz
)
RETURNS bool LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    RETURN door.ended_at <= before - interval '24 hours' OR EXISTS (
        SELECT FROM fix_history h
        CROSS JOIN LATERAL customer_view__taken_from(view, h.boot, h.fix_at) AS t (taken_from)
        WHERE h.driver_id = view.driver_id AND h.quarantine IS NULL
            AND h.fix_at > door.ended_at
            -- fix_at is ahead of received_at by limits.future_s at most
            AND h.fix_at < before + interval '1 hour'
            AND h.received_at <= before AND t.taken_from > door.ended_at
            AND ground_distance_m(h.lon_deg, h.lat_deg, door.lon_deg, door.lat_deg) > 150
    );
END
$$;

-- A row if the customer may see a fix: one visible range contains all of the time in which it can
-- have been taken, and it is not at another customer's door.
CREATE FUNCTION customer_view__shows(
    view customer_view, of_boot text, of_fix_at timestamptz, of_received_at timestamptz,
    of_lon_deg float8, of_lat_deg float8
)
RETURNS SETOF timestamptz LANGUAGE sql STABLE ROWS 1
AS $$
    SELECT t.taken_from
    FROM customer_view__taken_from(view, of_boot, of_fix_at) AS t (taken_from)
    WHERE (view).visible @> tstzrange(
            least(t.taken_from, of_received_at), greatest(t.taken_from, of_received_at), '[]')
        AND NOT EXISTS (
            SELECT FROM unnest((view).other_doors) d
            WHERE abs(of_lat_deg - d.lat_deg) * 111195 <= 150  -- excludes most doors cheaply
                AND ground_distance_m(of_lon_deg, of_lat_deg, d.lon_deg, d.lat_deg) <= 150
                -- a fix is shown if one of the customer's own places is no farther
                AND ground_distance_m(of_lon_deg, of_lat_deg, d.lon_deg, d.lat_deg) < least(
                    ground_distance_m(of_lon_deg, of_lat_deg,
                        (view).customer_lon_deg, (view).customer_lat_deg),
                    ground_distance_m(of_lon_deg, of_lat_deg,
                        (view).restaurant_lon_deg, (view).restaurant_lat_deg))
                AND d.assigned_at <= of_received_at
                AND (
                    coalesce(d.ended_at, 'infinity') > t.taken_from - interval '15 min'
                    OR NOT customer_view__has_left(view, d, t.taken_from)
                )
        )
$$;

-- The fixes of a time that the customer may see, in no order.
CREATE FUNCTION customer_view__fixes(view customer_view, since timestamptz, before timestamptz)
RETURNS SETOF fix_history LANGUAGE sql STABLE
AS $$
    SELECT h.*
    FROM fix_history h
    CROSS JOIN LATERAL customer_view__shows(
        view, h.boot, h.fix_at, h.received_at, h.lon_deg, h.lat_deg)
    WHERE h.driver_id = (view).driver_id AND h.quarantine IS NULL
        AND h.fix_at > lower((view).visible)  -- taken_from is not before that
        AND h.fix_at >= since AND h.fix_at < before
$$;

-- The newest fix that the customer may see, from the history.
CREATE FUNCTION customer_view__newest(view customer_view, before timestamptz)
RETURNS TABLE (
    fix_at timestamptz, received_at timestamptz, lon_deg float8, lat_deg float8,
    accuracy_m float8, speed_mps float8, heading_deg float8
)
LANGUAGE plpgsql STABLE ROWS 1
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
        SELECT h.fix_at, h.received_at, h.lon_deg, h.lat_deg, h.accuracy_m, h.speed_mps,
            h.heading_deg
        FROM customer_view__fixes(view, '-infinity', before) h
        ORDER BY h.fix_at DESC, h.boot DESC, h.seq DESC
        LIMIT 1;
END
$$;

-- The newest fix that the customer may see. Usually it is the newest fix of the driver, and the
-- history is not read.
CREATE FUNCTION customer_view__position(view customer_view, before timestamptz)
RETURNS TABLE (
    fix_at timestamptz, received_at timestamptz, lon_deg float8, lat_deg float8,
    accuracy_m float8, speed_mps float8, heading_deg float8
)
LANGUAGE sql STABLE ROWS 1
AS $$
    SELECT p.* FROM (
        SELECT d.fix_at, d.received_at, d.lon_deg, d.lat_deg, d.accuracy_m, d.speed_mps,
            d.heading_deg
        FROM driver_state d
        CROSS JOIN LATERAL customer_view__shows(
            view, d.boot, d.fix_at, d.received_at, d.lon_deg, d.lat_deg)
        WHERE d.driver_id = (view).driver_id
        UNION ALL
        SELECT * FROM customer_view__newest(view, before) WHERE (view).driver_id IS NOT NULL
        LIMIT 1  -- the second part runs only if the first has no row
    ) p
$$;

-- What estimates of arrival need of the fixes that the customer may see: (fix_at, lon_deg, lat_deg)
-- of the newest `at_most`, oldest first, as JSON.
CREATE FUNCTION customer_view__trail(
    view customer_view, since timestamptz, before timestamptz, at_most int
)
RETURNS text LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    RETURN (
        SELECT json_agg(json_build_array(x.fix_at, x.lon_deg, x.lat_deg)
            ORDER BY x.fix_at, x.boot, x.seq)
        FROM (
            SELECT f.fix_at, f.boot, f.seq, f.lon_deg, f.lat_deg
            FROM customer_view__fixes(view, since, before) f
            ORDER BY f.fix_at DESC, f.boot DESC, f.seq DESC
            LIMIT at_most
        ) x
    );
END
$$;

-- The orders of the valid ones of links, each a token and the order that it is for. A token expires
-- limits.customer_token_s after the end of the order.
CREATE FUNCTION customer_links__orders(token_sha256s bytea[], order_ids uuid[])
RETURNS TABLE (n int8, order_id uuid, order_seq int, assignment_no int, restaurant_id int)
LANGUAGE sql STABLE
AS $$
    SELECT k.n, o.order_id, o.order_seq, o.assignment_no, o.restaurant_id
    FROM unnest(token_sha256s, order_ids) WITH ORDINALITY AS k (token_sha256, order_id, n)
    CROSS JOIN LATERAL (
        SELECT a.order_id FROM access_token a
        WHERE a.token_sha256 = k.token_sha256 AND a.order_id = k.order_id
            AND a.role = 'customer' AND a.revoked_at IS NULL OFFSET 0
    ) t
    CROSS JOIN LATERAL (
        SELECT o.* FROM orders o WHERE o.order_id = t.order_id OFFSET 0
    ) o
    WHERE o.ended_at IS NULL OR clock_timestamp()
        < o.ended_at + make_interval(secs => (SELECT customer_token_s FROM limits))
$$;

-- The valid ones of links.
CREATE FUNCTION customer_links__good(token_sha256s bytea[], order_ids uuid[])
RETURNS TABLE (n int8, order_id uuid) LANGUAGE sql STABLE
AS $$
    SELECT k.n, k.order_id FROM customer_links__orders(token_sha256s, order_ids) k
$$;
