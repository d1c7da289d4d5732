-- GET /track compares an order's details by a digest, and reads the order once per link. Links are
-- checked with a kept plan, and trails are sorted once.

SET LOCAL search_path = doorstep, public;
SET LOCAL check_function_bodies = off;  -- functions may refer to objects that are created later

-- What estimates of arrival need of the fixes that the customer may see: (fix_at, lon_deg, lat_deg)
-- of the newest `at_most`, oldest first, as JSON.
CREATE OR REPLACE FUNCTION customer_view__trail(
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

-- The positions of good links in the arguments. Here and in other functions for each request,
-- PL/pgSQL keeps the plan: a function in SQL plans at each call.
CREATE OR REPLACE FUNCTION customer_links_v1(token_sha256s bytea[], order_ids uuid[])
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
CREATE OR REPLACE FUNCTION customer_links__good(token_sha256s bytea[], order_ids uuid[])
RETURNS TABLE (n int8, order_id uuid) LANGUAGE sql STABLE
AS $$
    SELECT k.n, k.order_id FROM customer_links__orders(token_sha256s, order_ids) k
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
CREATE OR REPLACE FUNCTION customer_tracks_v2(
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

-- As customer_tracks_v3, of shares. The service must not pass on the door either.
CREATE FUNCTION share_tracks_v2(
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
AS $$
BEGIN
    RETURN QUERY SELECT * FROM customer_tracks_v3(
        share_link__owners(token_sha256s, order_ids), order_ids, known_order_seqs, known_stamps,
        estimated_order_seqs, estimated_fix_ats);
END
$$;

REVOKE EXECUTE ON FUNCTION
    customer_links__orders, customer_order__stamp, customer_tracks_v3, share_tracks_v2
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION customer_tracks_v3, share_tracks_v2 TO customer;
