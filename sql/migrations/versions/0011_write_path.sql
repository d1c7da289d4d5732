-- An optimistic path for fixes that are next in line, and boots that are dropped when all of their
-- fixes are sealed.

SET LOCAL search_path = doorstep, public;
SET LOCAL check_function_bodies = off;  -- functions may refer to objects that are created later

-- A constant default, so no table is written again: what is known already counts as new.
ALTER TABLE boot_seqs ADD settled_at timestamptz NOT NULL DEFAULT now();

ALTER TABLE driver_state ADD settled_to int8, ADD is_in_new_cell bool;
ALTER TABLE driver_state ALTER hot_padding SET DEFAULT decode(repeat('00', 152), 'hex');

CREATE OR REPLACE VIEW boot_prefix AS
SELECT s.driver_id, s.boot, greatest(s.settled_to, d.settled_to) AS settled_to,
    greatest(s.newest_seq, d.settled_to) AS newest_seq, s.held
FROM boot_seqs s
LEFT JOIN driver_state d ON d.driver_id = s.driver_id AND d.boot = s.boot;

CREATE OR REPLACE VIEW driver_boot AS
SELECT s.driver_id, s.boot,
    int8multirange(int8range(1, s.settled_to + 1)) - b.rejected + b.stored AS stored,
    b.rejected
FROM boot_prefix s
CROSS JOIN LATERAL (
    SELECT coalesce(range_agg(k.stored), '{}') AS stored,
        coalesce(range_agg(k.rejected), '{}') AS rejected
    FROM (
        SELECT boot_seq_block__ranges(b.block_no, b.stored) AS stored,
            boot_seq_block__ranges(b.block_no, b.rejected) AS rejected
        FROM boot_seq_block b WHERE b.driver_id = s.driver_id AND b.boot = s.boot
    ) k
) b;

CREATE OR REPLACE FUNCTION driver_state__release_prefixes(of_drivers text[])
RETURNS void LANGUAGE sql
AS $$
    INSERT INTO boot_seqs AS b (driver_id, boot, settled_to, newest_seq)
    SELECT d.driver_id, d.boot, d.settled_to, d.settled_to
    FROM unnest(of_drivers) AS i (driver_id)
    JOIN driver_state d ON d.driver_id = i.driver_id AND d.settled_to IS NOT NULL
    ON CONFLICT (driver_id, boot) DO UPDATE SET settled_to = EXCLUDED.settled_to,
        newest_seq = EXCLUDED.newest_seq, settled_at = EXCLUDED.settled_at
        WHERE b.newest_seq < EXCLUDED.newest_seq
$$;

CREATE OR REPLACE FUNCTION driver_state__take_prefixes()
RETURNS void LANGUAGE sql
AS $$
    UPDATE driver_state d SET settled_to = k.settled_to
    FROM (
        SELECT e.ctid, b.settled_to FROM (
            SELECT DISTINCT driver_id FROM pg_temp.incoming_fix ORDER BY driver_id
        ) i
        JOIN driver_state e ON e.driver_id = i.driver_id
        LEFT JOIN boot_seqs b ON b.driver_id = e.driver_id AND b.boot = e.boot
            AND b.settled_to = b.newest_seq
        WHERE e.settled_to IS DISTINCT FROM b.settled_to
    ) k
    WHERE d.ctid = k.ctid
$$;

CREATE OR REPLACE FUNCTION boot_seqs__settle(seqs settled_seq[])
RETURNS void LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    no_bits CONSTANT bit(2048) := B'0'::bit(2048);
    known record;
    bits bit(2048);
    reached int8;
    newest int8;
    gap_at int;
BEGIN
    INSERT INTO boot_seq_block AS k (driver_id, boot, block_no, stored, rejected)
    SELECT n.driver_id, n.boot, n.block_no, n.stored,
        nullif(coalesce(n.rejected, no_bits) & ~coalesce(n.stored, no_bits), no_bits)
    FROM (
        SELECT s.driver_id, s.boot, s.seq >> 11 AS block_no,
            bit_or(set_bit(no_bits, (s.seq & 2047)::int, 1)) FILTER (WHERE is_stored) AS stored,
            bit_or(set_bit(no_bits, (s.seq & 2047)::int, 1)) FILTER (WHERE NOT is_stored)
                AS rejected
        FROM unnest(seqs) s GROUP BY s.driver_id, s.boot, s.seq >> 11
    ) n
    ON CONFLICT (driver_id, boot, block_no) DO UPDATE SET
        stored = nullif(coalesce(k.stored, no_bits) | coalesce(EXCLUDED.stored, no_bits), no_bits),
        rejected = nullif((coalesce(k.rejected, no_bits) | coalesce(EXCLUDED.rejected, no_bits))
            & ~(coalesce(k.stored, no_bits) | coalesce(EXCLUDED.stored, no_bits)), no_bits);

    FOR known IN
        SELECT b.*, n.last_seq, n.fix_count, n.block_nos
        FROM (
            SELECT s.driver_id, s.boot, max(s.seq) AS last_seq, count(*) AS fix_count,
                array_agg(DISTINCT s.seq >> 11) AS block_nos
            FROM unnest(seqs) s GROUP BY s.driver_id, s.boot
        ) n
        JOIN boot_seqs b ON b.driver_id = n.driver_id AND b.boot = n.boot
    LOOP
        reached := known.settled_to;
        newest := greatest(known.newest_seq, known.last_seq);
        FOR step IN 1 .. 2 * known.fix_count LOOP
            EXIT WHEN reached = newest;
            SELECT coalesce(stored, no_bits) | coalesce(rejected, no_bits) INTO bits
                FROM boot_seq_block
                WHERE driver_id = known.driver_id AND boot = known.boot
                    AND block_no = (reached + 1) >> 11;
            EXIT WHEN NOT FOUND;
            gap_at := position(B'0' IN substring(bits FROM ((reached + 1) & 2047)::int + 1));
            IF gap_at > 0 THEN
                reached := reached + gap_at - 1;
                EXIT;
            END IF;
            reached := (reached + 1) | 2047;  -- the block's last seq
        END LOOP;
        UPDATE boot_seqs SET settled_to = reached, newest_seq = newest, settled_at = now()
            WHERE driver_id = known.driver_id AND boot = known.boot;
        DELETE FROM boot_seq_block
            WHERE driver_id = known.driver_id AND boot = known.boot AND rejected IS NULL
                AND (block_no BETWEEN known.settled_to >> 11 AND reached >> 11
                    OR block_no = ANY (known.block_nos))
                AND (block_no < (reached + 1) >> 11 OR reached = newest);
    END LOOP;
