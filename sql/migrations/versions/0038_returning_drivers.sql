-- Drivers who take a failed order back are marked on the map of a large fleet and in what staff reads.

-- Returns one vector tile: each driver in it, or, with more than at_most drivers, the mean place
-- and the count of each non-empty cell of a 16 x 16 grid. A place of a single driver has its id and
-- state, and is_returning if the driver takes a failed order back. Each driver is in exactly one
-- tile per zoom level. The caller defines silent, lost and stationary.
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
                WHEN h.heard_at < lost_before THEN 'lost'
                WHEN h.heard_at < silent_before THEN 'silent'
                WHEN d.speed_mps < moving_mps THEN 'stationary'
                ELSE 'online'
            END
            FROM (
                -- A phone app is heard of without a new position, too.
                SELECT CASE WHEN d.received_at >= silent_before THEN d.received_at
                    ELSE greatest(d.received_at, (
                        SELECT c.heard_at FROM phone_credential c WHERE c.driver_id = d.driver_id
                    )) END
            ) AS h (heard_at)
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
    SELECT ST_AsMVT(marked, 'drivers', 4096, 'geom') INTO tile
    FROM (
        SELECT p.*, CASE WHEN p.state = 'available' AND EXISTS (
            SELECT FROM order_return r
            WHERE r.driver_id = p.driver_id AND r.ended_at IS NULL OFFSET 0
        ) THEN true END AS is_returning  -- null: left out
        FROM places p
    ) AS marked;
    RETURN tile;
END
$$;

GRANT SELECT (driver_id, ended_at) ON order_return TO tracking_api;
