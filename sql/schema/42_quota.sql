-- The quota of a driver: what is over it is parked, and recorded later:
-- docs/explanation/watermark.md.

-- Removes the fixes of these drivers that are over their quota from incoming_fix, the last first,
-- and parks them: one copy of each, with the least received_at. Spoilt ones are rejected, and what
-- a driver has beyond limits.max_parked is dropped and counted in boot_seqs.held: its device sends
-- it again. Rows with n below -1500000000 are parked fixes that are due. Returns the outcome of
-- each fix removed.
CREATE FUNCTION incoming_fix__park_excess(driver_ids text[], fix_takes interval, burst interval)
RETURNS SETOF fix_outcome LANGUAGE plpgsql
SET enable_hashjoin = on
AS $$
#variable_conflict use_column
DECLARE
    excess int[];
    most CONSTANT int := (SELECT max_parked FROM limits);
BEGIN
    IF fix_takes = '0' THEN  -- exempt
        RETURN;
    END IF;
    WITH requested AS MATERIALIZED (
        SELECT i.n, i.driver_id, i.received_at,
            row_number() OVER (PARTITION BY i.driver_id ORDER BY i.n) AS place
        FROM pg_temp.incoming_fix i
        WHERE (i.driver_id IN (SELECT unnest(driver_ids))) IS TRUE AND i.n >= -1500000000
    ),
    allowed AS MATERIALIZED (
        SELECT r.driver_id, floor(
            extract(epoch FROM greatest(r.last_at, d.received_at) + burst
                - greatest(d.quota_at, r.first_at)) / extract(epoch FROM fix_takes)) AS fix_count
        FROM (
            SELECT driver_id, min(received_at) AS first_at, max(received_at) AS last_at
            FROM requested GROUP BY driver_id
        ) r
        CROSS JOIN LATERAL (  -- a look-up for each of a few drivers, never a scan of the fleet
            SELECT s.received_at, s.quota_at FROM driver_state s
            WHERE s.driver_id = r.driver_id OFFSET 0
        ) d
    )
    SELECT array_agg(r.n) INTO excess
    FROM requested r JOIN allowed a USING (driver_id)
    WHERE r.place > a.fix_count;
    IF excess IS NULL THEN
        RETURN;
    END IF;

    RETURN QUERY
        WITH taken AS (
            DELETE FROM pg_temp.incoming_fix i
            WHERE (i.n IN (SELECT unnest(excess))) IS TRUE
            RETURNING i.*, incoming_fix__rejection_reason(i.boot, i.seq, i.fix_at, i.received_at,
                i.lon_deg, i.lat_deg, i.accuracy_m, i.speed_mps, i.heading_deg, i.altitude_m,
                i.battery, i.reason, '100 years', '100 years', '-infinity') AS spoilt
        ),
        unspoilt AS (
            SELECT t.*, hash_record_extended((t.fix_at, t.lon_deg, t.lat_deg, t.accuracy_m,
                t.speed_mps, t.heading_deg, t.altitude_m, t.battery, t.reason), 0) AS content
            FROM taken t
            WHERE t.spoilt IS NULL OR t.spoilt = 'void'
        ),
        kept AS (
            SELECT u.*, most - coalesce(q.parked, 0)
                    >= row_number() OVER (PARTITION BY u.driver_id ORDER BY u.n) AS has_room
            FROM (
                SELECT DISTINCT ON (driver_id, boot, seq, content) * FROM unspoilt
                ORDER BY driver_id, boot, seq, content, received_at, n
            ) u
            LEFT JOIN driver_quota q USING (driver_id)
        ),
        parked AS (
            INSERT INTO parked_fix AS p (driver_id, boot, seq, fix_at, received_at, lon_deg,
                lat_deg, accuracy_m, speed_mps, heading_deg, altitude_m, battery, reason, content)
            SELECT driver_id, boot, seq, fix_at, received_at, lon_deg, lat_deg, accuracy_m,
                speed_mps, heading_deg, altitude_m, battery, reason, content
            FROM kept WHERE has_room ORDER BY n
            ON CONFLICT (driver_id, boot, seq, content) DO UPDATE
                SET received_at = least(p.received_at, EXCLUDED.received_at)
            RETURNING p.driver_id, p.xmax = 0 AS is_new
        ),
        counted AS (
            INSERT INTO driver_quota AS q (driver_id, parked, drained_at)
            SELECT driver_id, count(*), clock_timestamp() FROM parked WHERE is_new
            GROUP BY driver_id
            ON CONFLICT (driver_id) DO UPDATE SET parked = q.parked + EXCLUDED.parked
        ),
        held AS (
            UPDATE boot_seqs b SET held = coalesce(b.held, 0) + k.fix_count
            FROM (
                SELECT driver_id, boot, count(*) AS fix_count FROM kept WHERE NOT has_room
                GROUP BY driver_id, boot
            ) k
            WHERE b.driver_id = k.driver_id AND b.boot = k.boot
        )
        SELECT t.n, CASE WHEN t.spoilt IS NULL OR t.spoilt = 'void' THEN 'parked'
                ELSE 'rejected' END,
            CASE WHEN t.spoilt IS NULL OR t.spoilt = 'void' THEN 'over_quota' ELSE t.spoilt END
        FROM taken t;
