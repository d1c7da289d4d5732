-- Compaction of the history: days that cannot change any more are packed into chunks of about 10
-- bytes per fix.
--
--   seal     fixes before sealed_before are no longer stored: fix_history__seal_v1
--   pack     write the fixes of a day into chunks, some drivers at a time, and verify them
--   switch   readers read the day from its chunks from now on: updates one row
--   drop     drop the partition of the day, once no older snapshot can read it
--   forget   drop what is known of boots without an unsealed fix: boot_seqs__drop_sealed_v1
--   expire   delete chunks older than limits.history_days
--
-- Each step is one or more transactions and can be repeated. After a crash between two steps fixes
-- may be in both places, but a snapshot reads each fix from one place only.

-- Up to 2,000 fixes of one driver, boot, day and quarantine, ordered by (fix_at, seq). `encoded`
-- holds two MULTIPOINTs in TWKB, which delta-encodes each dimension. The second starts after
-- track_bytes:
--   track   X, Y longitude and latitude, 1e-7 deg (1 cm); Z accuracy_m, 0.1 (-1: none);
--           M ms since midnight UTC, with microseconds if one of the fixes needs them
--   rest    X speed_mps, 0.1 (-1: none); Y heading_deg / 10, 0.1 (-1: none);
--           Z received_at - fix_at, 0.1 s
-- A LINESTRING would lose a point that equals the one before. Columns that rarely change are stored
-- as runs: the n-th fix belongs to the last run that starts at or before n. Within a run of
-- run_seqs, seqs increase by one.
CREATE TABLE fix_chunk (
    driver_id text COLLATE "C" NOT NULL,
    from_at timestamptz NOT NULL,  -- fix_at of the first fix
    part int4 NOT NULL,  -- distinguishes chunks that start at the same instant
    to_at timestamptz NOT NULL,  -- fix_at of the last fix
    boot text COLLATE "C" NOT NULL,
    quarantine text,
    fix_count int4 NOT NULL CHECK (fix_count > 0),
    run_starts int4[] NOT NULL,
    run_seqs int8[] NOT NULL,
    battery_starts int4[] NOT NULL,
    battery_pct int2[] NOT NULL,
    track_bytes int4 NOT NULL,
    encoded bytea NOT NULL,
    PRIMARY KEY (driver_id, from_at, part)
);
-- Compression would cost time and save nothing.
ALTER TABLE fix_chunk ALTER encoded SET STORAGE EXTERNAL;
CREATE INDEX fix_chunk_from_at ON fix_chunk USING brin (from_at) WITH (pages_per_range = 16);

-- Encodes the fixes of some drivers on one day as chunks. fix_chunk__unpack is the inverse.
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
            count(*)::int4 AS fix_count,
            array_agg(n ORDER BY n) FILTER (WHERE begins) AS run_starts,
            array_agg(seq ORDER BY n) FILTER (WHERE begins) AS run_seqs,
            array_agg(n ORDER BY n) FILTER (WHERE changes) AS battery_starts,
            array_agg(pct ORDER BY n) FILTER (WHERE changes) AS battery_pct,
            ST_AsTWKB(ST_Collect(array_agg(ST_MakePoint(
                    lon_deg, lat_deg, coalesce(accuracy_m, -1),
                    date_part('epoch', fix_at - of_day) * 1000
                ) ORDER BY n)),
                7, 1, CASE WHEN bool_or(date_part('microseconds', fix_at)::int8 % 1000 <> 0)
                    THEN 3 ELSE 0 END) AS track,
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
        to_at, boot, quarantine, fix_count, run_starts, run_seqs, battery_starts, battery_pct,
        length(track), track || rest
    FROM packed
$$;

-- Decodes the fixes of a chunk.
CREATE FUNCTION fix_chunk__unpack(c fix_chunk)
RETURNS TABLE (
    driver_id text, fix_at timestamptz, boot text, seq int8, received_at timestamptz,
    lon_deg float8, lat_deg float8, accuracy_m float8, speed_mps float8, heading_deg float8,
    battery float8, quarantine text
)
LANGUAGE sql STABLE PARALLEL SAFE  -- inlined, so that conditions on the chunk are applied first
BEGIN ATOMIC
    SELECT c.driver_id, at.fix_at, c.boot,
        c.run_seqs[at.run] + (p.n - c.run_starts[at.run]),
        at.fix_at + ST_Z(p.rest) * interval '1 second',
        ST_X(p.track), ST_Y(p.track),
        CASE WHEN ST_Z(p.track) >= 0 THEN ST_Z(p.track) END,
        CASE WHEN ST_X(p.rest) >= 0 THEN ST_X(p.rest) END,
        CASE WHEN ST_Y(p.rest) >= 0 THEN round(ST_Y(p.rest) * 10) END,
        c.battery_pct[width_bucket(p.n::int4, c.battery_starts)] / 100.0::float8,
        c.quarantine
    FROM ROWS FROM (
        ST_Dump(ST_GeomFromTWKB(substring(c.encoded FOR c.track_bytes))),
        ST_Dump(ST_GeomFromTWKB(substring(c.encoded FROM c.track_bytes + 1)))
    ) WITH ORDINALITY AS p (track_path, track, rest_path, rest, n)
    CROSS JOIN LATERAL (
        SELECT width_bucket(p.n::int4, c.run_starts) AS run,
            date_trunc('day', c.from_at, 'UTC') + ST_M(p.track) * interval '1 millisecond' AS fix_at
    ) AS at;
