-- What tracking_api reads of series and simulations. Parameters are psycopg's %(name)s.


-- read_series_page --
SELECT name, unit, last_at, last_value
FROM series
WHERE name > %(after)s AND name >= %(prefix)s AND starts_with(name, %(prefix)s)
ORDER BY name
LIMIT %(limit)s

-- read_driver_series_page --
SELECT driver_id, fix_at, battery, speed_mps
FROM driver_state
WHERE fix_at IS NOT NULL AND driver_id >= %(after)s AND driver_id >= %(prefix)s
    AND CASE WHEN %(is_whole_id)s THEN driver_id = %(prefix)s
        ELSE starts_with(driver_id, %(prefix)s) END
ORDER BY driver_id
LIMIT %(limit)s

-- find_series --
SELECT series_no, unit FROM series WHERE name = %(name)s

-- find_driver_series --
SELECT driver_id FROM driver_state WHERE driver_id = %(driver_id)s

-- read_series_sample --
SELECT low_at, low, high_at, high, point_count
FROM series__downsample_v1(%(series_no)s::int4, %(driver_id)s::text, %(measure)s, %(from_at)s,
    %(to_at)s, %(points)s)

-- read_simulations --
SELECT kind, target_count, set_at FROM simulation_target