END
$$;

-- Counts fixes that were not stored against the quota of their driver: copies and rejected ones.
-- (fix_history__derive_driver_state counts those that were.)
CREATE FUNCTION driver_state__charge(outcomes fix_outcome[], fix_takes interval)
RETURNS void LANGUAGE sql
SET enable_hashjoin = on
AS $$
    UPDATE driver_state d
    SET quota_at = greatest(greatest(d.quota_at, c.first_at) + c.fix_count * fix_takes,
        c.last_at + fix_takes)
    FROM (
        SELECT i.driver_id, count(*) AS fix_count, min(i.received_at) AS first_at,
            max(i.received_at) AS last_at
        FROM unnest(outcomes) o JOIN pg_temp.incoming_fix i ON i.n = o.n
        WHERE o.outcome IN ('duplicate', 'rejected', 'conflict', 'dropped')
        GROUP BY i.driver_id
    ) c
    WHERE d.driver_id = c.driver_id
$$;

-- Attempts parked fixes again: those whose row was locked, and of each driver the oldest over the
-- quota. These are due at half of the quota whatever else the driver sends, and at half of what the
-- driver leaves of it. Returns the number of fixes that are no longer parked.
CREATE FUNCTION record_parked_v1()
RETURNS int LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
SET enable_seqscan = off
AS $$
#variable_conflict use_column
DECLARE
    last_id CONSTANT int8 := (SELECT max(parked_id) FROM parked_fix);
    draining text[];  -- drivers
    taken_count int;
    parked_count int;
BEGIN
    IF last_id IS NULL THEN
        RETURN 0;
    END IF;
    PERFORM prepare_incoming_v1();
    draining := ARRAY(
        SELECT d.driver_id FROM driver_quota q JOIN driver_state d USING (driver_id)
        ORDER BY q.drained_at LIMIT 1000 FOR NO KEY UPDATE OF d SKIP LOCKED
    );
    WITH due AS MATERIALIZED (
        SELECT q.driver_id, greatest(
            0,
            extract(epoch FROM least(clock_timestamp() - q.drained_at, l.burst)),
            extract(epoch FROM least(clock_timestamp() + l.burst - d.quota_at, l.burst))
        ) * l.quota_per_s / 2 AS due_count
        FROM driver_quota q
        JOIN driver_state d USING (driver_id)
        CROSS JOIN (
            SELECT quota_per_s, make_interval(secs => quota_burst / quota_per_s) AS burst
            FROM limits
        ) l
        WHERE q.driver_id = ANY (draining)
    ),
    unparked AS (
        DELETE FROM parked_fix p
        WHERE p.parked_id IN (
            SELECT k.parked_id FROM due d
            CROSS JOIN LATERAL (
                SELECT parked_id FROM parked_fix e
                WHERE e.driver_id = d.driver_id AND e.content IS NOT NULL
                ORDER BY e.parked_id LIMIT floor(d.due_count)::int
            ) k
            LIMIT 20000
        )
        RETURNING p.*
    ),
    counts AS MATERIALIZED (
        SELECT driver_id, count(*) AS fix_count FROM unparked GROUP BY driver_id
    ),
    drained AS (
        UPDATE driver_quota q SET parked = q.parked - c.fix_count, drained_at = clock_timestamp()
        FROM counts c WHERE q.driver_id = c.driver_id AND q.parked > c.fix_count
    ),
    finished AS (
        DELETE FROM driver_quota q USING counts c
        WHERE q.driver_id = c.driver_id AND q.parked <= c.fix_count
    ),
    unlocked AS (
        DELETE FROM parked_fix p
        WHERE p.parked_id IN (SELECT parked_id FROM parked_fix WHERE content IS NULL
            ORDER BY parked_id LIMIT 20000 FOR UPDATE SKIP LOCKED)
        RETURNING p.*
    ),
    taken AS (
        INSERT INTO pg_temp.incoming_fix (n, driver_id, boot, seq, fix_at, received_at, lon_deg,
            lat_deg, accuracy_m, speed_mps, heading_deg, altitude_m, battery, reason)
        SELECT (CASE WHEN content IS NULL THEN -1000000000 ELSE -2000000000 END
                + row_number() OVER (ORDER BY parked_id))::int4,
            driver_id, boot, seq, fix_at, received_at, lon_deg, lat_deg, accuracy_m, speed_mps,
            heading_deg, altitude_m, battery, reason
        FROM (SELECT * FROM unparked UNION ALL SELECT * FROM unlocked) u
        RETURNING 1
    )
    SELECT count(*) INTO taken_count FROM taken;
    PERFORM record_fixes_v1();
    SELECT count(*) INTO parked_count FROM parked_fix WHERE parked_id > last_id;
    RETURN greatest(taken_count - parked_count, 0);
END
$$;