END;

-- Decodes some places of a chunk, evenly spread over its fixes, in a tenth of the time of unpacking
-- it.
CREATE FUNCTION fix_chunk__sample(c fix_chunk, at_most int)
RETURNS TABLE (fix_at timestamptz, lon_deg float8, lat_deg float8)
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT date_trunc('day', c.from_at, 'UTC') + ST_M(p.place) * interval '1 millisecond',
        ST_X(p.place), ST_Y(p.place)
    FROM (SELECT ST_LineFromMultiPoint(
            ST_GeomFromTWKB(substring(c.encoded FOR c.track_bytes))
        ) AS line OFFSET 0) AS w
    CROSS JOIN generate_series(0, least(c.fix_count, at_most) - 1) AS k (k)
    CROSS JOIN LATERAL (
        SELECT ST_PointN(w.line, 1 + (k.k::int8 * c.fix_count / least(c.fix_count, at_most))::int)
    ) AS p (place);
END;

-- Returns the seqs of a chunk.
CREATE FUNCTION fix_chunk__seqs(run_starts int4[], run_seqs int8[], fix_count int4)
RETURNS int8multirange LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT range_agg(
        int8range(r.seq, r.seq + coalesce(run_starts[r.k + 1], fix_count + 1) - r.start)
    )
    FROM unnest(run_starts, run_seqs) WITH ORDINALITY AS r (start, seq, k);
END;

-- Returns the fixes of a driver in [since, before), packed or not. Every reader of past fixes uses
-- it.
CREATE FUNCTION fix_history__between_v1(
    of_driver_id text, since timestamptz, before timestamptz
)
RETURNS TABLE (
    driver_id text, fix_at timestamptz, boot text, seq int8, received_at timestamptz,
    lon_deg float8, lat_deg float8, accuracy_m float8, speed_mps float8, heading_deg float8,
    battery float8, quarantine text
)
LANGUAGE sql STABLE PARALLEL SAFE  -- inlined, so that one snapshot reads both tables
BEGIN ATOMIC
    SELECT h.driver_id, h.fix_at, h.boot, h.seq, h.received_at, h.lon_deg, h.lat_deg,
        h.accuracy_m, h.speed_mps, h.heading_deg, h.battery, h.quarantine
    FROM fix_history h
    WHERE h.driver_id = of_driver_id AND h.fix_at >= since AND h.fix_at < before
        AND h.fix_at >= (SELECT s.packed_before FROM history_bounds s)
    UNION ALL
    SELECT u.driver_id, u.fix_at, u.boot, u.seq, u.received_at, u.lon_deg, u.lat_deg,
        u.accuracy_m, u.speed_mps, u.heading_deg, u.battery, u.quarantine
    FROM fix_chunk c CROSS JOIN LATERAL fix_chunk__unpack(c) u
    WHERE c.driver_id = of_driver_id
        AND c.from_at > since - interval '24 hours'  -- no chunk spans more than a day
        AND c.from_at < before AND c.to_at >= since
        AND c.to_at < (SELECT s.packed_before FROM history_bounds s)
        AND u.fix_at >= since AND u.fix_at < before;
END;

-- Returns the limits up to which the history may be sealed, each with its reason; the earliest
-- applies. `unread_since` is the arrival of the oldest unread record of driver-pos; NULL if there
-- is none.
CREATE FUNCTION fix_history__seal_limits_v1(unread_since timestamptz)
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
    -- a window that is open, or may still receive fixes, needs all of its fixes
    (
        SELECT 'order ' || a.order_id, a.assigned_at FROM assignment a, edge e
        WHERE a.ended_at IS NULL OR a.ended_at > e.at ORDER BY a.assigned_at LIMIT 1
    )
$$;

-- Seals up to an instant. A writer that has read the older seal may still be running: see
-- fix_history__writers_finished_v1.
CREATE FUNCTION fix_history__seal_v1(before timestamptz)
RETURNS xid8 LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
BEGIN
    IF before > (
        SELECT m.before FROM fix_history__seal_limits_v1(NULL) m WHERE m.reason = 'age'
    ) THEN
        RAISE EXCEPTION 'fixes of % may still arrive', before USING ERRCODE = '22023';
    END IF;
    UPDATE history_bounds s SET sealed_before = before WHERE s.sealed_before < before;
    RETURN pg_current_xact_id();
END
$$;

-- Says whether every transaction that was writing in parallel with `since` has ended.
CREATE FUNCTION fix_history__writers_finished_v1(since xid8)
RETURNS bool LANGUAGE sql STABLE
RETURN pg_snapshot_xmin(pg_current_snapshot()) > since;