END
$$;

CREATE OR REPLACE FUNCTION read_watermarks_v1(driver_ids text[], boots text[])
RETURNS TABLE (driver_id text, boot text, seq int8, missing jsonb)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    SELECT s.driver_id, s.boot, coalesce(g.seq, s.settled_to), coalesce(g.missing, '[]')
    FROM unnest(driver_ids, boots) AS requested (driver_id, boot)
    JOIN boot_prefix s ON s.driver_id = requested.driver_id AND s.boot = requested.boot
    LEFT JOIN LATERAL boot_seqs__gaps(s.driver_id, s.boot, s.settled_to) g
        ON s.settled_to < s.newest_seq
    WHERE s.newest_seq > 0
$$;

CREATE OR REPLACE FUNCTION read_watermarks_v2(driver_ids text[], boots text[])
RETURNS TABLE (driver_id text, boot text, seq int8, missing jsonb, hold_s int, held int8)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    SELECT requested.driver_id, requested.boot, coalesce(g.seq, s.settled_to, 0),
        coalesce(g.missing, '[]'),
        -- as long as half of the quota takes for what is parked; 1 h at most, then it is said again
        CASE WHEN q.parked > 0
            THEN least(3600, greatest(60, ceil(2 * q.parked / l.quota_per_s)))::int END,
        coalesce(s.held, 0)
    FROM unnest(driver_ids, boots) AS requested (driver_id, boot)
    CROSS JOIN limits l
    LEFT JOIN boot_prefix s ON s.driver_id = requested.driver_id AND s.boot = requested.boot
    LEFT JOIN driver_quota q ON q.driver_id = requested.driver_id
    LEFT JOIN LATERAL boot_seqs__gaps(s.driver_id, s.boot, s.settled_to) g
        ON s.settled_to < s.newest_seq
    WHERE s.newest_seq > 0 OR q.parked > 0
$$;

CREATE OR REPLACE FUNCTION boot_seqs__replace(
    of_driver_id text, of_boot text, new_stored int8multirange, new_rejected int8multirange
)
RETURNS void LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    settled CONSTANT int8multirange := new_stored + new_rejected;
    newest CONSTANT int8 := coalesce(upper(settled) - 1, 0);
    reached CONSTANT int8 := coalesce(
        (SELECT upper(r) - 1 FROM unnest(settled) r WHERE lower(r) = 1), 0);
BEGIN
    UPDATE driver_state SET settled_to = NULL WHERE driver_id = of_driver_id AND boot = of_boot;
    INSERT INTO boot_seqs AS b (driver_id, boot, settled_to, newest_seq)
    VALUES (of_driver_id, of_boot, reached, newest)
    ON CONFLICT (driver_id, boot) DO UPDATE SET settled_to = EXCLUDED.settled_to,
        newest_seq = EXCLUDED.newest_seq, settled_at = EXCLUDED.settled_at;
    DELETE FROM boot_seq_block WHERE driver_id = of_driver_id AND boot = of_boot;
    INSERT INTO boot_seq_block (driver_id, boot, block_no, stored, rejected)
    SELECT of_driver_id, of_boot, block_no, s.bits, r.bits
    FROM boot_seq_block__bitmaps(
        new_stored * int8multirange(int8range(reached + 1, NULL))
    ) s
    FULL JOIN boot_seq_block__bitmaps(new_rejected - new_stored) r USING (block_no);
END
$$;

CREATE OR REPLACE FUNCTION boot_seqs__drop_sealed_v1(after_driver text, after_boot text, at_most int)
RETURNS TABLE (last_driver_id text, last_boot text, boots int8)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    -- settled_at is not before received_at, and fix_at is at most future_s after that
    dropped_before CONSTANT timestamptz := (
        SELECT h.sealed_before - make_interval(secs => l.future_s)
        FROM history_bounds h CROSS JOIN limits l
    );
    found_drivers text[];
    found_boots text[];
    found_at timestamptz[];
    locked_drivers text[];
BEGIN
    SELECT array_agg(driver_id), array_agg(boot), array_agg(settled_at)
        INTO found_drivers, found_boots, found_at
        FROM (
            SELECT driver_id, boot, settled_at FROM boot_seqs
            WHERE (driver_id, boot) > (coalesce(after_driver, ''), coalesce(after_boot, ''))
            ORDER BY driver_id, boot LIMIT at_most
        ) b;
    IF found_drivers IS NULL THEN
        RETURN;
    END IF;
    locked_drivers := ARRAY(
        SELECT driver_id FROM driver_state
        WHERE driver_id IN (
            SELECT f.driver_id FROM unnest(found_drivers, found_at) AS f (driver_id, settled_at)
            WHERE f.settled_at < dropped_before
        )
        ORDER BY driver_id FOR NO KEY UPDATE SKIP LOCKED
    );
    WITH deleted AS (
        DELETE FROM boot_seqs b
        USING unnest(found_drivers, found_boots) AS f (driver_id, boot)
        WHERE b.driver_id = f.driver_id AND b.boot = f.boot
            AND b.settled_at < dropped_before
            AND f.driver_id = ANY (locked_drivers)
            AND NOT EXISTS (
                SELECT FROM driver_state d WHERE d.driver_id = f.driver_id AND d.boot = f.boot
            )
        RETURNING b.driver_id, b.boot
    ),
    deleted_blocks AS (
        DELETE FROM boot_seq_block k USING deleted d
        WHERE k.driver_id = d.driver_id AND k.boot = d.boot
    )
    SELECT count(*) INTO boots FROM deleted;
    last_driver_id := found_drivers[cardinality(found_drivers)];
    last_boot := found_boots[cardinality(found_boots)];
    RETURN NEXT;
