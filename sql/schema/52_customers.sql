-- What the role `customer` may execute. Each function takes hashes of tokens and returns data of
-- the orders that these are for. For an invalid link the functions for many links return no row,
-- and those for one link raise DS015.

-- The positions of good links in the arguments. Here and in other functions for each request,
-- PL/pgSQL keeps the plan: a function in SQL plans at each call.
CREATE FUNCTION customer_links_v1(token_sha256s bytea[], order_ids uuid[])
RETURNS TABLE (n int8) LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
SET enable_hashjoin = off  -- every join is a look-up by key
SET enable_mergejoin = off
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    RETURN QUERY SELECT g.n FROM customer_links__good(token_sha256s, order_ids) g;
END
$$;

-- What GET, the snapshot of a stream and an order with new events show, for many links: `n` is the
-- position of a link in the arguments. The trail (oldest first, without the position) and the
-- events are arrays of equal lengths. The service must not pass on driver_id.
CREATE FUNCTION customer_tracks_v1(token_sha256s bytea[], order_ids uuid[])
RETURNS TABLE (
    n int8, now timestamptz, order_id uuid, state order_state, assignment_no int, order_seq int,
    restaurant_name text, restaurant_lon_deg float8, restaurant_lat_deg float8,
    destination_lon_deg float8, destination_lat_deg float8, dwell_min_s float8, pace float8,
    driver_id text, assigned_at timestamptz,
    fix_at timestamptz, received_at timestamptz, lon_deg float8, lat_deg float8,
    accuracy_m float8, speed_mps float8, heading_deg float8,
    trail_fix_at timestamptz[], trail_received_at timestamptz[], trail_lon_deg float8[],
    trail_lat_deg float8[], trail_accuracy_m float8[], trail_speed_mps float8[],
    trail_heading_deg float8[],
    event_order_seq int[], event_assignment_no int[], event_state text[], event_source text[],
    event_occurred_at timestamptz[]
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
    at CONSTANT timestamptz := clock_timestamp();
    later CONSTANT timestamptz := at + interval '1 hour';
    trail_since CONSTANT timestamptz := at - interval '5 min';
    trail_fixes CONSTANT int := 80;  -- 5 min at one every 4 s
BEGIN
    RETURN QUERY
    WITH links AS MATERIALIZED (SELECT * FROM customer_links__good(token_sha256s, order_ids)),
    found AS MATERIALIZED (
        SELECT o.*, v AS view, w.assigned_at
        FROM (SELECT DISTINCT order_id FROM links) k
        CROSS JOIN LATERAL (SELECT * FROM orders t WHERE t.order_id = k.order_id OFFSET 0) o
        LEFT JOIN LATERAL customer_view__of(o.order_id, o.assignment_no) v ON true
        LEFT JOIN LATERAL (
            SELECT t.assigned_at FROM assignment t
            WHERE t.order_id = v.order_id AND t.assignment_no = o.assignment_no OFFSET 0
        ) w ON true
    ),
    tracks AS MATERIALIZED (
        SELECT f.*, p.fix_at, p.received_at, p.lon_deg AS fix_lon_deg, p.lat_deg AS fix_lat_deg,
            p.accuracy_m, p.speed_mps, p.heading_deg, t.*
        FROM found f
        LEFT JOIN LATERAL customer_view__position(f.view, later) p ON true
        CROSS JOIN LATERAL (
            SELECT array_agg(h.fix_at ORDER BY h.key) AS trail_fix_at,
                array_agg(h.received_at ORDER BY h.key) AS trail_received_at,
                array_agg(h.lon_deg ORDER BY h.key) AS trail_lon_deg,
                array_agg(h.lat_deg ORDER BY h.key) AS trail_lat_deg,
                array_agg(h.accuracy_m ORDER BY h.key) AS trail_accuracy_m,
                array_agg(h.speed_mps ORDER BY h.key) AS trail_speed_mps,
                array_agg(h.heading_deg ORDER BY h.key) AS trail_heading_deg
            FROM (
                SELECT x.*, row_number() OVER () * -1 AS key FROM (
                    SELECT * FROM customer_view__fixes(f.view, trail_since, p.fix_at)
                    WHERE fix_at < later  -- excludes the partitions of later days
                    ORDER BY fix_at DESC, boot DESC, seq DESC
                    LIMIT trail_fixes
                ) x
            ) h
        ) t
    )
    SELECT k.n, at, t.order_id, t.state, t.assignment_no, t.order_seq,
        r.name, r.lon_deg, r.lat_deg, t.lon_deg, t.lat_deg, p.dwell_min_s, p.pace,
        (t.view).driver_id, t.assigned_at,
        t.fix_at, t.received_at, t.fix_lon_deg, t.fix_lat_deg, t.accuracy_m, t.speed_mps,
        t.heading_deg,
        t.trail_fix_at, t.trail_received_at, t.trail_lon_deg, t.trail_lat_deg,
        t.trail_accuracy_m, t.trail_speed_mps, t.trail_heading_deg,
        e.order_seqs, e.assignment_nos, e.states, e.sources, e.occurred_ats
    FROM links k
    JOIN tracks t ON t.order_id = k.order_id
    JOIN restaurant r ON r.restaurant_id = t.restaurant_id
    JOIN policy p ON p.policy_id = t.policy_id
    CROSS JOIN LATERAL (
        SELECT array_agg(e.order_seq ORDER BY e.order_seq) AS order_seqs,
            array_agg(e.assignment_no ORDER BY e.order_seq) AS assignment_nos,
            array_agg(e.state::text ORDER BY e.order_seq) AS states,
            array_agg(e.source::text ORDER BY e.order_seq) AS sources,
            -- late fixes may have moved evidence to an earlier instant
            array_agg(coalesce(g.occurred_at, e.occurred_at) ORDER BY e.order_seq) AS occurred_ats
        FROM order_event e
        LEFT JOIN evidence g ON g.order_id = e.order_id AND g.assignment_no = e.assignment_no
            AND g.state = e.state AND g.source = e.source
        WHERE e.order_id = k.order_id
    ) e;
END
$$;

-- What an answer says of an order's notices, as a JSON array: each as (order_seq, kind, instant),
-- and the end of the promised window if the order is late.
CREATE FUNCTION order_notice__read_v1(of_order_id uuid, of_assignment_no int)
RETURNS json LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    SELECT CASE WHEN count(*) > 0 THEN json_build_array(
        json_agg(json_build_array(n.order_seq, n.kind, n.occurred_at) ORDER BY n.order_seq),
        CASE WHEN bool_or(n.kind = 'late')
            THEN (SELECT d.promised_to FROM order_detail d WHERE d.order_id = of_order_id) END
    ) END
    FROM order_notice n
    WHERE n.order_id = of_order_id AND (n.kind = 'late' OR n.assignment_no = of_assignment_no)
$$;

-- What an answer holds of an order besides the position, as a JSON array in the order of
-- tracking_api's OrderDetails. Depends on the order's events alone, but for instants of events:
-- late fixes may move evidence to an earlier one.
CREATE FUNCTION customer_order__details(of_order_id uuid)
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
            ), r.city, CASE WHEN o.ended_at IS NULL THEN json_build_object('pin', (
                SELECT n.pin FROM order_pin n WHERE n.order_id = o.order_id
            )) ELSE customer_order__ends(o.order_id, true)::json END,
            json_build_object('created_at', o.created_at, 'preparation_s', r.preparation_s,
                'ready_at', d.ready_at, 'scheduled_for', d.scheduled_for),
            -- most orders have none, and a call costs as much as the rest
            CASE WHEN EXISTS (SELECT FROM order_notice n WHERE n.order_id = o.order_id)
                THEN order_notice__read_v1(o.order_id, o.assignment_no) END)
        FROM orders o
        JOIN restaurant r ON r.restaurant_id = o.restaurant_id
        JOIN policy p ON p.policy_id = o.policy_id
        LEFT JOIN order_detail d ON d.order_id = o.order_id
        LEFT JOIN assignment a ON a.order_id = o.order_id AND a.assignment_no = o.assignment_no
            AND upper_inf(a.visible)
        WHERE o.order_id = of_order_id
    );
