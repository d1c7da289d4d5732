-- The history at rest: days that can't change any more, packed into chunks of some 10 bytes a fix.
--
--   seal     nothing before sealed_before is stored any more: fix_history__seal_v1
--   pack     a day's fixes, some drivers at a time, become chunks, compared with what they pack
--   switch   from here on readers take the day from its chunks: one row is updated
--   drop     the day's partition, once nobody reads by an older snapshot
--   expire   chunks past limits.history_days
--
-- Each step is a transaction or several, and each can be done again: a crash between two of them
-- leaves fixes in both places for a while, but a reader's snapshot has each from one place only.

-- Up to 2,000 fixes of one driver, boot, day and quarantine, in the order of (fix_at, seq). `coded`
-- is two MULTIPOINTs in TWKB, which codes each column by its differences; the second begins after
-- way_bytes:
--   way   X, Y longitude and latitude, 1e-7 deg (1 cm); Z accuracy_m, 0.1 (-1: none);
--         M ms from midnight UTC, to the microsecond if one of the fixes needs it
--   rest  X speed_mps, 0.1 (-1: none); Y heading_deg / 10, 0.1 (-1: none);
--         Z received_at - fix_at, 0.1 s
-- A line would lose a point that repeats the one before. What seldom changes is kept as runs: the
-- n-th fix is of the last run that begins at n or before. In a run of run_seq, seqs count up by one.
CREATE TABLE fix_chunk (
    driver_id text COLLATE "C" NOT NULL,
    from_at timestamptz NOT NULL,  -- the first fix
    part int4 NOT NULL,  -- tells chunks apart that begin at one instant
    to_at timestamptz NOT NULL,  -- the last fix
    boot text COLLATE "C" NOT NULL,
    quarantine text,
    fixes int4 NOT NULL CHECK (fixes > 0),
    run_at int4[] NOT NULL,
    run_seq int8[] NOT NULL,
    battery_at int4[] NOT NULL,
    battery_pct int2[] NOT NULL,
    way_bytes int4 NOT NULL,
    coded bytea NOT NULL,
    PRIMARY KEY (driver_id, from_at, part)
);
ALTER TABLE fix_chunk ALTER coded SET STORAGE EXTERNAL;  -- compressing takes time, gains nothing
CREATE INDEX fix_chunk_from_at ON fix_chunk USING brin (from_at) WITH (pages_per_range = 16);

-- Makes the chunks' columns from fixes in their order. The one place that knows how a column of
-- fix_history is coded; the one below is its inverse.
CREATE FUNCTION fix_chunk__pack(of_day timestamptz, of_drivers text[])
RETURNS SETOF fix_chunk LANGUAGE sql STABLE AS $$
    WITH fix AS (
        SELECT h.*, round(h.battery * 100)::int2 AS pct,
            (row_number() OVER in_order - 1) / 2000 AS piece,
            ((row_number() OVER in_order - 1) % 2000 + 1)::int4 AS n
        FROM fix_history h
        WHERE h.driver_id = ANY (of_drivers)
            AND h.fix_at >= of_day AND h.fix_at < of_day + interval '24 hours'
        WINDOW in_order AS (
            PARTITION BY h.driver_id, h.boot, h.quarantine ORDER BY h.fix_at, h.seq
        )
    ),
    marked AS (
        SELECT f.*,
            f.seq - 1 IS DISTINCT FROM lag(f.seq) OVER in_order AS begins,
            n = 1 OR f.pct IS DISTINCT FROM lag(f.pct) OVER in_order AS changes
        FROM fix f
        WINDOW in_order AS (
            PARTITION BY f.driver_id, f.boot, f.quarantine, f.piece ORDER BY f.n
        )
    ),
    packed AS (
        SELECT driver_id, boot, quarantine, piece, min(fix_at) AS from_at, max(fix_at) AS to_at,
            count(*)::int4 AS fixes,
            array_agg(n ORDER BY n) FILTER (WHERE begins) AS run_at,
            array_agg(seq ORDER BY n) FILTER (WHERE begins) AS run_seq,
            array_agg(n ORDER BY n) FILTER (WHERE changes) AS battery_at,
            array_agg(pct ORDER BY n) FILTER (WHERE changes) AS battery_pct,
            ST_AsTWKB(ST_Collect(array_agg(ST_MakePoint(
                    lon_deg, lat_deg, coalesce(accuracy_m, -1),
                    date_part('epoch', fix_at - of_day) * 1000
                ) ORDER BY n)),
                7, 1, CASE WHEN bool_or(date_part('microseconds', fix_at)::int8 % 1000 <> 0)
                    THEN 3 ELSE 0 END) AS way,
            ST_AsTWKB(ST_Collect(array_agg(ST_MakePoint(
                    coalesce(speed_mps, -1),
                    coalesce(round(heading_deg)::int4 % 360 / 10.0, -1),
                    date_part('epoch', received_at - fix_at)
                ) ORDER BY n)),
                1, 1) AS rest
        FROM marked
        GROUP BY driver_id, boot, quarantine, piece
    )
    SELECT driver_id, from_at,
        row_number() OVER (
            PARTITION BY driver_id, from_at ORDER BY boot, quarantine, piece
        )::int4,
        to_at, boot, quarantine, fixes, run_at, run_seq, battery_at, battery_pct,
        length(way), way || rest
    FROM packed
