-- Reads in one statement each: tokens, what customers see, the nearest drivers, tiles.

SET LOCAL search_path = doorstep, public;

-- The good ones of many tokens: as find_token_v2, in one statement with a plan that is kept.
CREATE FUNCTION find_tokens_v1(token_sha256s bytea[])
RETURNS TABLE (
    token_sha256 bytea, role token_role, driver_id text, order_id uuid, name text,
    staff_role staff_role
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
        SELECT t.token_sha256, t.role, t.driver_id, t.order_id, t.name, s.role
        FROM unnest(token_sha256s) AS k (token_sha256)
        JOIN access_token t ON t.token_sha256 = k.token_sha256
        LEFT JOIN orders o ON o.order_id = t.order_id
        LEFT JOIN staff s ON s.name = t.name
        WHERE t.revoked_at IS NULL AND s.revoked_at IS NULL
            AND (s.role IS NULL OR s.role IN ('viewer', 'dispatcher', 'admin'))
            AND (t.expires_at IS NULL OR now < t.expires_at)
            AND (o.ended_at IS NULL
                OR now < o.ended_at + make_interval(secs => (SELECT customer_token_s FROM limits)));
END
$$;

-- Returns no row for a token that is unknown, revoked, expired, or of a staff role without routes.
-- A customer's token expires limits.customer_token_s after the end of the order.
CREATE OR REPLACE FUNCTION find_token_v1(of_token_sha256 bytea)
RETURNS TABLE (role token_role, driver_id text, order_id uuid)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT f.role, f.driver_id, f.order_id
        FROM find_tokens_v1(ARRAY[of_token_sha256]) f;
END
$$;

-- Like find_token_v1, with the name and role of staff.
CREATE OR REPLACE FUNCTION find_token_v2(of_token_sha256 bytea)
RETURNS TABLE (role token_role, driver_id text, order_id uuid, name text, staff_role staff_role)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT f.role, f.driver_id, f.order_id, f.name, f.staff_role
        FROM find_tokens_v1(ARRAY[of_token_sha256]) f;
END
$$;

-- Returns available drivers with a recent position, nearest first. Searches a block of cells around
-- the place, and enlarges it until it holds enough drivers. A driver counts only if no nearer one
-- can be outside the block. The first block has 2 x 2 cells, because a cell may hold thousands.
CREATE OR REPLACE FUNCTION nearest_drivers_v1(from_lon_deg float8, from_lat_deg float8, at_most int)
RETURNS TABLE (
    driver_id text, distance_m float8, fix_at timestamptz, lon_deg float8, lat_deg float8
)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_memoize = off  -- no driver is in two cells
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    reach int;  -- cells of 0.01 degrees from `south` and `west` to each edge of the block
    south CONSTANT int := round(from_lat_deg * 100);  -- the grid line nearest to the place
    west CONSTANT int := round(from_lon_deg * 100);
    rows_deg float8;  -- from the place to the nearer edge of the block, north or south
    columns_deg float8;  -- east or west
    safe_m float8;
    l limits;
    recent_at timestamptz;
    nearest driver_distance[];
BEGIN
    SELECT * INTO STRICT l FROM limits;
    recent_at := clock_timestamp() - make_interval(secs => l.nearest_max_age_s);
    FOREACH reach IN ARRAY ARRAY[1, 3, 9, 27, 81] LOOP
        rows_deg := reach / 100.0 - abs(from_lat_deg - south / 100.0);
        columns_deg := reach / 100.0 - abs(from_lon_deg - west / 100.0);
        -- a degree of longitude is shortest at the block's edge nearest to a pole
        safe_m := 111195 * least(rows_deg,
            columns_deg * cosd(least(abs(from_lat_deg) + rows_deg, 89)));
        nearest := ARRAY(
            SELECT (d.driver_id, m.distance_m)::driver_distance
            FROM generate_series(south - reach + 9000, south + reach - 1 + 9000) AS r (cell_row)
            -- OFFSET 0 keeps the order of the look-ups, whatever the planner expects of a block
            CROSS JOIN LATERAL (
                SELECT c.driver_id FROM driver_cell c
                WHERE c.cell BETWEEN r.cell_row * 36000 + west - reach + 18000
                    AND r.cell_row * 36000 + west + reach - 1 + 18000
                OFFSET 0
            ) c
            CROSS JOIN LATERAL (
                SELECT s.driver_id, s.lon_deg, s.lat_deg FROM driver_state s
                WHERE s.driver_id = c.driver_id AND s.state = 'available'
                    AND s.lat_deg BETWEEN from_lat_deg - safe_m / 111195
                        AND from_lat_deg + safe_m / 111195  -- excludes many cheaply
                    AND s.fix_at > recent_at
                OFFSET 0
            ) d
            CROSS JOIN LATERAL (
                SELECT ground_distance_m(d.lon_deg, d.lat_deg, from_lon_deg, from_lat_deg)
            ) AS m (distance_m)
            WHERE m.distance_m <= least(safe_m, l.nearest_max_m)
            ORDER BY m.distance_m, d.driver_id
            LIMIT at_most
        );
        EXIT WHEN cardinality(nearest) >= at_most OR safe_m >= l.nearest_max_m;
    END LOOP;
    RETURN QUERY
        SELECT d.driver_id, f.distance_m, d.fix_at, d.lon_deg, d.lat_deg
        FROM unnest(nearest) f JOIN driver_state d ON d.driver_id = f.driver_id
        ORDER BY f.distance_m, d.driver_id;
END
$$;

-- Returns one vector tile: each driver in it, or, with more than at_most drivers, the mean place
-- and the count of each non-empty cell of a 16 x 16 grid. A place of a single driver has its id and
-- state. Each driver is in exactly one tile per zoom level. The caller defines silent, lost and
-- stationary.
CREATE OR REPLACE FUNCTION fleet_tile_v1(
    z int, x int, y int, of_states text[], of_duties text[], of_presences text[],
    silent_after_s float8, lost_after_s float8, moving_mps float8, at_most int
)
RETURNS bytea LANGUAGE plpgsql STABLE
SET search_path = doorstep, public, pg_temp
SET enable_hashjoin = off  -- candidates are looked up by key
SET enable_mergejoin = off
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    west CONSTANT float8 := x / 2.0 ^ z * 360 - 180;
    east CONSTANT float8 := (x + 1) / 2.0 ^ z * 360 - 180;
    north CONSTANT float8 := degrees(atan(sinh(pi() * (1 - 2 * y / 2.0 ^ z))));
    south CONSTANT float8 := degrees(atan(sinh(pi() * (1 - 2 * (y + 1) / 2.0 ^ z))));
    -- Web Mercator's y. Plain arithmetic is faster than PROJ.
    top CONSTANT float8 := pi() * (1 - 2 * y / 2.0 ^ z);
    high CONSTANT float8 := 2 * pi() / 2.0 ^ z;
    silent_before CONSTANT timestamptz := clock_timestamp() - make_interval(secs => silent_after_s);
    lost_before CONSTANT timestamptz := clock_timestamp() - make_interval(secs => lost_after_s);
    -- From zoom 9 (0.7 degrees) on, drivers are found by cell; a tile of a lower zoom holds nearly
    -- all of them. Beyond 20,000 candidates a sequential scan is faster.
    candidates text[] := CASE WHEN z >= 9 THEN ARRAY(
        SELECT c.driver_id
        FROM generate_series(floor(south * 100)::int, floor(north * 100)::int) AS r (cell_row)
        CROSS JOIN LATERAL (
            SELECT k.driver_id FROM driver_cell k
            WHERE k.cell BETWEEN (r.cell_row + 9000) * 36000 + floor(west * 100)::int + 18000
                AND (r.cell_row + 9000) * 36000 + floor(east * 100)::int + 18000
            OFFSET 0
        ) c
        LIMIT 20000
    ) END;
    tile bytea;
BEGIN
    IF cardinality(candidates) = 20000 THEN
        candidates := NULL;
    END IF;
    WITH inside AS MATERIALIZED (
        SELECT d.driver_id, d.state, d.duty, p.presence,
            round((d.lon_deg - west) / (east - west) * 4096) AS px,
            round((top - ln(tan(pi() / 4 + radians(d.lat_deg) / 2))) / high * 4096) AS py
        FROM (
            -- only the part for which the condition holds is run
            SELECT s.* FROM unnest(candidates) AS c (driver_id)
                CROSS JOIN LATERAL (
                    SELECT * FROM driver_state t WHERE t.driver_id = c.driver_id OFFSET 0
                ) s
                WHERE candidates IS NOT NULL
            UNION ALL
            -- the whole table in sequence, in spite of enable_seqscan
            SELECT s.* FROM driver_state s TABLESAMPLE SYSTEM (100) WHERE candidates IS NULL
        ) d
        CROSS JOIN LATERAL (
            SELECT CASE
                WHEN d.received_at < lost_before THEN 'lost'
                WHEN d.received_at < silent_before THEN 'silent'
                WHEN d.speed_mps < moving_mps THEN 'stationary'
                ELSE 'online'
            END
        ) AS p (presence)
        WHERE d.lon_deg >= west AND d.lon_deg < east AND d.lat_deg <= north AND d.lat_deg > south
            AND NOT EXISTS (
                SELECT FROM device_credential c
                WHERE c.device_id = d.driver_id AND c.removed_at IS NOT NULL
            )
            AND (of_states IS NULL OR d.state::text = ANY (of_states))
            AND (of_duties IS NULL OR d.duty::text = ANY (of_duties))
            AND (of_presences IS NULL OR p.presence = ANY (of_presences))
    ), many AS MATERIALIZED (  -- counted once, in every plan
        SELECT count(*) > at_most AS are_many FROM inside
    ), places AS (
        SELECT ST_MakePoint(px, py) AS geom, 1 AS count, driver_id, state::text AS state,
            duty::text AS duty, presence
        FROM inside
        WHERE NOT (SELECT are_many FROM many)
        UNION ALL
        SELECT ST_MakePoint(round(avg(px)), round(avg(py))), count(*)::int,
            CASE WHEN count(*) = 1 THEN min(driver_id) END,
            CASE WHEN count(*) = 1 THEN min(state)::text END,
            CASE WHEN count(*) = 1 THEN min(duty)::text END,
            CASE WHEN count(*) = 1 THEN min(presence) END
        FROM inside
        WHERE (SELECT are_many FROM many)
        GROUP BY floor(px / 256), floor(py / 256)
    )
    SELECT ST_AsMVT(places, 'drivers', 4096, 'geom') INTO tile FROM places;
    RETURN tile;
END
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
        SELECT json_agg(json_build_array(h.fix_at, h.lon_deg, h.lat_deg) ORDER BY h.key DESC)
        FROM (
            SELECT x.*, row_number() OVER () AS key FROM (
                SELECT f.fix_at, f.lon_deg, f.lat_deg
                FROM customer_view__fixes(view, since, before) f
                ORDER BY f.fix_at DESC, f.boot DESC, f.seq DESC
                LIMIT at_most
            ) x
        ) h
    );
