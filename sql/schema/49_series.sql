-- Series: numbers over time published by a source (box temperature, a ticker). Simulation targets:
-- the numbers of couriers, cities and tickers to simulate.

CREATE TABLE series (
    series_no int4 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE
        CHECK (name ~ '^[A-Za-z0-9_-]{1,64}/[A-Za-z0-9_-]{1,64}$'),
    source_id text COLLATE "C" NOT NULL GENERATED ALWAYS AS (split_part(name, '/', 1)) STORED,
    measure text COLLATE "C" NOT NULL GENERATED ALWAYS AS (split_part(name, '/', 2)) STORED,
    unit text NOT NULL DEFAULT '',
    last_at timestamptz,
    last_value float8
) WITH (fillfactor = 50);  -- the last two columns change with every batch and are not indexed

-- The upper bound also excludes NaN, which PostgreSQL sorts above every number.
CREATE TABLE series_point (
    series_no int4 NOT NULL,
    at timestamptz NOT NULL,
    value float8 NOT NULL CHECK (value > '-Infinity' AND value < 'Infinity'),
    PRIMARY KEY (series_no, at)
);

-- How many of each kind staff has requested. The simulators poll it every few seconds.
CREATE TABLE simulation_target (
    kind text COLLATE "C" PRIMARY KEY CHECK (kind IN ('couriers', 'cities', 'tickers')),
    target_count int NOT NULL CHECK (target_count BETWEEN 0 AND 5000),
    set_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Derives the unit of a measure from the suffix of its name.
CREATE FUNCTION series__unit(measure text)
RETURNS text LANGUAGE sql IMMUTABLE
RETURN CASE substring(measure FROM '_([a-z]+)$')
    WHEN 'm' THEN 'm' WHEN 'mps' THEN 'm/s' WHEN 'kmh' THEN 'km/h' WHEN 's' THEN 's'
    WHEN 'ms' THEN 'ms' WHEN 'deg' THEN '°' WHEN 'c' THEN '°C' WHEN 'pct' THEN '%'
    WHEN 'v' THEN 'V' WHEN 'a' THEN 'A' WHEN 'w' THEN 'W' WHEN 'kg' THEN 'kg' ELSE '' END;

-- Creates or empties the session's incoming_point, and grants INSERT on it to the caller.
CREATE FUNCTION series__prepare_v1()
RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
BEGIN
    IF to_regclass('pg_temp.incoming_point') IS NULL THEN
        CREATE TEMP TABLE incoming_point (
            n int4 NOT NULL,
            name text COLLATE "C" NOT NULL,
            at timestamptz NOT NULL,
            value float8 NOT NULL
        ) ON COMMIT DELETE ROWS;
        EXECUTE format('GRANT INSERT ON pg_temp.incoming_point TO %I', session_user);
    ELSE
        TRUNCATE pg_temp.incoming_point;
    END IF;
END
$$;

-- Writes all of incoming_point. Returns the rows with another outcome than "written": `duplicate`,
-- `conflict` (another value for a stored instant: the first stays), `too_many_series`. Nothing is
-- stored of a driver whose data were erased.
CREATE FUNCTION series__record_v1()
RETURNS TABLE (n int4, outcome text)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    -- A source may have 1,000 series. In ASCII, '0' follows '/'.
    INSERT INTO series (name, unit)
    SELECT name, series__unit(split_part(name, '/', 2))
    FROM (
        SELECT f.name, f.source_id,
            row_number() OVER (PARTITION BY f.source_id ORDER BY f.first_n) AS nth
        FROM (
            SELECT i.name, split_part(i.name, '/', 1) AS source_id, min(i.n) AS first_n
            FROM pg_temp.incoming_point i
            WHERE NOT EXISTS (SELECT FROM series s WHERE s.name = i.name)
            GROUP BY i.name
        ) f
        WHERE NOT EXISTS (SELECT FROM device_credential c
            WHERE c.device_id = f.source_id AND c.forgotten_at IS NOT NULL)
    ) candidate
    WHERE nth + (
        SELECT count(*) FROM series s
        WHERE s.name >= candidate.source_id || '/' AND s.name < candidate.source_id || '0'
    ) <= 1000
    ON CONFLICT DO NOTHING;

    RETURN QUERY SELECT i.n, 'too_many_series' FROM pg_temp.incoming_point i
        WHERE NOT EXISTS (SELECT FROM series s WHERE s.name = i.name)
            AND NOT EXISTS (SELECT FROM device_credential c
                WHERE c.device_id = split_part(i.name, '/', 1) AND c.forgotten_at IS NOT NULL);

    RETURN QUERY
        WITH numbered AS MATERIALIZED (
            SELECT i.n, s.series_no, i.at, i.value
            FROM pg_temp.incoming_point i JOIN series s USING (name)
        ),
        firsts AS MATERIALIZED (
            SELECT DISTINCT ON (series_no, at) n, series_no, at, value
            FROM numbered ORDER BY series_no, at, n
        ),
        written AS (
            INSERT INTO series_point (series_no, at, value)
            SELECT series_no, at, value FROM firsts ORDER BY series_no, at
            ON CONFLICT DO NOTHING
        )
        -- p is the row before this statement, if any
        SELECT m.n,
            CASE WHEN coalesce(p.value, f.value) = m.value THEN 'duplicate' ELSE 'conflict' END
        FROM numbered m
        JOIN firsts f USING (series_no, at)
        LEFT JOIN series_point p USING (series_no, at)
        WHERE p.series_no IS NOT NULL OR f.n <> m.n;

    WITH newest AS (
        SELECT s.series_no, max(i.at) AS at
        FROM pg_temp.incoming_point i JOIN series s USING (name) GROUP BY s.series_no
    )
    UPDATE series s SET last_at = p.at, last_value = p.value
    FROM newest JOIN series_point p USING (series_no, at)
    WHERE s.series_no = newest.series_no AND (s.last_at IS NULL OR s.last_at < p.at);
END
$$;

-- Deletes the points before an instant, series by series along the key. Returns their number.
CREATE FUNCTION series__expire_v1(before timestamptz)
RETURNS int8 LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
DECLARE
    of_series_no int4;
    series_deleted int8;
    total_deleted int8 := 0;
BEGIN
    FOR of_series_no IN SELECT series_no FROM series LOOP
        DELETE FROM series_point WHERE series_no = of_series_no AND at < before;
        GET DIAGNOSTICS series_deleted = ROW_COUNT;
        total_deleted := total_deleted + series_deleted;
    END LOOP;
    RETURN total_deleted;
END
$$;

-- Downsamples a series for a chart: returns every point, if there are at most `points`; otherwise
-- the lowest and the highest point of each of points / 2 equal intervals. A row is one point or one
-- interval; point_count is the number of points in it. Without series_no the series is a measure of
-- a driver's fixes.
CREATE FUNCTION series__downsample_v1(
    of_series_no int4, of_driver_id text, of_measure text,
    from_at timestamptz, to_at timestamptz, points int
)
RETURNS TABLE (low_at timestamptz, low float8, high_at timestamptz, high float8, point_count int8)
LANGUAGE plpgsql STABLE
SET search_path = doorstep, public, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    interval_s float8 := extract(epoch FROM to_at - from_at) / greatest(1, points / 2);
    has_more bool;
BEGIN
    SELECT count(*) > points INTO has_more FROM (
        SELECT FROM series__points(of_series_no, of_driver_id, of_measure, from_at, to_at)
        LIMIT points + 1
    ) first_ones;
    IF has_more THEN
        RETURN QUERY
            -- arrays compare by value first; the second element carries the instant
            SELECT to_timestamp((lowest)[2]), (lowest)[1], to_timestamp(-(highest)[2]),
                (highest)[1], point_count
            FROM (
                SELECT min(ARRAY[r.value, extract(epoch FROM r.at)::float8]) AS lowest,
                    max(ARRAY[r.value, -extract(epoch FROM r.at)::float8]) AS highest,
                    count(*) AS point_count,
                    floor(extract(epoch FROM r.at - from_at)::float8 / interval_s) AS nth
                FROM series__points(of_series_no, of_driver_id, of_measure, from_at, to_at) r
                GROUP BY 4
            ) intervals
            ORDER BY nth;
    ELSE
        RETURN QUERY SELECT r.at, r.value, r.at, r.value, 1::int8
            FROM series__points(of_series_no, of_driver_id, of_measure, from_at, to_at) r
            ORDER BY r.at;
    END IF;
END
$$;

CREATE FUNCTION series__points(
    of_series_no int4, of_driver_id text, of_measure text,
    from_at timestamptz, to_at timestamptz
)
RETURNS TABLE (at timestamptz, value float8)
LANGUAGE sql STABLE  -- inlined into its caller
AS $$
    SELECT p.at, p.value FROM series_point p
    WHERE p.series_no = of_series_no AND p.at >= from_at AND p.at < to_at
    UNION ALL
    SELECT f.fix_at, CASE of_measure WHEN 'battery' THEN f.battery ELSE f.speed_mps END
    FROM fix_history__between_v1(of_driver_id, from_at, to_at) f
    WHERE of_series_no IS NULL AND f.quarantine IS NULL
        AND CASE of_measure WHEN 'battery' THEN f.battery ELSE f.speed_mps END IS NOT NULL
$$;

CREATE FUNCTION simulation_target__set_v1(of_kind text, new_count int)
RETURNS void LANGUAGE sql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    INSERT INTO simulation_target (kind, target_count) VALUES (of_kind, new_count)
    ON CONFLICT (kind) DO UPDATE
        SET target_count = EXCLUDED.target_count, set_at = clock_timestamp()
$$;