$$;

-- The fixes of a chunk.
CREATE FUNCTION fix_chunk__unpack(c fix_chunk)
RETURNS TABLE (
    driver_id text, fix_at timestamptz, boot text, seq int8, received_at timestamptz,
    lon_deg float8, lat_deg float8, accuracy_m float8, speed_mps float8, heading_deg float8,
    battery float8, quarantine text
)
LANGUAGE sql STABLE PARALLEL SAFE  -- inlined, so that what is asked of a chunk is asked first
BEGIN ATOMIC
    SELECT c.driver_id, at.fix_at, c.boot,
        c.run_seq[at.run] + (p.n - c.run_at[at.run]),
        at.fix_at + ST_Z(p.rest) * interval '1 second',
        ST_X(p.way), ST_Y(p.way),
        CASE WHEN ST_Z(p.way) >= 0 THEN ST_Z(p.way) END,
        CASE WHEN ST_X(p.rest) >= 0 THEN ST_X(p.rest) END,
        CASE WHEN ST_Y(p.rest) >= 0 THEN round(ST_Y(p.rest) * 10) END,
        c.battery_pct[width_bucket(p.n::int4, c.battery_at)] / 100.0::float8,
        c.quarantine
    FROM ROWS FROM (
        ST_Dump(ST_GeomFromTWKB(substring(c.coded FOR c.way_bytes))),
        ST_Dump(ST_GeomFromTWKB(substring(c.coded FROM c.way_bytes + 1)))
    ) WITH ORDINALITY AS p (way_path, way, rest_path, rest, n)
    CROSS JOIN LATERAL (
        SELECT width_bucket(p.n::int4, c.run_at) AS run,
            date_trunc('day', c.from_at, 'UTC') + ST_M(p.way) * interval '1 millisecond' AS fix_at
    ) AS at;
END;

-- Some places of a chunk, evenly spread over its fixes: a tenth of the time of unpacking it all.
CREATE FUNCTION fix_chunk__sample(c fix_chunk, at_most int)
RETURNS TABLE (fix_at timestamptz, lon_deg float8, lat_deg float8)
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT date_trunc('day', c.from_at, 'UTC') + ST_M(p.place) * interval '1 millisecond',
        ST_X(p.place), ST_Y(p.place)
    FROM (SELECT ST_LineFromMultiPoint(
            ST_GeomFromTWKB(substring(c.coded FOR c.way_bytes))
        ) AS line OFFSET 0) AS w
    CROSS JOIN generate_series(0, least(c.fixes, at_most) - 1) AS k (k)
    CROSS JOIN LATERAL (
        SELECT ST_PointN(w.line, 1 + (k.k::int8 * c.fixes / least(c.fixes, at_most))::int)
    ) AS p (place);
