-- Which seqs of a boot are settled: a prefix and bitmaps in place of multiranges, and a quota for each
-- driver. The services may run meanwhile: they wait for the locks below.

SET LOCAL search_path = doorstep, public;
SET LOCAL check_function_bodies = off;  -- functions may refer to objects that are created later

LOCK TABLE driver_state, driver_boot, parked_fix, limits IN ACCESS EXCLUSIVE MODE;

ALTER TABLE driver_state
    ALTER hot_padding SET DEFAULT decode(repeat('00', 144), 'hex'),
    ADD quota_at timestamptz;
ALTER TABLE limits
    ADD quota_per_s float8 NOT NULL DEFAULT 5 CHECK (quota_per_s > 0),
    ADD quota_burst int NOT NULL DEFAULT 2000 CHECK (quota_burst >= 256),
    ADD max_parked int NOT NULL DEFAULT 100000 CHECK (max_parked >= 0);
ALTER TABLE parked_fix ADD content int8, ADD UNIQUE (driver_id, boot, seq, content);
CREATE INDEX parked_fix_excess ON parked_fix (driver_id, parked_id) WHERE content IS NOT NULL;
CREATE INDEX parked_fix_locked ON parked_fix (parked_id) WHERE content IS NULL;

-- A seq that is now stored, or rejected for good.
CREATE TYPE settled_seq AS (driver_id text, boot text, seq int8, is_stored bool);

ALTER TABLE driver_boot RENAME TO old_driver_boot;

-- Which seqs of a boot are stored or finally rejected ("settled"): all up to settled_to, and those
-- with a bit in a block beyond. At or below settled_to a seq without a rejected bit is stored. If
-- settled_to = newest_seq, no block has a bit beyond, and the next seq needs no look at the blocks.
CREATE TABLE boot_seqs (
    driver_id text COLLATE "C" NOT NULL REFERENCES driver,
    boot text COLLATE "C" NOT NULL,
    settled_to int8 NOT NULL,
    newest_seq int8 NOT NULL CHECK (newest_seq >= settled_to),
    held int8,  -- fixes dropped beyond limits.max_parked, copies included; null: none
    PRIMARY KEY (driver_id, boot)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.5);

-- 2,048 seqs of a boot: bit k of a bitmap stands for seq 2048 * block_no + k. Null is a bitmap
-- without bits. A block ends when settled_to has passed it and it has no rejected bit.
CREATE TABLE boot_seq_block (
    driver_id text COLLATE "C" NOT NULL,
    boot text COLLATE "C" NOT NULL,
    block_no int8 NOT NULL,
    stored bit(2048),
    rejected bit(2048),
    PRIMARY KEY (driver_id, boot, block_no)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.5);

-- Drivers with fixes over their quota: how many are parked, and when some were last recorded.
-- Written only with the driver's row locked.
CREATE TABLE driver_quota (
    driver_id text COLLATE "C" PRIMARY KEY REFERENCES driver,
    parked int NOT NULL CHECK (parked > 0),
    drained_at timestamptz NOT NULL
);

-- Which seqs of a boot are settled: a prefix, and bitmaps of 2,048 seqs beyond it. The cost of a
-- fix is bounded whatever seqs a device sends: docs/explanation/watermark.md.

-- Settles seqs that do not simply continue their boot: sets their bits, and moves each prefix over
-- at most two blocks per seq. The rows of boot_seqs exist, and their drivers' rows are locked.
CREATE FUNCTION boot_seqs__settle(seqs settled_seq[])
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
        UPDATE boot_seqs SET settled_to = reached, newest_seq = newest
            WHERE driver_id = known.driver_id AND boot = known.boot;
        DELETE FROM boot_seq_block
            WHERE driver_id = known.driver_id AND boot = known.boot AND rejected IS NULL
                AND (block_no BETWEEN known.settled_to >> 11 AND reached >> 11
                    OR block_no = ANY (known.block_nos))
                AND (block_no < (reached + 1) >> 11 OR reached = newest);
    END LOOP;
