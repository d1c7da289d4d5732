-- Series: any number over time, of a source's own (box temperature, a ticker); and the counts that
-- the simulators follow.

CREATE TABLE series (
    series_no int4 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE
        CHECK (name ~ '^[A-Za-z0-9_-]{1,64}/[A-Za-z0-9_-]{1,64}$'),
    source_id text COLLATE "C" NOT NULL GENERATED ALWAYS AS (split_part(name, '/', 1)) STORED,
    measure text COLLATE "C" NOT NULL GENERATED ALWAYS AS (split_part(name, '/', 2)) STORED,
    unit text NOT NULL DEFAULT '',
    last_at timestamptz,
    last_value float8
) WITH (fillfactor = 50);  -- the last two change with every batch, and are in no index

-- Each upper bound also keeps NaN out, which PostgreSQL holds to be greater than every number.
CREATE TABLE series_point (
    series_no int4 NOT NULL,
    at timestamptz NOT NULL,
    value float8 NOT NULL CHECK (value > '-Infinity' AND value < 'Infinity'),
    PRIMARY KEY (series_no, at)
);

-- How many of a kind the staff wants; the simulators ask every few seconds.
CREATE TABLE simulation (
    kind text COLLATE "C" PRIMARY KEY CHECK (kind IN ('couriers', 'cities', 'tickers')),
    wanted int NOT NULL CHECK (wanted BETWEEN 0 AND 5000),
    set_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- A measure's unit stands at the end of its name, as everywhere here.
CREATE FUNCTION series__unit(measure text)
RETURNS text LANGUAGE sql IMMUTABLE
RETURN CASE substring(measure FROM '_([a-z]+)$')
    WHEN 'm' THEN 'm' WHEN 'mps' THEN 'm/s' WHEN 'kmh' THEN 'km/h' WHEN 's' THEN 's'
    WHEN 'ms' THEN 'ms' WHEN 'deg' THEN '°' WHEN 'c' THEN '°C' WHEN 'pct' THEN '%'
    WHEN 'v' THEN 'V' WHEN 'a' THEN 'A' WHEN 'w' THEN 'W' WHEN 'kg' THEN 'kg' ELSE '' END;

-- Makes this session's incoming_point, or empties it, and lets the caller fill it.
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

-- Writes everything in incoming_point. Returns the rows that were not simply written: `duplicate`,
-- `conflict` (another value under a known instant: the first stays), `too_many_series`.
CREATE FUNCTION series__record_v1()
RETURNS TABLE (n int4, outcome text)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    -- A source may have 1,000 series: '0' is what follows '/'.
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
    ) fresh
    WHERE nth + (
        SELECT count(*) FROM series s
        WHERE s.name >= fresh.source_id || '/' AND s.name < fresh.source_id || '0'
    ) <= 1000
    ON CONFLICT DO NOTHING;

    RETURN QUERY SELECT i.n, 'too_many_series' FROM pg_temp.incoming_point i
        WHERE NOT EXISTS (SELECT FROM series s WHERE s.name = i.name);

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
        -- p: as it was before this statement
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

-- Drops the points before an instant, series by series along the key; returns how many.
CREATE FUNCTION series__forget_v1(before timestamptz)
RETURNS int8 LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
DECLARE
    one int4;
    times int8;
    gone int8 := 0;
BEGIN
    FOR one IN SELECT series_no FROM series LOOP
        DELETE FROM series_point WHERE series_no = one AND at < before;
        GET DIAGNOSTICS times = ROW_COUNT;
        gone := gone + times;
    END LOOP;
    RETURN gone;
END
$$;

-- A series for a picture: every point, if there are no more than `points`; or else, of each of
-- points / 2 equal stretches of time, the lowest and the highest. A row is one point or one stretch
-- and says how many it stands for. Without a series_no it is a driver's, out of the history of fixes.
CREATE FUNCTION series__sample_v1(
    of_series_no int4, of_driver_id text, of_measure text,
    from_at timestamptz, to_at timestamptz, points int
)
RETURNS TABLE (low_at timestamptz, low float8, high_at timestamptz, high float8, stands_for int8)
LANGUAGE plpgsql STABLE
SET search_path = doorstep, public, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    stretch_s float8 := extract(epoch FROM to_at - from_at) / greatest(1, points / 2);
    has_more bool;
BEGIN
    SELECT count(*) > points INTO has_more FROM (
        SELECT FROM series__raw(of_series_no, of_driver_id, of_measure, from_at, to_at)
        LIMIT points + 1
    ) first_ones;
    IF has_more THEN
        RETURN QUERY
            -- arrays compare by value first, and their second member tells the instant
            SELECT to_timestamp((lowest)[2]), (lowest)[1], to_timestamp(-(highest)[2]),
                (highest)[1], times
            FROM (
                SELECT min(ARRAY[r.value, extract(epoch FROM r.at)::float8]) AS lowest,
                    max(ARRAY[r.value, -extract(epoch FROM r.at)::float8]) AS highest,
                    count(*) AS times,
                    floor(extract(epoch FROM r.at - from_at)::float8 / stretch_s) AS nth
                FROM series__raw(of_series_no, of_driver_id, of_measure, from_at, to_at) r
                GROUP BY 4
            ) stretches
            ORDER BY nth;
    ELSE
        RETURN QUERY SELECT r.at, r.value, r.at, r.value, 1::int8
            FROM series__raw(of_series_no, of_driver_id, of_measure, from_at, to_at) r
            ORDER BY r.at;
    END IF;
END
$$;

CREATE FUNCTION series__raw(
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

CREATE FUNCTION simulation__set_v1(of_kind text, count int)
RETURNS void LANGUAGE sql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    INSERT INTO simulation (kind, wanted) VALUES (of_kind, count)
    ON CONFLICT (kind) DO UPDATE SET wanted = EXCLUDED.wanted, set_at = clock_timestamp()
$$;