END;

-- The seqs of a chunk.
CREATE FUNCTION fix_chunk__seqs(run_at int4[], run_seq int8[], fixes int4)
RETURNS int8multirange LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT range_agg(int8range(r.seq, r.seq + coalesce(run_at[r.k + 1], fixes + 1) - r.at))
    FROM unnest(run_at, run_seq) WITH ORDINALITY AS r (at, seq, k);
END;

-- A driver's fixes of a time, wherever they lie: what every reader of the past asks.
CREATE FUNCTION fix_history__between_v1(
    of_driver_id text, since timestamptz, before timestamptz
)
RETURNS TABLE (
    driver_id text, fix_at timestamptz, boot text, seq int8, received_at timestamptz,
    lon_deg float8, lat_deg float8, accuracy_m float8, speed_mps float8, heading_deg float8,
    battery float8, quarantine text
)
LANGUAGE sql STABLE PARALLEL SAFE  -- inlined: one statement, one snapshot
BEGIN ATOMIC
    SELECT h.driver_id, h.fix_at, h.boot, h.seq, h.received_at, h.lon_deg, h.lat_deg,
        h.accuracy_m, h.speed_mps, h.heading_deg, h.battery, h.quarantine
    FROM fix_history h
    WHERE h.driver_id = of_driver_id AND h.fix_at >= since AND h.fix_at < before
        AND h.fix_at >= (SELECT s.packed_before FROM sealed_before s)
    UNION ALL
    SELECT u.driver_id, u.fix_at, u.boot, u.seq, u.received_at, u.lon_deg, u.lat_deg,
        u.accuracy_m, u.speed_mps, u.heading_deg, u.battery, u.quarantine
    FROM fix_chunk c CROSS JOIN LATERAL fix_chunk__unpack(c) u
    WHERE c.driver_id = of_driver_id
        AND c.from_at > since - interval '24 hours'  -- no chunk is longer than a day
        AND c.from_at < before AND c.to_at >= since
        AND c.to_at < (SELECT s.packed_before FROM sealed_before s)
        AND u.fix_at >= since AND u.fix_at < before;
END;