END
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
            ))
        FROM orders o
        JOIN restaurant r ON r.restaurant_id = o.restaurant_id
        JOIN policy p ON p.policy_id = o.policy_id
        LEFT JOIN assignment a ON a.order_id = o.order_id AND a.assignment_no = o.assignment_no
            AND upper_inf(a.visible)
        WHERE o.order_id = of_order_id
    );
END
$$;

-- What GET, the snapshot of a stream and an order with new events show, for many links: `n` is the
-- position of a link in the arguments. A caller passes what it holds of each order: details of an
-- event, and an estimate for an event and a fix. While these are the newest, `details` and `trail`
-- (the last 5 minutes, without the position) are left out. What may be shown does not depend on
-- them. The service must not pass on driver_id.
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
        SELECT k.n, o.order_id, o.order_seq, v AS view
        FROM customer_links__good(token_sha256s, order_ids) k
        CROSS JOIN LATERAL (SELECT * FROM orders t WHERE t.order_id = k.order_id OFFSET 0) o
        LEFT JOIN LATERAL customer_view__of(o.order_id, o.assignment_no) v ON true
    )
    -- A function call inside CASE costs nothing where it is not needed. Its plan has its own cache.
    SELECT f.n, at, f.order_seq, (f.view).driver_id,
        p.fix_at, p.received_at, p.lon_deg, p.lat_deg, p.accuracy_m, p.speed_mps, p.heading_deg,
        CASE WHEN known_order_seqs[f.n] IS DISTINCT FROM f.order_seq
            THEN customer_order__details(f.order_id) END,
        CASE WHEN p.fix_at > trail_since AND (estimated_order_seqs[f.n] = f.order_seq
                AND estimated_fix_ats[f.n] = p.fix_at) IS NOT true
            THEN customer_view__trail(f.view, trail_since, p.fix_at, trail_fixes) END
    FROM found f
    LEFT JOIN LATERAL customer_view__position(f.view, later) p ON true;
END
$$;

REVOKE EXECUTE ON FUNCTION
    find_tokens_v1, customer_view__trail, customer_order__details, customer_tracks_v2
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION find_tokens_v1 TO tracking_api;
GRANT EXECUTE ON FUNCTION customer_tracks_v2 TO customer;