END
$$;

CREATE OR REPLACE FUNCTION incoming_fix__park_excess(driver_ids text[], fix_takes interval, burst interval)
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

CREATE OR REPLACE FUNCTION record_fixes_v1()
RETURNS SETOF fix_outcome LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
SET enable_hashjoin = off  -- every join here is a look-up by key in a large table
SET enable_mergejoin = off
SET enable_seqscan = off  -- also in partitions that were empty when the plan was made
SET work_mem = '64MB'  -- sorts a batch of 20,000 in memory
AS $$
#variable_conflict use_column
DECLARE
    outcomes fix_outcome[];
    parked_drivers text[] := '{}';
    detail text;
    -- Fixes that are parked for a lock precede those of the batch.
    is_optimistic bool := NOT EXISTS (SELECT FROM parked_fix WHERE content IS NULL);
BEGIN
    LOOP
        BEGIN
            IF is_optimistic AND record_fixes__continue() THEN
                RETURN;
            END IF;
            SELECT array_agg(o) INTO outcomes FROM record_fixes__attempt(parked_drivers) o;
            EXIT;
        EXCEPTION
            WHEN SQLSTATE 'DS012' THEN
                GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
                parked_drivers := parked_drivers
                    || ARRAY(SELECT jsonb_array_elements_text(detail::jsonb));
                is_optimistic := false;
            WHEN lock_not_available THEN
                IF NOT is_optimistic THEN
                    RAISE;
                END IF;
                is_optimistic := false;
        END;
    END LOOP;
    RETURN QUERY SELECT o.* FROM unnest(outcomes) o WHERE o.n >= 0;
END
$$;

CREATE OR REPLACE FUNCTION record_fixes__continue()
RETURNS bool LANGUAGE plpgsql
SET lock_timeout = '1ms'
AS $$
#variable_conflict use_column
DECLARE
    future interval;
    lateness interval;
    worst_m float8;
    sealed timestamptz;
    fix_takes interval;
    burst interval;
    keeps_off_duty bool;
    west float8;
    south float8;
    east float8;
    north float8;
    moved_drivers text[];
    moved_count int;
    fix_count int;
    one_each bool;  -- of every driver
BEGIN
    SELECT make_interval(secs => l.future_s), make_interval(secs => l.lateness_s),
            l.worst_accuracy_m,
            CASE WHEN current_setting('doorstep.quota_exempt', true) = 'on' THEN interval '0'
                ELSE make_interval(secs => 1 / l.quota_per_s) END,
            make_interval(secs => l.quota_burst / l.quota_per_s), l.keep_off_duty_positions,
            h.sealed_before
        INTO future, lateness, worst_m, fix_takes, burst, keeps_off_duty, sealed
        FROM limits l CROSS JOIN history_bounds h;
    SELECT min(a.west), min(a.south), max(a.east), max(a.north)
        INTO west, south, east, north FROM service_area a;

    PERFORM set_config('doorstep.drivers_are_moved', 'on', true);
    one_each := (
        SELECT bool_and(k.fix_count = 1)
        FROM (SELECT count(*) AS fix_count FROM pg_temp.incoming_fix GROUP BY driver_id) k
    );
    WITH checked AS NOT MATERIALIZED (
        SELECT i.*,
            -- Steps 4 and 5 of record_fixes__attempt: neither rejected nor quarantined
            coalesce(i.boot <> '' AND i.seq BETWEEN 1 AND 4611686018427387904
                AND i.fix_at <= i.received_at + interval '0.5 s'
                AND (i.accuracy_m <= worst_m) IS NOT FALSE
                AND (i.lon_deg <> 0 OR i.lat_deg <> 0)
                AND (i.lat_deg BETWEEN west AND east AND i.lon_deg BETWEEN south AND north)
                    IS NOT TRUE
                AND incoming_fix__rejection_reason(i.boot, i.seq, i.fix_at, i.received_at,
                    i.lon_deg, i.lat_deg, i.accuracy_m, i.speed_mps, i.heading_deg, i.altitude_m,
                    i.battery, i.reason, future, lateness, sealed) IS NULL, false) AS is_ordinary
        FROM pg_temp.incoming_fix i
    ),
    fixes AS MATERIALIZED (  -- neighbours share pages of the indexes and tables
        (
            SELECT *, n AS first_n, seq AS first_seq, received_at AS first_at,
                least(fix_at, received_at) AS taken_from, 1 AS fix_count, true AS is_last,
                is_ordinary AS is_next
            FROM checked WHERE one_each ORDER BY driver_id
        )
        UNION ALL
        SELECT *, first_value(n) OVER in_order, first_value(seq) OVER in_order,
            first_value(received_at) OVER in_order,
            first_value(least(fix_at, received_at)) OVER in_order,
            (row_number() OVER in_order)::int, lead(true) OVER in_order IS NULL,
            is_ordinary AND CASE WHEN row_number() OVER in_order = 1 THEN true
                ELSE coalesce(boot = lag(boot) OVER in_order AND seq = lag(seq) OVER in_order + 1
                    AND fix_at > lag(fix_at) OVER in_order
                    AND received_at >= lag(received_at) OVER in_order, false) END
        FROM checked WHERE NOT one_each
        WINDOW in_order AS (PARTITION BY driver_id ORDER BY n)
    ),
    moved AS (
        UPDATE driver_state d SET
            fix_at = f.fix_at, received_at = f.received_at,
            lon_deg = f.lon_deg, lat_deg = f.lat_deg, accuracy_m = f.accuracy_m,
            speed_mps = f.speed_mps, heading_deg = f.heading_deg, altitude_m = f.altitude_m,
            battery = f.battery, boot = f.boot, seq = f.seq, settled_to = f.seq,
            geom = ST_Point(f.lon_deg, f.lat_deg, 4326),
            cell = cell_of(f.lon_deg, f.lat_deg), hot_padding = NULL,
            is_in_new_cell = CASE
                WHEN d.cell IS DISTINCT FROM cell_of(f.lon_deg, f.lat_deg) THEN true END,
            quota_at = CASE WHEN f.fix_count = 1
                THEN greatest(d.quota_at, f.received_at) + fix_takes
                ELSE greatest(greatest(d.quota_at, f.first_at) + f.fix_count * fix_takes,
                    f.received_at + fix_takes) END
        FROM fixes f
        WHERE f.is_last AND f.is_next
            AND (f.first_n IN (SELECT first_n FROM fixes WHERE NOT is_next)) IS NOT TRUE
            AND d.driver_id = f.driver_id AND d.boot = f.boot
            AND d.settled_to = f.first_seq - 1 AND d.fix_at < f.fix_at
            AND greatest(d.quota_at, f.first_at) + f.fix_count * fix_takes
                <= greatest(f.received_at, d.received_at) + burst
            AND (keeps_off_duty OR (f.taken_from < d.kept_from) IS NOT TRUE)
        RETURNING d.driver_id, d.cell, d.is_in_new_cell, f.first_n, f.fix_count
    ),
    cells AS (
        INSERT INTO driver_cell AS c (driver_id, cell)
        SELECT driver_id, cell FROM moved WHERE is_in_new_cell
        ON CONFLICT (driver_id) DO UPDATE SET cell = EXCLUDED.cell
    ),
    history AS (
        INSERT INTO fix_history (driver_id, fix_at, boot, seq, received_at, lon_deg, lat_deg,
            accuracy_m, speed_mps, heading_deg, altitude_m, battery)
        SELECT driver_id, fix_at, boot, seq, received_at, lon_deg, lat_deg, accuracy_m, speed_mps,
            heading_deg, altitude_m, battery
        FROM fixes WHERE (first_n IN (SELECT first_n FROM moved)) IS TRUE
    )
    SELECT array_agg(driver_id), coalesce(sum(fix_count), 0), (SELECT count(*) FROM fixes)
        INTO moved_drivers, moved_count, fix_count FROM moved;
    PERFORM set_config('doorstep.drivers_are_moved', 'off', true);
    IF moved_count < fix_count AND moved_count > 0 THEN
        DELETE FROM pg_temp.incoming_fix
            WHERE (driver_id IN (SELECT unnest(moved_drivers))) IS TRUE;
    END IF;
    RETURN moved_count = fix_count;
