-- The only write path for fixes: COPY into pg_temp.incoming_fix, then record_fixes_v1().

-- Creates or empties the session's incoming_fix, and grants INSERT on it to the caller.
CREATE FUNCTION prepare_incoming_v1()
RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
BEGIN
    IF to_regclass('pg_temp.incoming_fix') IS NULL THEN
        CREATE TEMP TABLE incoming_fix (
            n int4 NOT NULL,
            driver_id text COLLATE "C" NOT NULL,
            boot text COLLATE "C",
            seq int8,
            fix_at timestamptz,
            received_at timestamptz NOT NULL,
            lon_deg float8,
            lat_deg float8,
            accuracy_m float8,
            speed_mps float8,
            heading_deg float8,
            altitude_m float8,
            battery float8,
            reason text
        ) ON COMMIT DELETE ROWS;
        EXECUTE format('GRANT INSERT ON pg_temp.incoming_fix TO %I', session_user);
    ELSIF EXISTS (SELECT FROM pg_temp.incoming_fix) THEN
        TRUNCATE pg_temp.incoming_fix;  -- a second batch in one transaction
    END IF;
END
$$;

-- Writes all of incoming_fix. Returns the rows that have an outcome other than "committed".
-- record_fixes__continue writes most fixes; the steps are for the rest, record_fixes__attempt.
--   1 lock the driver rows; park fixes whose row is locked, reject unknown drivers
--   2 take back fixes of these drivers that were parked because a row was locked, and park what is
--     over a driver's quota
--   3 tell new fixes from copies, by the settled seqs of the boot, before any rule about age
--   4 apply the rules about duty, age and range, by received_at, never by the server's clock
--   5 quarantine
--   6 write history and settled seqs; the triggers of fix_history do the rest
-- An order row locked by another transaction (DS012, raised by the evidence trigger) rolls the
-- attempt back; all fixes of its driver are parked, and the rest is attempted again.
CREATE FUNCTION record_fixes_v1()
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

CREATE FUNCTION record_fixes__attempt(parked_drivers text[])
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
    -- The bounding box of all service areas, so that most fixes need four comparisons. One that
    -- crosses 180 degrees makes it as wide as the world.
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
    LOOP  -- again after each lock that was missing: its row may have changed meanwhile
        WITH requested AS MATERIALIZED (  -- sorted: neighbours share pages of the index and table
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
        EXIT WHEN locked_count = requested_count;
        WITH locked AS MATERIALIZED (
            SELECT d.driver_id FROM driver_state d
            WHERE d.driver_id IN (SELECT driver_id FROM pg_temp.incoming_fix)
            FOR NO KEY UPDATE OF d SKIP LOCKED
        )
        SELECT array_agg(DISTINCT driver_id) INTO drivers_to_park FROM pg_temp.incoming_fix
            WHERE driver_id NOT IN (SELECT driver_id FROM locked);
        RETURN QUERY SELECT * FROM incoming_fix__reject_or_park(drivers_to_park);
    END LOOP;

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
    SELECT min(CASE WHEN a.west <= a.east THEN a.west ELSE -180 END), min(a.south),
            max(CASE WHEN a.west <= a.east THEN a.east ELSE 180 END), max(a.north)
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
                    WHEN CASE
                        WHEN r.lat_deg BETWEEN west AND east AND r.lon_deg BETWEEN south AND north
                        THEN service_area__is_swapped(r.lon_deg, r.lat_deg) END
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

-- No caller receives the outcome of a parked fix, so a rejected one becomes a dead letter here. But
-- a parked fix without a boot is a phone app's, whose copies with other values are duplicates.
CREATE FUNCTION parked_fix__add_dead_letters(outcomes fix_outcome[])
RETURNS void LANGUAGE sql
SET enable_hashjoin = on
AS $$
    INSERT INTO outbox (topic, key, payload, headers)
    SELECT 'dead-letter', convert_to(i.driver_id, 'UTF8'),
        -- the members of a fix, so that the dead letter can be sent again unchanged
        convert_to(jsonb_strip_nulls(to_jsonb(i)
            - ARRAY['n', 'driver_id', 'received_at', 'reason'])::text, 'UTF8'),
        jsonb_build_array(
            jsonb_build_array('reason', coalesce(o.reason, o.outcome)),
            jsonb_build_array('source', 'parked'), jsonb_build_array('topic', ''),
            jsonb_build_array('driver_id', i.driver_id), jsonb_build_array('detail', ''),
            jsonb_build_array('received_at_ms',
                round(extract(epoch FROM i.received_at) * 1000)::int8::text))
    FROM unnest(outcomes) o JOIN pg_temp.incoming_fix i ON i.n = o.n
    WHERE o.n < 0 AND (o.outcome = 'rejected' OR (o.outcome = 'conflict' AND i.boot IS NOT NULL))
$$;