END
$$;

-- Returns the last settled seq of a boot beyond its prefix, and the gaps before it as
-- [[first, last], ...]: at most 64 gaps, read from at most 64 blocks. What is further on is not
-- claimed.
CREATE FUNCTION boot_seqs__gaps(
    of_driver_id text, of_boot text, settled_to int8, OUT seq int8, OUT missing jsonb
)
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    block record;
    at int;  -- the bit from which on is searched
    found_at int;
    gap_count int := 0;
BEGIN
    seq := settled_to;
    missing := '[]';
    FOR block IN
        SELECT k.block_no,
            coalesce(k.stored, B'0'::bit(2048)) | coalesce(k.rejected, B'0'::bit(2048)) AS bits
        FROM boot_seq_block k
        WHERE k.driver_id = of_driver_id AND k.boot = of_boot
            AND k.block_no >= (settled_to + 1) >> 11
        ORDER BY k.block_no LIMIT 64
    LOOP
        at := greatest(settled_to + 1 - block.block_no * 2048, 0);
        WHILE at < 2048 LOOP
            found_at := position(B'1' IN substring(block.bits FROM at + 1));
            EXIT WHEN found_at = 0;
            at := at + found_at - 1;
            IF block.block_no * 2048 + at > seq + 1 THEN
                IF gap_count = 64 THEN
                    RETURN;
                END IF;
                gap_count := gap_count + 1;
                missing := missing || jsonb_build_array(
                    jsonb_build_array(seq + 1, block.block_no * 2048 + at - 1));
            END IF;
            found_at := position(B'0' IN substring(block.bits FROM at + 1));
            at := CASE WHEN found_at = 0 THEN 2048 ELSE at + found_at - 1 END;
            seq := block.block_no * 2048 + at - 1;
        END LOOP;
    END LOOP;
END
$$;

-- Returns the watermark of each (driver, boot): up to seq every fix is stored or rejected, except
-- for the gaps in `missing` [[first, last], ...]: at most 64 gaps.
CREATE OR REPLACE FUNCTION read_watermarks_v1(driver_ids text[], boots text[])
RETURNS TABLE (driver_id text, boot text, seq int8, missing jsonb)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    SELECT s.driver_id, s.boot, coalesce(g.seq, s.settled_to), coalesce(g.missing, '[]')
    FROM unnest(driver_ids, boots) AS requested (driver_id, boot)
    JOIN boot_seqs s ON s.driver_id = requested.driver_id AND s.boot = requested.boot
    LEFT JOIN LATERAL boot_seqs__gaps(s.driver_id, s.boot, s.settled_to) g
        ON s.settled_to < s.newest_seq
    WHERE s.newest_seq > 0
$$;

-- Like read_watermarks_v1, and for how long the device is to send nothing of the boot again
-- (hold_s), since fixes of the driver are parked over the quota, and how many fixes of the boot
-- were dropped beyond what can be parked. A boot of such a driver that is not known yet has seq 0.
CREATE FUNCTION read_watermarks_v2(driver_ids text[], boots text[])
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
    LEFT JOIN boot_seqs s ON s.driver_id = requested.driver_id AND s.boot = requested.boot
    LEFT JOIN driver_quota q ON q.driver_id = requested.driver_id
    LEFT JOIN LATERAL boot_seqs__gaps(s.driver_id, s.boot, s.settled_to) g
        ON s.settled_to < s.newest_seq
    WHERE s.newest_seq > 0 OR q.parked > 0
$$;

-- The set bits of a bitmap, as ranges of seqs.
CREATE FUNCTION boot_seq_block__ranges(block_no int8, bits bit(2048))
RETURNS int8multirange LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT coalesce(range_agg(int8range(block_no * 2048 + k, block_no * 2048 + k + 1)), '{}')
    FROM generate_series(0, 2047) k WHERE get_bit(bits, k) = 1