END
$$;

CREATE OR REPLACE FUNCTION record_fixes__attempt(parked_drivers text[])
RETURNS SETOF fix_outcome LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    requested_count int;
    locked_count int;
    drivers_to_park text[];
    future interval;
    lateness interval;
    worst_m float8;
    sealed timestamptz;
    fix_count int;
    has_copies bool;
    is_ahead bool;
    -- The bounding box of all service areas, so that most fixes need four comparisons.
    west float8;
    south float8;
    east float8;
    north float8;
    deferred int[];
    outcomes fix_outcome[];
    settled_apart settled_seq[];
    fix_takes interval;
    burst interval;
    over_quota text[];  -- drivers
    have_prefixes bool;  -- in driver_state
    taken_back text[];  -- drivers
    one_each bool;  -- of every driver
    keeps_off_duty bool;
    may_be_off_duty bool;
    off_duty int[];
BEGIN
    SELECT make_interval(secs => future_s), make_interval(secs => lateness_s), worst_accuracy_m,
            make_interval(secs => 1 / quota_per_s),
            make_interval(secs => quota_burst / quota_per_s), keep_off_duty_positions
        INTO future, lateness, worst_m, fix_takes, burst, keeps_off_duty FROM limits;
    IF current_setting('doorstep.quota_exempt', true) = 'on' THEN
        fix_takes := '0';
    END IF;

    -- Step 1: lock the driver rows
    IF parked_drivers <> '{}' THEN
        RETURN QUERY SELECT * FROM incoming_fix__reject_or_park(parked_drivers);
    END IF;
    WITH requested AS MATERIALIZED (  -- sorted: neighbours share pages of the index and the table
        SELECT driver_id, count(*)::int AS fix_count, min(received_at) AS first_at,
            max(received_at) AS last_at, min(least(fix_at, received_at)) AS taken_from,
            bool_or(fix_at > received_at + interval '0.5 s') AS is_ahead
        FROM pg_temp.incoming_fix GROUP BY driver_id ORDER BY driver_id
    ),
    locked AS MATERIALIZED (
        SELECT CASE WHEN greatest(d.quota_at, r.first_at)
                + CASE WHEN r.fix_count = 1 THEN fix_takes ELSE r.fix_count * fix_takes END
            > greatest(r.last_at, d.received_at) + burst THEN d.driver_id END AS over_quota,
            r.fix_count, r.is_ahead, r.taken_from < d.kept_from AS may_be_off_duty,
            d.settled_to IS NOT NULL AS has_prefix
        FROM requested r JOIN driver_state d USING (driver_id)
        FOR NO KEY UPDATE OF d SKIP LOCKED
    )
    SELECT (SELECT count(*) FROM requested), count(*),
            array_agg(over_quota) FILTER (WHERE over_quota IS NOT NULL), sum(fix_count),
            bool_or(is_ahead), bool_or(may_be_off_duty), bool_or(has_prefix)
        INTO requested_count, locked_count, over_quota, fix_count, is_ahead, may_be_off_duty,
            have_prefixes
        FROM locked;
    IF locked_count < requested_count THEN
        WITH locked AS MATERIALIZED (
            SELECT d.driver_id FROM driver_state d
            WHERE d.driver_id IN (SELECT driver_id FROM pg_temp.incoming_fix)
            FOR NO KEY UPDATE OF d SKIP LOCKED
        )
        SELECT array_agg(DISTINCT driver_id) INTO drivers_to_park FROM pg_temp.incoming_fix
            WHERE driver_id NOT IN (SELECT driver_id FROM locked);
        RETURN QUERY SELECT * FROM incoming_fix__reject_or_park(drivers_to_park);
    END IF;

    -- Step 2: parked fixes precede those of this batch (n below 0)
    IF EXISTS (SELECT FROM parked_fix WHERE content IS NULL) THEN
        WITH unparked AS (
            DELETE FROM parked_fix p
            WHERE p.parked_id IN (
                SELECT k.parked_id FROM parked_fix k
                WHERE k.content IS NULL
                    AND (k.driver_id IN (SELECT driver_id FROM pg_temp.incoming_fix)) IS TRUE
                ORDER BY k.parked_id LIMIT 20000
            )
            RETURNING p.*
        ),
        taken AS (
            INSERT INTO pg_temp.incoming_fix (n, driver_id, boot, seq, fix_at, received_at,
                lon_deg, lat_deg, accuracy_m, speed_mps, heading_deg, altitude_m, battery, reason)
            SELECT (-1000000000 + row_number() OVER (ORDER BY parked_id))::int4, driver_id, boot,
                seq, fix_at, received_at, lon_deg, lat_deg, accuracy_m, speed_mps, heading_deg,
                altitude_m, battery, reason
            FROM unparked
        )
        SELECT array_agg(DISTINCT driver_id) INTO taken_back FROM unparked;
        over_quota := over_quota || taken_back;
    END IF;
    IF over_quota IS NOT NULL THEN
        RETURN QUERY SELECT * FROM incoming_fix__park_excess(over_quota, fix_takes, burst);
        SELECT count(*), bool_or(fix_at > received_at + interval '0.5 s')
            INTO fix_count, is_ahead FROM pg_temp.incoming_fix;
    END IF;

    IF have_prefixes THEN
        PERFORM driver_state__release_prefixes(ARRAY(
            SELECT DISTINCT driver_id FROM pg_temp.incoming_fix ORDER BY driver_id
        ));
    END IF;
    SELECT sealed_before INTO sealed FROM history_bounds;
    SELECT min(a.west), min(a.south), max(a.east), max(a.north)
        INTO west, south, east, north FROM service_area a;

    -- Few batches contain a fix twice, and only those pay for the comparison of copies. (A plain
    -- PATCH has neither boot nor seq, so two of one driver may be copies.)
    has_copies := fix_count > locked_count AND EXISTS (
        SELECT FROM pg_temp.incoming_fix GROUP BY driver_id, boot, seq HAVING count(*) > 1
    );
    IF is_ahead THEN
        PERFORM driver_clock__learn();
    END IF;
    IF (may_be_off_duty OR over_quota IS NOT NULL) AND NOT keeps_off_duty THEN
        off_duty := incoming_fix__off_duty();
    END IF;

    one_each := fix_count = locked_count AND over_quota IS NULL;

    -- Copies that follow a storable one are decided in a second pass, when that one is written. So
    -- a batch of n has the same result as n batches of one.
    LOOP
        WITH candidate AS NOT MATERIALIZED (
            SELECT i.n, i.driver_id,
                CASE WHEN i.seq IS NULL THEN '' ELSE coalesce(i.boot, '') END AS boot,
                -- without boot and seq, a fix is identified by its place
                coalesce(i.seq, hashtextextended(
                    (i.lon_deg + 0.0)::text || ' ' || (i.lat_deg + 0.0)::text, 0
                ) & 9223372036854775807) AS seq,
                i.boot IS NULL OR i.seq IS NULL AS anonymous,
                i.fix_at, i.received_at, i.lon_deg, i.lat_deg, i.accuracy_m, i.speed_mps,
                i.heading_deg, i.altitude_m, i.battery, i.reason,
                CASE WHEN off_duty IS NOT NULL AND i.n IN (SELECT unnest(off_duty)) THEN 'off_duty'
                    ELSE incoming_fix__rejection_reason(i.boot, i.seq, i.fix_at, i.received_at,
                        i.lon_deg, i.lat_deg, i.accuracy_m, i.speed_mps, i.heading_deg,
                        i.altitude_m, i.battery, i.reason, future, lateness, sealed)
                END AS rejection
            FROM pg_temp.incoming_fix i
            WHERE deferred IS NULL OR i.n IN (SELECT unnest(deferred))
            ORDER BY driver_id  -- neighbours share pages of the indexes and tables
        ),
        copies AS MATERIALIZED (
            SELECT n,
                count(*) FILTER (WHERE rejection IS NULL) OVER copies_before > 0
                    AS follows_storable,
                count(*) FILTER (WHERE rejection IS NOT NULL) OVER copies_before > 0
                    AS follows_rejected
            FROM candidate WHERE has_copies
            WINDOW copies_before AS (
                PARTITION BY driver_id, boot, seq, CASE WHEN anonymous THEN fix_at END ORDER BY n
                ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
            )
        ),
        decided AS MATERIALIZED (
            -- Steps 3 to 5
            SELECT r.n, r.driver_id, r.boot, r.seq, r.anonymous, r.fix_at, r.received_at,
                r.lon_deg, r.lat_deg, r.accuracy_m, r.speed_mps, r.heading_deg, r.altitude_m,
                r.battery, b.ctid AS boot_ctid,
                CASE WHEN b.settled_to = b.newest_seq THEN b.settled_to
                    WHEN b.settled_to IS NULL THEN 0 END AS continues_from,
                one_each AND r.seq = b.settled_to + 1 AND b.settled_to = b.newest_seq AS is_next,
                CASE
                    WHEN NOT anonymous
                        AND (r.boot = '' OR NOT r.seq BETWEEN 1 AND 4611686018427387904)
                        THEN 'rejected bad_id'
                    -- a fix that is too old or too early to be new may be stored already
                    WHEN anonymous AND rejection NOT IN ('too_old', 'in_the_future', 'sealed',
                        'off_duty')
                        THEN 'rejected ' || rejection
                    -- only a seq up to the newest can be known
                    WHEN anonymous OR (r.seq <= b.newest_seq AND coalesce(
                        (
                            SELECT CASE WHEN r.seq <= b.settled_to
                                THEN get_bit(coalesce(k.rejected, B'0'::bit(2048)),
                                    (r.seq & 2047)::int) = 0
                                ELSE get_bit(coalesce(k.stored, B'0'::bit(2048)),
                                    (r.seq & 2047)::int) = 1 END
                            FROM boot_seq_block k
                            WHERE k.driver_id = r.driver_id AND k.boot = r.boot
                                AND k.block_no = r.seq >> 11
                        ),
                        r.seq <= b.settled_to
                    )) THEN coalesce(
                        CASE
                            WHEN reason = 'void' THEN 'duplicate'
                            WHEN reason IS NOT NULL THEN 'rejected ' || reason
                            WHEN NOT anonymous AND r.fix_at < sealed THEN 'duplicate'
                        END,
                        (
                            SELECT CASE WHEN (h.lon_deg, h.lat_deg, h.accuracy_m, h.speed_mps,
                                h.heading_deg, h.altitude_m, h.battery) IS NOT DISTINCT FROM
                                (r.lon_deg, r.lat_deg, r.accuracy_m, r.speed_mps,
                                r.heading_deg, r.altitude_m, r.battery)
                                THEN 'duplicate' ELSE 'conflict' END
                            FROM fix_history h
                            WHERE h.driver_id = r.driver_id AND h.fix_at = r.fix_at
                                AND h.boot = r.boot AND h.seq = r.seq
                        ),
                        CASE
                            WHEN NOT anonymous THEN 'conflict'
                            WHEN r.n IN (SELECT n FROM copies WHERE follows_storable)
                                THEN 'deferred'
                            WHEN rejection IS NOT NULL THEN 'rejected ' || rejection
                        END
                    )
                    WHEN r.n IN (SELECT n FROM copies WHERE follows_storable) THEN 'deferred'
                    -- a corrupt copy must not prevent a good one from being stored, in either order
                    WHEN rejection IS NOT NULL THEN 'rejected ' || CASE
                        WHEN rejection = 'off_duty' THEN rejection
                        WHEN r.n IN (SELECT n FROM copies WHERE follows_rejected)
                            OR (r.seq <= b.newest_seq AND coalesce((
                                SELECT get_bit(k.rejected, (r.seq & 2047)::int) = 1
                                FROM boot_seq_block k
                                WHERE k.driver_id = r.driver_id AND k.boot = r.boot
                                    AND k.block_no = r.seq >> 11
                            ), false)) THEN 'rejected_before'
                        ELSE rejection
                    END
                END AS outcome,
                CASE
                    WHEN lon_deg = 0 AND lat_deg = 0 THEN 'null_island'
                    WHEN r.lat_deg BETWEEN west AND east AND r.lon_deg BETWEEN south AND north
                        AND EXISTS (SELECT FROM service_area a
                            WHERE r.lat_deg BETWEEN a.west AND a.east
                            AND r.lon_deg BETWEEN a.south AND a.north)
                        AND NOT EXISTS (SELECT FROM service_area a
                            WHERE r.lon_deg BETWEEN a.west AND a.east
                            AND r.lat_deg BETWEEN a.south AND a.north)
                        THEN 'swapped'
                    WHEN accuracy_m > worst_m THEN 'inaccurate'
                END AS quarantine
            FROM candidate r
            LEFT JOIN boot_seqs b ON b.driver_id = r.driver_id AND b.boot = r.boot
        ),
        -- Step 6
        history AS (
            INSERT INTO fix_history (driver_id, fix_at, boot, seq, received_at, lon_deg, lat_deg,
                accuracy_m, speed_mps, heading_deg, altitude_m, battery, quarantine)
            SELECT driver_id, fix_at, boot, seq, received_at, lon_deg, lat_deg,
                accuracy_m, speed_mps, heading_deg, altitude_m, battery, quarantine
            FROM decided WHERE outcome IS NULL
        ),
        -- Nearly always a fix is the next one of its boot, and the boot's only one in the batch.
        settled AS MATERIALIZED (
            SELECT *,
                -- the next seqs of the boot and nothing else
                coalesce(is_all_stored AND first_seq = continues_from + 1
                    AND last_seq - first_seq = fix_count - 1, false) AS continues
            FROM (
                SELECT driver_id, boot, min(boot_ctid) AS boot_ctid,
                    min(continues_from) AS continues_from, min(seq) AS first_seq,
                    max(seq) AS last_seq, count(*) AS fix_count,
                    bool_and(outcome IS NULL) AS is_all_stored
                FROM decided
                WHERE NOT anonymous AND (outcome IS NULL OR (outcome LIKE 'rejected %'
                    AND outcome NOT IN ('rejected rejected_before', 'rejected bad_id')))
                    AND (is_next AND outcome IS NULL) IS NOT TRUE
                GROUP BY driver_id, boot
            ) s
        ),
        continued_boots AS (
            UPDATE boot_seqs b
            SET settled_to = s.last_seq, newest_seq = s.last_seq, settled_at = now()
            FROM (
                SELECT boot_ctid, seq AS last_seq FROM decided
                WHERE is_next AND outcome IS NULL AND NOT anonymous
                UNION ALL
                SELECT boot_ctid, last_seq FROM settled WHERE continues
            ) s
            WHERE b.ctid = s.boot_ctid  -- unchanged, because the driver row is locked
        ),
        new_boots AS (
            INSERT INTO boot_seqs (driver_id, boot, settled_to, newest_seq)
            SELECT driver_id, boot, CASE WHEN continues THEN last_seq ELSE 0 END,
                CASE WHEN continues THEN last_seq ELSE 0 END
            FROM settled WHERE boot_ctid IS NULL
        )
        SELECT array_agg((n,
                CASE WHEN outcome = 'rejected off_duty' THEN 'dropped'
                    ELSE split_part(outcome, ' ', 1) END,
                nullif(split_part(outcome, ' ', 2), ''))::fix_outcome)
                FILTER (WHERE outcome IS NOT NULL AND outcome <> 'deferred')
            || array_agg((n, 'quarantined', quarantine)::fix_outcome)
                FILTER (WHERE outcome IS NULL AND quarantine IS NOT NULL),
            array_agg(n) FILTER (WHERE outcome = 'deferred'),
            (
                SELECT array_agg((driver_id, boot, seq, outcome IS NULL)::settled_seq)
                FROM decided
                WHERE EXISTS (SELECT FROM settled WHERE NOT continues)
                    AND ((driver_id, boot) IN (
                        SELECT driver_id, boot FROM settled WHERE NOT continues
                    )) IS TRUE  -- a hash, never a join
                    AND NOT anonymous AND (outcome IS NULL OR (outcome LIKE 'rejected %'
                        AND outcome NOT IN ('rejected rejected_before', 'rejected bad_id')))
            )
        INTO outcomes, deferred, settled_apart
        FROM decided
        WHERE outcome IS NOT NULL OR quarantine IS NOT NULL;

        IF settled_apart IS NOT NULL THEN
            PERFORM boot_seqs__settle(settled_apart);
        END IF;
        IF outcomes IS NOT NULL THEN
            PERFORM driver_state__charge(outcomes, fix_takes);
            IF EXISTS (SELECT FROM unnest(outcomes) o WHERE o.n < 0) THEN
                PERFORM parked_fix__add_dead_letters(outcomes);
            END IF;
            IF EXISTS (SELECT FROM unnest(outcomes) o WHERE o.outcome = 'duplicate') THEN
                PERFORM fix_history__keep_first_arrival(
                    outcomes, future, lateness, sealed, off_duty);
            END IF;
            RETURN QUERY SELECT o.* FROM unnest(outcomes) o;
        END IF;
        EXIT WHEN deferred IS NULL;
    END LOOP;
    PERFORM driver_state__take_prefixes();
