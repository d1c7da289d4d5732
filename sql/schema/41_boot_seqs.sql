-- Which seqs of a boot are settled: a prefix, and bitmaps of 2,048 seqs beyond it. The cost of a
-- fix is bounded whatever seqs a device sends: docs/explanation/watermark.md.

-- The prefix of each boot: that of the boot of a driver's newest fix may be in driver_state.
CREATE VIEW boot_prefix AS
SELECT s.driver_id, s.boot, greatest(s.settled_to, d.settled_to) AS settled_to,
    greatest(s.newest_seq, d.settled_to) AS newest_seq, s.held
FROM boot_seqs s
LEFT JOIN driver_state d ON d.driver_id = s.driver_id AND d.boot = s.boot;

-- Copies the prefixes of drivers from driver_state to boot_seqs. The drivers' rows are locked, and
-- settled_to is written next.
CREATE FUNCTION driver_state__release_prefixes(of_drivers text[])
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

-- Copies the prefix of the boot of each driver's newest fix to driver_state, for the drivers of
-- incoming_fix: null if a seq beyond it is settled. The drivers' rows are locked.
CREATE FUNCTION driver_state__take_prefixes()
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
-- for the gaps in `missing` [[first, last], ...]: at most 64 gaps. While fixes of the driver are
-- parked over the quota, the device is to send nothing of the boot again for hold_s; `held` counts
-- fixes of the boot that were dropped beyond what can be parked. A boot of such a driver that is
-- not known yet has seq 0.
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
    LEFT JOIN boot_prefix s ON s.driver_id = requested.driver_id AND s.boot = requested.boot
    LEFT JOIN driver_quota q ON q.driver_id = requested.driver_id
    LEFT JOIN LATERAL (  -- OFFSET 0: otherwise it is called for boots without gaps too
        SELECT * FROM boot_seqs__gaps(s.driver_id, s.boot, s.settled_to)
        WHERE s.settled_to < s.newest_seq OFFSET 0
    ) g ON true
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

-- Looks at the next boots after (after_driver, after_boot), at most `at_most`, and drops those of
-- which every stored fix is sealed: any copy is refused as `sealed`. Keeps the boot of a driver's
-- newest fix, however old: its device may come back, and would have to close every missing seq as
-- void. Skips drivers that are locked. Returns the last boot looked at; no row when none is left.
CREATE FUNCTION boot_seqs__drop_sealed_v1(after_driver text, after_boot text, at_most int)
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