$$;

-- The seqs of each boot as ranges, for operators and for `./run rebuild`.
CREATE VIEW driver_boot AS
SELECT s.driver_id, s.boot,
    int8multirange(int8range(1, s.settled_to + 1)) - b.rejected + b.stored AS stored,
    b.rejected
FROM boot_seqs s
CROSS JOIN LATERAL (
    SELECT coalesce(range_agg(k.stored), '{}') AS stored,
        coalesce(range_agg(k.rejected), '{}') AS rejected
    FROM (
        SELECT boot_seq_block__ranges(b.block_no, b.stored) AS stored,
            boot_seq_block__ranges(b.block_no, b.rejected) AS rejected
        FROM boot_seq_block b WHERE b.driver_id = s.driver_id AND b.boot = s.boot
    ) k
) b;

-- The ranges as bitmaps by block.
CREATE FUNCTION boot_seq_block__bitmaps(seqs int8multirange)
RETURNS TABLE (block_no int8, bits bit(2048)) LANGUAGE sql IMMUTABLE
AS $$
    SELECT b.block_no, bit_or(
        (~B'0'::bit(2048) >> (greatest(lower(r), b.block_no * 2048) & 2047)::int)
        & (~B'0'::bit(2048) << (2047 - (least(upper(r) - 1, b.block_no * 2048 + 2047) & 2047))::int)
    )
    FROM unnest(seqs) r
    CROSS JOIN LATERAL generate_series(lower(r) >> 11, (upper(r) - 1) >> 11) AS b (block_no)
    GROUP BY b.block_no
$$;

-- Replaces what is known of a boot: `./run rebuild` repairs with it.
CREATE FUNCTION boot_seqs__replace(
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
    INSERT INTO boot_seqs AS b (driver_id, boot, settled_to, newest_seq)
    VALUES (of_driver_id, of_boot, reached, newest)
    ON CONFLICT (driver_id, boot) DO UPDATE
        SET settled_to = EXCLUDED.settled_to, newest_seq = EXCLUDED.newest_seq;
    DELETE FROM boot_seq_block WHERE driver_id = of_driver_id AND boot = of_boot;
    INSERT INTO boot_seq_block (driver_id, boot, block_no, stored, rejected)
    SELECT of_driver_id, of_boot, block_no, s.bits, r.bits
    FROM boot_seq_block__bitmaps(
        new_stored * int8multirange(int8range(reached + 1, NULL))
    ) s
    FULL JOIN boot_seq_block__bitmaps(new_rejected - new_stored) r USING (block_no);
END
$$;

SELECT boot_seqs__replace(driver_id, boot, stored, rejected) FROM old_driver_boot;
-- No column has the time of a boot's newest fix: the migration's stands for it.
DROP TABLE old_driver_boot;
DROP AGGREGATE multirange_union(int8multirange);

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
    SELECT array_agg(f.n) INTO excess
    FROM (
        SELECT i.n, row_number() OVER (PARTITION BY i.driver_id ORDER BY i.n) AS place, floor(
            extract(epoch FROM greatest(max(i.received_at) OVER of_driver, d.received_at) + burst
                - greatest(d.quota_at, min(i.received_at) OVER of_driver))
            / extract(epoch FROM fix_takes)) AS allowed_count
        FROM pg_temp.incoming_fix i JOIN driver_state d USING (driver_id)
        WHERE (i.driver_id IN (SELECT unnest(driver_ids))) IS TRUE AND i.n >= -1500000000
        WINDOW of_driver AS (PARTITION BY i.driver_id)
    ) f
    WHERE f.place > f.allowed_count;
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
        WHERE o.outcome IN ('duplicate', 'rejected', 'conflict')
        GROUP BY i.driver_id
    ) c
    WHERE d.driver_id = c.driver_id
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
    taken_back text[];  -- drivers
    one_each bool;  -- of every driver