END
$$;

CREATE OR REPLACE FUNCTION driver_state__forget_position(of_drivers text[])
RETURNS void LANGUAGE sql AS $$
    DELETE FROM driver_cell c WHERE c.driver_id = ANY (of_drivers);
    SELECT driver_state__release_prefixes(of_drivers);
    UPDATE driver_state SET fix_at = NULL, received_at = NULL, lon_deg = NULL, lat_deg = NULL,
        accuracy_m = NULL, speed_mps = NULL, heading_deg = NULL, altitude_m = NULL, battery = NULL,
        boot = NULL, seq = NULL, geom = NULL, cell = NULL, settled_to = NULL
    WHERE driver_id = ANY (of_drivers)
$$;

CREATE OR REPLACE FUNCTION fix_history__derive_driver_state()
RETURNS trigger LANGUAGE plpgsql
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
DECLARE
    fix_takes CONSTANT interval := (SELECT make_interval(secs => 1 / quota_per_s) FROM limits);
    moved_drivers text[];
    moved_count int;
BEGIN
    IF current_setting('doorstep.drivers_are_moved', true) = 'on' THEN
        RETURN NULL;  -- by record_fixes__continue
    END IF;
    WITH moved AS (
        UPDATE driver_state d SET
            fix_at = f.fix_at, received_at = f.received_at,
            lon_deg = f.lon_deg, lat_deg = f.lat_deg, accuracy_m = f.accuracy_m,
            speed_mps = f.speed_mps, heading_deg = f.heading_deg, altitude_m = f.altitude_m,
            battery = f.battery, boot = f.boot, seq = f.seq,
            -- early, so that driver_state__take_prefixes has nothing to write for most drivers
            settled_to = (
                SELECT b.settled_to FROM boot_seqs b
                WHERE b.driver_id = f.driver_id AND b.boot = f.boot AND b.settled_to = b.newest_seq
            ),
            geom = ST_SetSRID(ST_MakePoint(f.lon_deg, f.lat_deg), 4326),
            cell = cell_of(f.lon_deg, f.lat_deg), hot_padding = NULL,
            quota_at = CASE WHEN f.fix_count = 1
                THEN greatest(d.quota_at, f.received_at) + fix_takes
                ELSE greatest(greatest(d.quota_at, f.first_at) + f.fix_count * fix_takes,
                    f.received_at + fix_takes) END
        FROM (
            SELECT n.*, existing.ctid AS existing_ctid, existing.cell AS existing_cell
            FROM (
                SELECT *, (row_number() OVER oldest_first)::int AS fix_count,
                    first_value(received_at) OVER oldest_first AS first_at,
                    lead(true) OVER oldest_first IS NULL AS is_newest
                FROM new_fixes WHERE quarantine IS NULL
                WINDOW oldest_first AS (PARTITION BY driver_id ORDER BY fix_at, boot, seq)
            ) n
            JOIN driver_state existing ON n.is_newest AND existing.driver_id = n.driver_id
                AND (existing.fix_at IS NULL OR n.fix_at > existing.fix_at
                    OR (n.fix_at = existing.fix_at
                        AND (n.boot, n.seq) > (existing.boot, existing.seq)))
        ) f
        WHERE d.ctid = f.existing_ctid  -- unchanged, because the driver row is locked
        RETURNING d.driver_id, d.cell, f.existing_cell, f.fix_count
    ),
    cells AS (
        INSERT INTO driver_cell AS c (driver_id, cell)
        SELECT driver_id, cell FROM moved WHERE cell IS DISTINCT FROM existing_cell
        ON CONFLICT (driver_id) DO UPDATE SET cell = EXCLUDED.cell
    )
    SELECT array_agg(driver_id), coalesce(sum(fix_count), 0) INTO moved_drivers, moved_count
        FROM moved;
    IF moved_count < (SELECT count(*) FROM new_fixes) THEN  -- late and quarantined ones
        UPDATE driver_state d SET quota_at =
            greatest(greatest(d.quota_at, f.first_at) + f.fix_count * fix_takes,
                f.last_at + fix_takes)
        FROM (
            SELECT driver_id, count(*) AS fix_count, min(received_at) AS first_at,
                max(received_at) AS last_at
            FROM new_fixes
            WHERE quarantine IS NOT NULL
                OR (driver_id IN (SELECT unnest(moved_drivers))) IS NOT TRUE
            GROUP BY driver_id
        ) f
        WHERE d.driver_id = f.driver_id;
    END IF;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION fix_history__derive_evidence()