END
$$;

-- A digest of what the details of an order hold besides what its events announce: instants of
-- events that late fixes move, the restaurant, and promised times. Not of an order that has ended.
CREATE FUNCTION customer_order__stamp(of_order_id uuid, of_restaurant_id int, is_visible bool)
RETURNS int8 LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN (
        SELECT hash_record_extended(ROW(
            is_visible, r.name, r.lon_deg, r.lat_deg, r.city, r.preparation_s, d.ready_at,
            d.scheduled_for, d.promised_to, (
                SELECT bit_xor(hash_record_extended(
                    ROW(e.assignment_no, e.state, e.source, e.occurred_at), 0))
                FROM evidence e WHERE e.order_id = of_order_id
            )), 0)
        FROM (SELECT * FROM restaurant t WHERE t.restaurant_id = of_restaurant_id OFFSET 0) r
        LEFT JOIN LATERAL (
            SELECT * FROM order_detail t WHERE t.order_id = of_order_id OFFSET 0
        ) d ON true
    );
END
$$;

-- What GET, the snapshot of a stream and an order with new events show, for many links: `n` is the
-- position of a link in the arguments. A caller passes what it holds of each order: details of an
-- event, and an estimate for an event and a fix. While these are the newest, `details` and `trail`
-- (the last 5 minutes, without the position) are left out. With details it passes null as their
-- stamp to leave them out, or the stamp, to read them again if they have changed. `stamp` is of
-- `details`, or of those held. What may be shown does not depend on what is held. The service must
-- not pass on driver_id.
CREATE FUNCTION customer_tracks_v3(
    token_sha256s bytea[], order_ids uuid[], known_order_seqs int[], known_stamps int8[],
    estimated_order_seqs int[], estimated_fix_ats timestamptz[]
)
RETURNS TABLE (
    n int8, now timestamptz, order_seq int, driver_id text,
    fix_at timestamptz, received_at timestamptz, lon_deg float8, lat_deg float8,
    accuracy_m float8, speed_mps float8, heading_deg float8, details text, trail text, stamp int8
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
    at CONSTANT timestamptz := clock_timestamp();
    later CONSTANT timestamptz := at + interval '1 hour';
    trail_since CONSTANT timestamptz := at - interval '5 min';
    trail_fixes CONSTANT int := 80;  -- 5 min at one every 4 s
BEGIN
    RETURN QUERY
    WITH found AS MATERIALIZED (
        SELECT k.*, v AS view,
            -- A function call inside CASE costs nothing where it is not needed. Its plan has its
            -- own cache.
            CASE WHEN known_order_seqs[k.n] IS DISTINCT FROM k.order_seq
                    OR known_stamps[k.n] IS NOT NULL
                THEN customer_order__stamp(k.order_id, k.restaurant_id, v.order_id IS NOT NULL)
            END AS stamp
        FROM customer_links__orders(token_sha256s, order_ids) k
        LEFT JOIN LATERAL customer_view__of(k.order_id, k.assignment_no) v ON true
    )
    SELECT f.n, at, f.order_seq, (f.view).driver_id,
        p.fix_at, p.received_at, p.lon_deg, p.lat_deg, p.accuracy_m, p.speed_mps, p.heading_deg,
        CASE WHEN known_order_seqs[f.n] IS DISTINCT FROM f.order_seq
                OR f.stamp <> known_stamps[f.n]
            THEN customer_order__details(f.order_id) END,
        CASE WHEN p.fix_at > trail_since AND (estimated_order_seqs[f.n] = f.order_seq
                AND estimated_fix_ats[f.n] = p.fix_at) IS NOT true
            THEN customer_view__trail(f.view, trail_since, p.fix_at, trail_fixes) END,
        f.stamp
    FROM found f
    LEFT JOIN LATERAL customer_view__position(f.view, later) p ON true;
END
$$;

-- As customer_tracks_v3 without stamps, for the services of an earlier release.
CREATE FUNCTION customer_tracks_v2(
    token_sha256s bytea[], order_ids uuid[], known_order_seqs int[],
    estimated_order_seqs int[], estimated_fix_ats timestamptz[]
)
RETURNS TABLE (
    n int8, now timestamptz, order_seq int, driver_id text,
    fix_at timestamptz, received_at timestamptz, lon_deg float8, lat_deg float8,
    accuracy_m float8, speed_mps float8, heading_deg float8, details text, trail text
)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
BEGIN
    RETURN QUERY
    SELECT t.n, t.now, t.order_seq, t.driver_id, t.fix_at, t.received_at, t.lon_deg, t.lat_deg,
        t.accuracy_m, t.speed_mps, t.heading_deg, t.details, t.trail
    FROM customer_tracks_v3(token_sha256s, order_ids, known_order_seqs, '{}', estimated_order_seqs,
        estimated_fix_ats) t;
END
$$;

-- What the poll of a stream needs, for many links: the number of the newest event, and the
-- position. A link without a row is no longer valid.
CREATE FUNCTION customer_polls_v1(token_sha256s bytea[], order_ids uuid[])
RETURNS TABLE (
    n int8, now timestamptz, order_id uuid, order_seq int, driver_id text,
    fix_at timestamptz, received_at timestamptz, lon_deg float8, lat_deg float8,
    accuracy_m float8, speed_mps float8, heading_deg float8
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
    at CONSTANT timestamptz := clock_timestamp();
    later CONSTANT timestamptz := at + interval '1 hour';
BEGIN
    RETURN QUERY
    WITH links AS MATERIALIZED (SELECT * FROM customer_links__good(token_sha256s, order_ids)),
    found AS MATERIALIZED (
        SELECT o.order_id, o.order_seq, v AS view
        FROM (SELECT DISTINCT order_id FROM links) k
        CROSS JOIN LATERAL (SELECT * FROM orders t WHERE t.order_id = k.order_id OFFSET 0) o
        LEFT JOIN LATERAL customer_view__of(o.order_id, o.assignment_no) v ON true
    ),
    positions AS MATERIALIZED (
        SELECT f.order_id, f.order_seq, (f.view).driver_id, p.*
        FROM found f
        LEFT JOIN LATERAL customer_view__position(f.view, later) p ON true
    )
    SELECT k.n, at, p.order_id, p.order_seq, p.driver_id,
        p.fix_at, p.received_at, p.lon_deg, p.lat_deg, p.accuracy_m, p.speed_mps, p.heading_deg
    FROM links k
    JOIN positions p ON p.order_id = k.order_id;
END
$$;

-- A page of at most 5,000 of the fixes that the customer of a link may see, oldest first. Pass the
-- key of the last one as `after_…` to read the next page. Raises DS015 for an invalid link.
CREATE FUNCTION customer_history_v1(
    of_token_sha256 bytea, of_order_id uuid, since timestamptz, before timestamptz, at_most int,
    after_fix_at timestamptz, after_boot text, after_seq int8
)
RETURNS TABLE (
    fix_at timestamptz, received_at timestamptz, lon_deg float8, lat_deg float8,
    accuracy_m float8, speed_mps float8, heading_deg float8, boot text, seq int8
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
    view customer_view;
    begins CONSTANT timestamptz := greatest(since, after_fix_at);  -- greatest() skips nulls
    ends CONSTANT timestamptz := least(before, clock_timestamp() + interval '1 hour');
BEGIN
    PERFORM FROM customer_links__good(ARRAY[of_token_sha256], ARRAY[of_order_id]);
    IF NOT FOUND THEN
        RAISE EXCEPTION 'this link does not lead to an order' USING ERRCODE = 'DS015';
    END IF;
    SELECT v.* INTO view FROM orders o
        CROSS JOIN LATERAL customer_view__of(o.order_id, o.assignment_no) v
        WHERE o.order_id = of_order_id;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    RETURN QUERY
        SELECT h.fix_at, h.received_at, h.lon_deg, h.lat_deg, h.accuracy_m, h.speed_mps,
            h.heading_deg, h.boot, h.seq
        FROM customer_view__fixes(view, coalesce(begins, '-infinity'), ends) h
        WHERE after_fix_at IS NULL
            OR (h.fix_at, h.boot, h.seq) > (after_fix_at, after_boot, after_seq)
        ORDER BY h.fix_at, h.boot, h.seq
        LIMIT least(greatest(at_most, 0), 5000);
END
$$;

-- Cancels the order of a link as its customer. Raises DS015 for an invalid link, and DS001 in a
-- state in which customers may not cancel.
CREATE FUNCTION customer_cancel_v1(
    of_token_sha256 bytea, of_order_id uuid, with_idempotency_key text
)
RETURNS TABLE (order_id uuid, state order_state, assignment_no int, order_seq int)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    PERFORM FROM customer_links__good(ARRAY[of_token_sha256], ARRAY[of_order_id]);
    IF NOT FOUND THEN
        RAISE EXCEPTION 'this link does not lead to an order' USING ERRCODE = 'DS015';
    END IF;
    RETURN QUERY
        SELECT c.order_id, c.state, c.assignment_no, c.order_seq
        FROM apply_order_command_v1(
            of_order_id, 'cancel', 'customer', 'customer', NULL, with_idempotency_key) c;
END
$$;

-- The orders of good links are looked at: their couriers' devices report without delay.
CREATE FUNCTION customer_watch_v1(token_sha256s bytea[], order_ids uuid[])
RETURNS void LANGUAGE sql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    SELECT order_watch__extend(array_agg(order_id))
    FROM customer_links__good(token_sha256s, order_ids)
$$;

-- The links, of those given, whose customers wait while their courier has another delivery first,
-- with the estimate; null before the first one.
CREATE FUNCTION customer_waits_v1(token_sha256s bytea[], order_ids uuid[])
RETURNS TABLE (n int8, earliest_at timestamptz, latest_at timestamptz)
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
    SELECT k.n, e.earliest_at, e.latest_at
    FROM customer_links__good(token_sha256s, order_ids) k
    CROSS JOIN LATERAL (SELECT * FROM orders t WHERE t.order_id = k.order_id OFFSET 0) o
    CROSS JOIN LATERAL (
        SELECT * FROM assignment t WHERE t.order_id = o.order_id
            AND t.assignment_no = o.assignment_no AND t.ended_at IS NULL
            AND NOT upper_inf(t.visible) OFFSET 0
    ) a
    LEFT JOIN LATERAL (
        SELECT * FROM order_eta t WHERE t.order_id = o.order_id
            AND t.estimated_at > clock_timestamp() - interval '3 min' OFFSET 0
    ) e ON true;
END
$$;
