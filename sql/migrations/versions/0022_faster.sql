-- Cells of half the width: the search for the nearest drivers and tiles read fewer drivers.

SET LOCAL search_path = doorstep, public;

CREATE OR REPLACE FUNCTION cell_of(lon_deg float8, lat_deg float8)
RETURNS int4 LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN floor(lat_deg * 200)::int4 * 72000 + least(floor(lon_deg * 200)::int4 + 36000, 71999);

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
    reach int;  -- cells of 0.005 degrees from the grid lines nearest to the place to each edge of
                -- the block; 0 is the place's cell alone
    south int;  -- the first row of the block, and its last one; then its columns
    north int;
    west int;
    east int;
    rows_deg float8;  -- from the place to the nearer edge of the block, north or south
    columns_deg float8;  -- east or west
    safe_m float8;
    l limits;
    recent_at timestamptz;
    nearest driver_distance[];
BEGIN
    SELECT * INTO STRICT l FROM limits;
    recent_at := clock_timestamp() - make_interval(secs => l.nearest_max_age_s);
    FOREACH reach IN ARRAY ARRAY[0, 1, 3, 9, 27, 81, 162] LOOP
        south := CASE reach WHEN 0 THEN floor(from_lat_deg * 200)
            ELSE round(from_lat_deg * 200) - reach END;
        north := CASE reach WHEN 0 THEN south ELSE south + 2 * reach - 1 END;
        west := CASE reach WHEN 0 THEN floor(from_lon_deg * 200)
            ELSE round(from_lon_deg * 200) - reach END;
        east := CASE reach WHEN 0 THEN west ELSE west + 2 * reach - 1 END;
        rows_deg := least(from_lat_deg - south / 200.0, (north + 1) / 200.0 - from_lat_deg);
        columns_deg := least(from_lon_deg - west / 200.0, (east + 1) / 200.0 - from_lon_deg);
        -- a degree of longitude is shortest at the block's edge nearest to a pole
        safe_m := 111195 * least(rows_deg,
            columns_deg * cosd(least(abs(from_lat_deg) + rows_deg, 89)));
        nearest := ARRAY(
            SELECT (d.driver_id, m.distance_m)::driver_distance
            FROM generate_series(south, north) AS r (cell_row)
            -- OFFSET 0 keeps the order of the look-ups, whatever the planner expects of a block
            CROSS JOIN LATERAL (
                SELECT c.driver_id FROM driver_cell c
                WHERE c.cell BETWEEN r.cell_row * 72000 + west + 36000
                    AND r.cell_row * 72000 + east + 36000
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
        FROM generate_series(floor(south * 200)::int, floor(north * 200)::int) AS r (cell_row)
        CROSS JOIN LATERAL (
            SELECT k.driver_id FROM driver_cell k
            WHERE k.cell BETWEEN r.cell_row * 72000 + floor(west * 200)::int + 36000
                AND r.cell_row * 72000 + floor(east * 200)::int + 36000
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

UPDATE driver_state SET cell = cell_of(lon_deg, lat_deg)
WHERE cell IS DISTINCT FROM cell_of(lon_deg, lat_deg);

UPDATE driver_cell c SET cell = s.cell
FROM driver_state s
WHERE s.driver_id = c.driver_id AND c.cell <> s.cell;