RETURNS trigger LANGUAGE plpgsql
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_seqscan = off  -- partitions may be empty when the plan is made
AS $$
DECLARE
    found_orders uuid[];  -- contains an order twice if two of its assignments are found
    found_assignment_nos int[];
    found_drivers text[];
    locked_orders uuid[];
BEGIN
    WITH candidates AS (
        SELECT DISTINCT a.order_id, a.assignment_no, a.driver_id
        FROM new_fixes f
        CROSS JOIN LATERAL (
            SELECT * FROM assignment t
            WHERE t.driver_id = f.driver_id AND t.assigned_at <= f.fix_at
            ORDER BY t.assigned_at DESC LIMIT 1
        ) a
        CROSS JOIN LATERAL (
            SELECT p.*,
                ground_distance_m(f.lon_deg, f.lat_deg, a.restaurant_lon_deg, a.restaurant_lat_deg)
                    AS to_restaurant_m,
                ground_distance_m(f.lon_deg, f.lat_deg, a.customer_lon_deg, a.customer_lat_deg)
                    AS to_customer_m
            FROM policy p WHERE p.policy_id = a.policy_id
            OFFSET 0  -- a look-up per fix of an assignment, not of every fix per policy
        ) p
        WHERE f.quarantine IS NULL
            AND (a.ended_at IS NULL OR f.fix_at < a.ended_at)
            AND (f.accuracy_m IS NULL OR f.accuracy_m <= p.worst_accuracy_m)
            AND (
                (abs(f.lat_deg - a.restaurant_lat_deg) * 111195 <= p.enter_radius_m
                    AND p.to_restaurant_m <= p.enter_radius_m
                    AND coalesce(f.speed_mps <= p.dwell_max_mps, true)
                    AND (a.at_restaurant_at IS NULL
                        OR f.fix_at <= a.at_restaurant_at + make_interval(secs => p.dwell_max_s))
                    AND EXISTS (SELECT FROM evidence__partner(
                        f.driver_id, f.fix_at, f.lon_deg, f.lat_deg, a.at_restaurant_at,
                        a.restaurant_lon_deg, a.restaurant_lat_deg, true, p.enter_radius_m,
                        p.dwell_min_s, p.dwell_max_s, p.dwell_spread_m)))
                OR (coalesce(f.fix_at >= a.at_restaurant_at, false)
                    AND p.to_restaurant_m > p.leave_radius_m
                    AND (a.left_restaurant_at IS NULL
                        OR f.fix_at <= a.left_restaurant_at + make_interval(secs => p.leave_max_s))
                    AND EXISTS (SELECT FROM evidence__partner(
                        f.driver_id, f.fix_at, f.lon_deg, f.lat_deg, a.left_restaurant_at,
                        a.restaurant_lon_deg, a.restaurant_lat_deg, false, p.leave_radius_m,
                        p.leave_min_s, p.leave_max_s, NULL)))
                OR (coalesce(f.fix_at >= a.picked_up_at, false)
                    AND p.to_customer_m <= p.arriving_radius_m
                    AND (a.arriving_at IS NULL OR f.fix_at < a.arriving_at))
                OR (coalesce(f.fix_at >= a.picked_up_at, false)
                    AND p.to_customer_m <= p.enter_radius_m
                    AND coalesce(f.speed_mps <= p.dwell_max_mps, true)
                    AND (a.at_customer_at IS NULL
                        OR f.fix_at <= a.at_customer_at + make_interval(secs => p.dwell_max_s))
                    AND EXISTS (SELECT FROM evidence__partner(
                        f.driver_id, f.fix_at, f.lon_deg, f.lat_deg, a.at_customer_at,
                        a.customer_lon_deg, a.customer_lat_deg, true, p.enter_radius_m,
                        p.dwell_min_s, p.dwell_max_s, p.dwell_spread_m)))
            )
    )
    SELECT array_agg(order_id), array_agg(assignment_no), array_agg(driver_id)
        INTO found_orders, found_assignment_nos, found_drivers
        FROM candidates;
    IF found_orders IS NULL THEN
        RETURN NULL;
    END IF;

    locked_orders := ARRAY(
        SELECT order_id FROM orders WHERE order_id = ANY (found_orders)
        ORDER BY order_id FOR NO KEY UPDATE SKIP LOCKED
    );
    IF cardinality(locked_orders) < (SELECT count(DISTINCT o) FROM unnest(found_orders) o) THEN
        RAISE EXCEPTION 'orders are locked by another transaction' USING
            ERRCODE = 'DS012',
            DETAIL = (
                SELECT jsonb_agg(DISTINCT f.driver_id)
                FROM unnest(found_orders, found_drivers) AS f (order_id, driver_id)
                WHERE f.order_id <> ALL (locked_orders)
            );
    END IF;
    PERFORM evidence__derive(found_orders, found_assignment_nos, false);
    PERFORM orders__apply_evidence(found_orders);
    RETURN NULL;
END
$$;

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA doorstep FROM PUBLIC;
GRANT EXECUTE ON FUNCTION boot_seqs__drop_sealed_v1 TO driver_events;