-- How far the history may be sealed, and why no further; the least counts. `unread_since`: when
-- the oldest record of driver-pos arrived that is not read yet; null if there is none.
CREATE FUNCTION fix_history__may_seal_v1(unread_since timestamptz)
RETURNS TABLE (reason text, before timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    WITH edge AS (
        SELECT make_interval(secs => l.lateness_s) AS lateness,
            now() - make_interval(secs => l.lateness_s + l.kafka_retention_s) AS at
        FROM limits l
    )
    SELECT 'age', e.at FROM edge e
    UNION ALL
    SELECT 'unread', unread_since - e.lateness FROM edge e WHERE unread_since IS NOT NULL
    UNION ALL
    SELECT 'parked', min(p.fix_at) FROM parked_fix p HAVING min(p.fix_at) IS NOT NULL
    UNION ALL
    -- a window that is open, or may still get fixes, needs all of its own
    (
        SELECT 'order ' || a.order_id, a.assigned_at FROM assignment a, edge e
        WHERE a.ended_at IS NULL OR a.ended_at > e.at ORDER BY a.assigned_at LIMIT 1
    )
$$;

-- Seals up to an instant. A writer that judged by the older seal may still be under way: see
-- fix_history__is_quiet_v1.
CREATE FUNCTION fix_history__seal_v1(before timestamptz)
RETURNS xid8 LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
BEGIN
    IF before > (SELECT m.before FROM fix_history__may_seal_v1(NULL) m WHERE m.reason = 'age') THEN
        RAISE EXCEPTION 'fixes of % may still come', before USING ERRCODE = '22023';
    END IF;
    UPDATE sealed_before s SET sealed_before = before WHERE s.sealed_before < before;
    RETURN pg_current_xact_id();
END
$$;

-- Whether every transaction that wrote while this one did is over.
CREATE FUNCTION fix_history__is_quiet_v1(since xid8)
RETURNS bool LANGUAGE sql STABLE
RETURN pg_snapshot_xmin(pg_current_snapshot()) > since;

-- The days that lie wholly before an instant and are not packed, the oldest first.
CREATE FUNCTION fix_history__days_v1(before timestamptz)
RETURNS SETOF date LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
SET timezone = 'UTC'
AS $$
    SELECT d.day FROM (
        SELECT to_date(right(c.relname, 8), 'YYYYMMDD') AS day
        FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'doorstep.fix_history'::regclass AND c.relname ~ '^fix_history_\d{8}$'
        UNION
        SELECT DISTINCT fix_at::date FROM fix_history_default
    ) d
    CROSS JOIN sealed_before s
    WHERE d.day + 1 <= before AND d.day >= s.packed_before
    ORDER BY d.day
$$;

-- Packs the fixes that some drivers, the next after `after`, have on a sealed day, and compares
-- every fix with its packed self. Returns the last of these drivers; no row when there is no more.
CREATE FUNCTION fix_history__pack_v1(of_day date, after text, at_most int)
RETURNS TABLE (last_driver_id text, fixes int8, chunks int8)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    day CONSTANT timestamptz := of_day;
    next_day CONSTANT timestamptz := of_day + 1;
    drivers text[];
    worse int8;
BEGIN
    PERFORM FROM sealed_before s
        WHERE s.sealed_before >= next_day AND s.packed_before <= day FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION '% is not sealed, or is packed', of_day USING ERRCODE = '22023';
    END IF;
    drivers := ARRAY(
        SELECT DISTINCT h.driver_id FROM fix_history h
        WHERE h.fix_at >= day AND h.fix_at < next_day AND h.driver_id > coalesce(after, '')
        ORDER BY h.driver_id LIMIT at_most
    );
    IF drivers = '{}' THEN
        RETURN;
    END IF;
    DELETE FROM fix_chunk c WHERE c.driver_id = ANY (drivers)  -- of a run that came to no end
        AND c.from_at >= day AND c.from_at < next_day;
    INSERT INTO fix_chunk SELECT * FROM fix_chunk__pack(day, drivers);

    SELECT count(*), count(*) FILTER (WHERE NOT coalesce(
        abs(u.lon_deg - h.lon_deg) < 1e-7 AND abs(u.lat_deg - h.lat_deg) < 1e-7
        AND u.quarantine IS NOT DISTINCT FROM h.quarantine
        AND abs(date_part('epoch', u.received_at - h.received_at)) < 0.051
        AND coalesce(abs(u.accuracy_m - h.accuracy_m) < 0.051,
            u.accuracy_m IS NULL AND h.accuracy_m IS NULL)
        AND coalesce(abs(u.speed_mps - h.speed_mps) < 0.051,
            u.speed_mps IS NULL AND h.speed_mps IS NULL)
        AND coalesce(abs(u.battery - h.battery) < 0.0051,
            u.battery IS NULL AND h.battery IS NULL)
        AND coalesce(abs(u.heading_deg - h.heading_deg) < 0.51  -- or 359.7 and 0
            OR abs(u.heading_deg - h.heading_deg) > 359.4,
            u.heading_deg IS NULL AND h.heading_deg IS NULL),
        false))
    INTO fixes, worse
    FROM (
        SELECT * FROM fix_history k WHERE k.driver_id = ANY (drivers)
            AND k.fix_at >= day AND k.fix_at < next_day
    ) h
    FULL JOIN (
        SELECT k.* FROM fix_chunk c CROSS JOIN LATERAL fix_chunk__unpack(c) k
        WHERE c.driver_id = ANY (drivers) AND c.from_at >= day AND c.from_at < next_day
    ) u USING (driver_id, fix_at, boot, seq);
    SELECT count(*), drivers[cardinality(drivers)] INTO chunks, last_driver_id FROM fix_chunk c
        WHERE c.driver_id = ANY (drivers) AND c.from_at >= day AND c.from_at < next_day;
    IF worse > 0 THEN
        RAISE EXCEPTION '% of % fixes of % are not what they were when unpacked again (% to %)',
            worse, fixes, of_day, drivers[1], last_driver_id USING ERRCODE = 'DS014';
    END IF;
    RETURN NEXT;
END
$$;

-- From here on readers take the day from its chunks. The days before it have to be packed.
CREATE FUNCTION fix_history__switch_v1(of_day date)
RETURNS int8 LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    day CONSTANT timestamptz := of_day;
    next_day CONSTANT timestamptz := of_day + 1;
    there int8;
    packed int8;
BEGIN
    PERFORM FROM sealed_before s
        WHERE s.sealed_before >= next_day AND s.packed_before <= day FOR UPDATE;
    IF NOT FOUND OR (SELECT min(d) FROM fix_history__days_v1(next_day) d) <> of_day THEN
        RAISE EXCEPTION '% is not the next sealed day', of_day USING ERRCODE = '22023';
    END IF;
    SELECT count(*) INTO there FROM fix_history h WHERE h.fix_at >= day AND h.fix_at < next_day;
    SELECT coalesce(sum(c.fixes), 0) INTO packed FROM fix_chunk c
        WHERE c.from_at >= day AND c.from_at < next_day;
    IF there <> packed THEN
        RAISE EXCEPTION '% of % fixes of % are packed', packed, there, of_day
            USING ERRCODE = 'DS014';
    END IF;
    UPDATE sealed_before SET packed_before = next_day, packed_in = pg_current_xact_id();
    RETURN packed;
END
$$;

-- Drops the days that readers take from their chunks. Returns how many are left, because somebody
-- reads by an older snapshot or would have to be waited for.
CREATE FUNCTION fix_history__drop_packed_v1()
RETURNS int LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
SET timezone = 'UTC'
SET lock_timeout = '200ms'  -- a drop locks the whole history: whoever writes fixes waits with us
AS $$
DECLARE
    packed timestamptz;
    packed_in xid8;
    parts text[];
    part text;
BEGIN
    SELECT s.packed_before, s.packed_in INTO packed, packed_in FROM sealed_before s;
    parts := ARRAY(
        SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'doorstep.fix_history'::regclass AND c.relname ~ '^fix_history_\d{8}$'
            AND to_date(right(c.relname, 8), 'YYYYMMDD') + 1 <= packed
        ORDER BY c.relname
    );
    IF EXISTS (
        SELECT FROM pg_stat_activity
        WHERE backend_xmin IS NOT NULL AND pid <> pg_backend_pid()
            AND age(backend_xmin) >= age(packed_in::xid)
    ) THEN
        RETURN cardinality(parts);
    END IF;
    BEGIN
        DELETE FROM fix_history_default WHERE fix_at < packed;
        FOREACH part IN ARRAY parts LOOP
            EXECUTE format('DROP TABLE %I', part);
        END LOOP;
    EXCEPTION WHEN lock_not_available THEN
        RETURN cardinality(parts);
    END;
    RETURN 0;
END
$$;

-- Deletes some chunks past limits.history_days, the oldest first. Returns how many fixes went.
CREATE FUNCTION fix_chunk__expire_v1(at_most int)
RETURNS int8 LANGUAGE sql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    WITH gone AS (
        DELETE FROM fix_chunk c WHERE c.ctid = ANY (ARRAY(
            SELECT k.ctid FROM fix_chunk k
            WHERE k.from_at < (SELECT date_trunc('day', now(), 'UTC')
                    - make_interval(days => l.history_days) FROM limits l)
                AND k.from_at < (SELECT s.packed_before FROM sealed_before s)
            LIMIT at_most
        ))
        RETURNING c.fixes
    )
    SELECT coalesce(sum(g.fixes), 0) FROM gone g
$$;