BEGIN
    SELECT make_interval(secs => future_s), make_interval(secs => lateness_s), worst_accuracy_m,
            make_interval(secs => 1 / quota_per_s),
            make_interval(secs => quota_burst / quota_per_s)
        INTO future, lateness, worst_m, fix_takes, burst FROM limits;
    IF current_setting('doorstep.quota_exempt', true) = 'on' THEN
        fix_takes := '0';
    END IF;

    -- Step 1: lock the driver rows
    IF parked_drivers <> '{}' THEN
        RETURN QUERY SELECT * FROM incoming_fix__reject_or_park(parked_drivers);
    END IF;
    WITH requested AS MATERIALIZED (  -- sorted: neighbours share pages of the index and the table
        SELECT driver_id, count(*)::int AS fix_count, min(received_at) AS first_at,
            max(received_at) AS last_at,
            bool_or(fix_at > received_at + interval '0.5 s') AS is_ahead
        FROM pg_temp.incoming_fix GROUP BY driver_id ORDER BY driver_id
    ),
    locked AS MATERIALIZED (
        SELECT CASE WHEN greatest(d.quota_at, r.first_at)
                + CASE WHEN r.fix_count = 1 THEN fix_takes ELSE r.fix_count * fix_takes END
            > greatest(r.last_at, d.received_at) + burst THEN d.driver_id END AS over_quota,
            r.fix_count, r.is_ahead
        FROM requested r JOIN driver_state d USING (driver_id)
        FOR NO KEY UPDATE OF d SKIP LOCKED
    )
    SELECT (SELECT count(*) FROM requested), count(*),
            array_agg(over_quota) FILTER (WHERE over_quota IS NOT NULL), sum(fix_count),
            bool_or(is_ahead)
        INTO requested_count, locked_count, over_quota, fix_count, is_ahead FROM locked;
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
                incoming_fix__rejection_reason(i.boot, i.seq, i.fix_at, i.received_at, i.lon_deg,
                    i.lat_deg, i.accuracy_m, i.speed_mps, i.heading_deg, i.altitude_m, i.battery,
                    i.reason, future, lateness, sealed) AS rejection
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
                    WHEN anonymous AND rejection NOT IN ('too_old', 'in_the_future', 'sealed')
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
            UPDATE boot_seqs b SET settled_to = s.last_seq, newest_seq = s.last_seq
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
        SELECT array_agg((n, split_part(outcome, ' ', 1), nullif(split_part(outcome, ' ', 2), ''))
                ::fix_outcome) FILTER (WHERE outcome IS NOT NULL AND outcome <> 'deferred')
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
                PERFORM fix_history__keep_first_arrival(outcomes, future, lateness, sealed);
            END IF;
            RETURN QUERY SELECT o.* FROM unnest(outcomes) o;
        END IF;
        EXIT WHEN deferred IS NULL;
    END LOOP;
END
$$;

-- Attempts parked fixes again: those whose row was locked, and of each driver the oldest over the
-- quota. These are due at half of the quota whatever else the driver sends, and at half of what the
-- driver leaves of it. Returns the number of fixes that are no longer parked.
CREATE OR REPLACE FUNCTION record_parked_v1()
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

-- 500: update the newest fix of each driver and its cell, and count new fixes against the quota.
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
    WITH moved AS (
        UPDATE driver_state d SET
            fix_at = f.fix_at, received_at = f.received_at,
            lon_deg = f.lon_deg, lat_deg = f.lat_deg, accuracy_m = f.accuracy_m,
            speed_mps = f.speed_mps, heading_deg = f.heading_deg, altitude_m = f.altitude_m,
            battery = f.battery, boot = f.boot, seq = f.seq,
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

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA doorstep FROM PUBLIC;
GRANT EXECUTE ON FUNCTION read_watermarks_v2 TO driver_events, driver_api;
