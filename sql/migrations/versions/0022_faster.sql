-- A search for the nearest drivers that begins with one cell.

SET LOCAL search_path = doorstep, public;

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
    -- Cells of 0.01 degrees from the grid lines nearest to the place to each edge of the block.
    -- -1 is the place's cell alone, 0 that and the cell across its nearest edge.
    reach int;
    south int;  -- the first row of the block, and its last one; then its columns
    north int;
    west int;
    east int;
    rows_deg float8;  -- from the place to the nearer edge of the block, north or south
    columns_deg float8;  -- east or west
    first_columns int[];  -- of the block: two ranges where it crosses 180 degrees
    last_columns int[];
    safe_m float8;
    l limits;
    recent_at timestamptz;
    nearest driver_distance[];
BEGIN
    SELECT * INTO STRICT l FROM limits;
    recent_at := clock_timestamp() - make_interval(secs => l.nearest_max_age_s);
    FOREACH reach IN ARRAY ARRAY[-1, 0, 1, 3, 9, 27, 81] LOOP
        IF reach = -1 THEN
            south := floor(from_lat_deg * 100);
            north := south;
            west := floor(from_lon_deg * 100);
            east := west;
        ELSIF reach = 0 THEN
            IF rows_deg < columns_deg * cosd(from_lat_deg) THEN
                south := least(south, round(from_lat_deg * 100) - 1);
                north := greatest(north, round(from_lat_deg * 100));
            ELSE
                west := least(west, round(from_lon_deg * 100) - 1);
                east := greatest(east, round(from_lon_deg * 100));
            END IF;
        ELSE
            south := round(from_lat_deg * 100) - reach;
            north := south + 2 * reach - 1;
            west := round(from_lon_deg * 100) - reach;
            east := west + 2 * reach - 1;
        END IF;
        rows_deg := least(from_lat_deg - south / 100.0, (north + 1) / 100.0 - from_lat_deg);
        columns_deg := least(from_lon_deg - west / 100.0, (east + 1) / 100.0 - from_lon_deg);
        first_columns := ARRAY[greatest(west + 18000, 0)];
        last_columns := ARRAY[least(east + 18000, 35999)];
        IF west + 18000 < 0 THEN
            first_columns := first_columns || west + 54000;
            last_columns := last_columns || 35999;
        ELSIF east + 18000 > 35999 THEN
            first_columns := first_columns || 0;
            last_columns := last_columns || east - 18000;
        END IF;
        -- a degree of longitude is shortest at the block's edge nearest to a pole
        safe_m := 111195 * least(rows_deg,
            columns_deg * cosd(least(abs(from_lat_deg) + rows_deg, 89)));
        nearest := ARRAY(
            SELECT (d.driver_id, m.distance_m)::driver_distance
            FROM generate_series(south + 9000, north + 9000) AS r (cell_row)
            CROSS JOIN unnest(first_columns, last_columns) AS k (first_column, last_column)
            -- OFFSET 0 keeps the order of the look-ups, whatever the planner expects of a block
            CROSS JOIN LATERAL (
                SELECT c.driver_id FROM driver_cell c
                WHERE c.cell BETWEEN r.cell_row * 36000 + k.first_column
                    AND r.cell_row * 36000 + k.last_column
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