-- Returns the days that end before an instant and are not packed, oldest first.
CREATE FUNCTION fix_history__unpacked_days_v1(before timestamptz)
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
    CROSS JOIN history_bounds s
    WHERE d.day + 1 <= before AND d.day >= s.packed_before
    ORDER BY d.day
$$;

-- Packs the fixes of a sealed day for the next drivers after `after`, and compares every fix with
-- its packed form. Returns the last of these drivers; no row when no driver is left.
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
    mismatches int8;
BEGIN
    PERFORM FROM history_bounds s
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
    DELETE FROM fix_chunk c WHERE c.driver_id = ANY (drivers)  -- left by an unfinished run
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
        AND coalesce(abs(u.heading_deg - h.heading_deg) < 0.51  -- 359.7 and 0 are equal, too
            OR abs(u.heading_deg - h.heading_deg) > 359.4,
            u.heading_deg IS NULL AND h.heading_deg IS NULL),
        false))
    INTO fixes, mismatches
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
    IF mismatches > 0 THEN
        RAISE EXCEPTION '% of % fixes of % differ from their packed form (% to %)',
            mismatches, fixes, of_day, drivers[1], last_driver_id USING ERRCODE = 'DS014';
    END IF;
    RETURN NEXT;
END
$$;

-- Makes readers read the day from its chunks. All earlier days must be packed.
CREATE FUNCTION fix_history__switch_v1(of_day date)
RETURNS int8 LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    day CONSTANT timestamptz := of_day;
    next_day CONSTANT timestamptz := of_day + 1;
    stored_count int8;
    packed_count int8;
BEGIN
    PERFORM FROM history_bounds s
        WHERE s.sealed_before >= next_day AND s.packed_before <= day FOR UPDATE;
    IF NOT FOUND OR (SELECT min(d) FROM fix_history__unpacked_days_v1(next_day) d) <> of_day THEN
        RAISE EXCEPTION '% is not the next sealed day', of_day USING ERRCODE = '22023';
    END IF;
    SELECT count(*) INTO stored_count FROM fix_history h
        WHERE h.fix_at >= day AND h.fix_at < next_day;
    SELECT coalesce(sum(c.fix_count), 0) INTO packed_count FROM fix_chunk c
        WHERE c.from_at >= day AND c.from_at < next_day;
    IF stored_count <> packed_count THEN
        RAISE EXCEPTION '% of % fixes of % are packed', packed_count, stored_count, of_day
            USING ERRCODE = 'DS014';
    END IF;
    UPDATE history_bounds SET packed_before = next_day, packed_xid = pg_current_xact_id();
    RETURN packed_count;
END
$$;

-- Drops the partitions whose days are read from chunks. Returns the number of partitions left,
-- because an older snapshot may read them or a lock was not available.
CREATE FUNCTION fix_history__drop_packed_v1()
RETURNS int LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
SET timezone = 'UTC'
SET lock_timeout = '200ms'  -- a drop locks all of fix_history, and writers of fixes queue behind it
AS $$
DECLARE
    packed_until timestamptz;
    packed_by xid8;
    parts text[];
    part text;
BEGIN
    SELECT s.packed_before, s.packed_xid INTO packed_until, packed_by FROM history_bounds s;
    parts := ARRAY(
        SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'doorstep.fix_history'::regclass AND c.relname ~ '^fix_history_\d{8}$'
            AND to_date(right(c.relname, 8), 'YYYYMMDD') + 1 <= packed_until
        ORDER BY c.relname
    );
    IF EXISTS (
        SELECT FROM pg_stat_activity
        WHERE backend_xmin IS NOT NULL AND pid <> pg_backend_pid()
            AND age(backend_xmin) >= age(packed_by::xid)
    ) THEN
        RETURN cardinality(parts);
    END IF;
    BEGIN
        DELETE FROM fix_history_default WHERE fix_at < packed_until;
        FOREACH part IN ARRAY parts LOOP
            EXECUTE format('DROP TABLE %I', part);
        END LOOP;
    EXCEPTION WHEN lock_not_available THEN
        RETURN cardinality(parts);
    END;
    RETURN 0;
END
$$;

-- Deletes up to at_most chunks older than limits.history_days. Returns the number of fixes deleted.
CREATE FUNCTION fix_chunk__expire_v1(at_most int)
RETURNS int8 LANGUAGE sql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    WITH deleted AS (
        DELETE FROM fix_chunk c WHERE c.ctid = ANY (ARRAY(
            SELECT k.ctid FROM fix_chunk k
            WHERE k.from_at < (SELECT date_trunc('day', now(), 'UTC')
                    - make_interval(days => l.history_days) FROM limits l)
                AND k.from_at < (SELECT s.packed_before FROM history_bounds s)
            LIMIT at_most
        ))
        RETURNING c.fix_count
    )
    SELECT coalesce(sum(d.fix_count), 0) FROM deleted d
$$;
