-- How long personal data are kept, erasing them, and dropping positions taken off duty.

SET LOCAL search_path = doorstep, public;
SET LOCAL check_function_bodies = off;  -- functions may refer to objects that are created later

ALTER TABLE limits ADD keep_off_duty_positions bool NOT NULL DEFAULT false;
CREATE TABLE retention (
    kind text COLLATE "C" PRIMARY KEY,
    days int NOT NULL CHECK (days <= 36500),
    least_days int NOT NULL CHECK (least_days >= 1),
    CHECK (days >= least_days)
);
INSERT INTO retention (kind, days, least_days) VALUES
    ('orders', 90, 3),     -- customers of ended orders: name, destination, keys
    ('commands', 365, 7),  -- who did what: duty commands, and the people in ended orders
    ('tokens', 30, 2),     -- hashes of tokens that no longer open anything
    ('clocks', 3, 3),      -- driver_clock
    ('audit', 365, 30);

ALTER TABLE driver_state ADD kept_from timestamptz;
CREATE INDEX driver_command_at ON driver_command (driver_id, commanded_at, driver_command_id);
CREATE INDEX driver_command_age ON driver_command USING brin (commanded_at);
-- From the commands so far. A driver who has never been off duty by a command keeps everything.
UPDATE driver_state d SET kept_from = CASE WHEN d.duty = 'off_duty' THEN 'infinity' ELSE c.on_at END
FROM (
    SELECT o.driver_id, (
        SELECT min(n.commanded_at) FROM driver_command n
        WHERE n.driver_id = o.driver_id AND n.driver_command_id > max(o.driver_command_id)
    ) AS on_at
    FROM driver_command o WHERE o.command = 'off_duty' GROUP BY o.driver_id
) c
WHERE d.driver_id = c.driver_id;

ALTER TABLE orders ADD forgotten_at timestamptz;
CREATE INDEX orders_to_forget ON orders (ended_at)
WHERE ended_at IS NOT NULL AND forgotten_at IS NULL;
CREATE INDEX assignment_to_forget ON assignment (ended_at) WHERE driver_id <> 'forgotten';
ALTER TABLE device_credential ADD forgotten_at timestamptz;

DROP TRIGGER _100_refuse_change ON audit;
CREATE TRIGGER _100_refuse_change BEFORE UPDATE OR TRUNCATE ON audit
FOR EACH STATEMENT EXECUTE FUNCTION audit__refuse_change();
CREATE FUNCTION audit__refuse_early_delete()
RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.at >= retention__before('audit', clock_timestamp()) THEN
        RAISE EXCEPTION 'the audit is append-only' USING ERRCODE = 'DS024';
    END IF;
    RETURN OLD;
END
$$;

CREATE TRIGGER _100_refuse_early_delete BEFORE DELETE ON audit
FOR EACH ROW EXECUTE FUNCTION audit__refuse_early_delete();

DROP FUNCTION fix_history__keep_first_arrival(fix_outcome[], interval, interval, timestamptz);

-- Lowers received_at to the least of the accepted copies, in whatever order they are recorded.
-- `outcomes` are those of incoming_fix.
CREATE OR REPLACE FUNCTION fix_history__keep_first_arrival(
    outcomes fix_outcome[], future interval, lateness interval, sealed timestamptz,
    off_duty int[]
)
RETURNS void LANGUAGE plpgsql
AS $$
BEGIN
    WITH earlier AS MATERIALIZED (
        SELECT h.driver_id, h.fix_at, h.boot, h.seq, min(i.received_at) AS received_at
        FROM unnest(outcomes) o
        JOIN pg_temp.incoming_fix i ON i.n = o.n
        CROSS JOIN LATERAL (
            SELECT * FROM fix_history k
            WHERE k.driver_id = i.driver_id AND k.fix_at = i.fix_at
                AND k.boot = CASE WHEN i.seq IS NULL THEN '' ELSE i.boot END
                AND k.seq = coalesce(i.seq, hashtextextended(
                    (i.lon_deg + 0.0)::text || ' ' || (i.lat_deg + 0.0)::text, 0
                ) & 9223372036854775807)
                AND k.received_at > i.received_at
            OFFSET 0
        ) h
        WHERE o.outcome = 'duplicate'
            AND i.fix_at <= i.received_at + future AND i.fix_at >= i.received_at - lateness
            AND i.fix_at >= sealed
            AND (off_duty IS NULL OR i.n <> ALL (off_duty))
        GROUP BY h.driver_id, h.fix_at, h.boot, h.seq
    ),
    newest AS (
        UPDATE driver_state d SET received_at = e.received_at
        FROM earlier e
        WHERE d.driver_id = e.driver_id AND d.fix_at = e.fix_at AND d.boot = e.boot
            AND d.seq = e.seq
    )
    UPDATE fix_history h SET received_at = e.received_at
    FROM earlier e
    WHERE h.driver_id = e.driver_id AND h.fix_at = e.fix_at AND h.boot = e.boot AND h.seq = e.seq;
END
$$;

-- Counts fixes that were not stored against the quota of their driver: copies and rejected ones.
-- (fix_history__derive_driver_state counts those that were.)
CREATE OR REPLACE FUNCTION driver_state__charge(outcomes fix_outcome[], fix_takes interval)
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

-- Removes the fixes of these drivers that are over their quota from incoming_fix, the last first,
-- and parks them: one copy of each, with the least received_at. Spoilt ones are rejected, and what
-- a driver has beyond limits.max_parked is dropped and counted in boot_seqs.held: its device sends
-- it again. Rows with n below -1500000000 are parked fixes that are due. Returns the outcome of
-- each fix removed.
CREATE OR REPLACE FUNCTION incoming_fix__park_excess(driver_ids text[], fix_takes interval, burst interval)
RETURNS SETOF fix_outcome LANGUAGE plpgsql
SET enable_hashjoin = on
AS $$
#variable_conflict use_column
DECLARE
    excess int[];
    most CONSTANT int := (SELECT max_parked FROM limits);
BEGIN
    IF fix_takes = '0' THEN  -- exempt from the quota
        RETURN;
    END IF;
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

-- Removes the rows of incoming_fix whose driver is unknown or in `drivers_to_park`: the former are
-- rejected, the latter parked. Returns the outcome of each.
CREATE OR REPLACE FUNCTION incoming_fix__reject_or_park(drivers_to_park text[])
RETURNS SETOF fix_outcome LANGUAGE plpgsql
AS $$
BEGIN
    RETURN QUERY
        WITH unknown AS (
            DELETE FROM pg_temp.incoming_fix i
            WHERE NOT EXISTS (SELECT FROM driver_state d WHERE d.driver_id = i.driver_id)
            RETURNING i.n, i.driver_id
        )
        SELECT u.n, 'rejected', CASE WHEN EXISTS (
                SELECT FROM device_credential c
                WHERE c.device_id = u.driver_id AND c.forgotten_at IS NOT NULL
            ) THEN 'forgotten' ELSE 'unknown_driver' END
        FROM unknown u;
    RETURN QUERY
        WITH taken AS (
            DELETE FROM pg_temp.incoming_fix i
            WHERE (i.driver_id IN (SELECT unnest(drivers_to_park))) IS TRUE  -- a hash, never a join
            RETURNING i.*
        ),
        parked AS (
            INSERT INTO parked_fix (driver_id, boot, seq, fix_at, received_at, lon_deg, lat_deg,
                accuracy_m, speed_mps, heading_deg, altitude_m, battery, reason)
            SELECT driver_id, boot, seq, fix_at, received_at, lon_deg, lat_deg,
                accuracy_m, speed_mps, heading_deg, altitude_m, battery, reason
            FROM taken ORDER BY n
        )
        SELECT t.n, 'parked', 'locked' FROM taken t;
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
            r.fix_count, r.is_ahead, r.taken_from < d.kept_from AS may_be_off_duty
        FROM requested r JOIN driver_state d USING (driver_id)
        FOR NO KEY UPDATE OF d SKIP LOCKED
    )
    SELECT (SELECT count(*) FROM requested), count(*),
            array_agg(over_quota) FILTER (WHERE over_quota IS NOT NULL), sum(fix_count),
            bool_or(is_ahead), bool_or(may_be_off_duty)
        INTO requested_count, locked_count, over_quota, fix_count, is_ahead, may_be_off_duty
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
END
$$;

-- Applies `add`, `rotate`, `revoke` or `remove` to one device. All four end the present secrets at
-- the brokers and the tokens at driver_api. `add`, of a new or removed id, and `rotate` set the new
-- secrets, of which only hashes come here. Raises DS003 if there is no such device, or if a removed
-- one is rotated, and DS025 if the id to add is taken.
CREATE OR REPLACE FUNCTION change_device_v2(
    of_kind text, of_device_id text, change text, by_who text, new_mqtt_hash text,
    new_token_sha256 bytea
)
RETURNS TABLE (
    device_id text, kind text, generation int, is_derived bool, created_at timestamptz,
    rotated_at timestamptz, revoked_at timestamptz, removed_at timestamptz
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    new_version CONSTANT int8 := credential_version__next();
    now CONSTANT timestamptz := clock_timestamp();
    has_new_secrets CONSTANT bool := change IN ('add', 'rotate');
    changed device_credential;
BEGIN
    IF has_new_secrets AND new_mqtt_hash IS NULL THEN
        RAISE EXCEPTION 'new secrets are missing' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    IF change = 'add' THEN
        IF EXISTS (SELECT FROM device_credential d
            WHERE d.device_id = of_device_id AND d.forgotten_at IS NOT NULL)
        THEN
            RAISE EXCEPTION '% was forgotten: take another id', of_device_id
                USING ERRCODE = 'DS017';
        END IF;
        INSERT INTO device_credential AS d (device_id, kind, mqtt_hash, version)
        VALUES (of_device_id, of_kind::device_kind, new_mqtt_hash, new_version)
        ON CONFLICT (device_id) DO UPDATE
            SET generation = d.generation + 1, mqtt_hash = EXCLUDED.mqtt_hash, rotated_at = now,
                revoked_at = NULL, removed_at = NULL, version = new_version
            WHERE d.removed_at IS NOT NULL AND d.kind = EXCLUDED.kind
        RETURNING * INTO changed;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'the id % is taken', of_device_id USING ERRCODE = 'DS025';
        END IF;
    ELSE
        UPDATE device_credential d SET version = new_version,
            generation = d.generation + has_new_secrets::int,
            mqtt_hash = CASE WHEN has_new_secrets THEN new_mqtt_hash ELSE d.mqtt_hash END,
            rotated_at = CASE WHEN has_new_secrets THEN now ELSE d.rotated_at END,
            revoked_at = CASE WHEN NOT has_new_secrets THEN coalesce(d.revoked_at, now) END,
            removed_at = CASE WHEN change = 'remove' THEN coalesce(d.removed_at, now)
                ELSE d.removed_at END
        WHERE d.device_id = of_device_id AND d.kind = of_kind::device_kind
            AND (change <> 'rotate' OR d.removed_at IS NULL)
        RETURNING * INTO changed;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'there is no % %', of_kind, of_device_id USING ERRCODE = 'DS003';
        END IF;
    END IF;
    UPDATE access_token t SET revoked_at = now
        WHERE t.driver_id = of_device_id AND t.revoked_at IS NULL;
    IF of_kind = 'driver' AND has_new_secrets THEN
        INSERT INTO driver (driver_id, name) VALUES (of_device_id, of_device_id)
        ON CONFLICT DO NOTHING;
        INSERT INTO driver_state (driver_id) VALUES (of_device_id) ON CONFLICT DO NOTHING;
        INSERT INTO access_token (token_sha256, role, driver_id)
        VALUES (new_token_sha256, 'driver', of_device_id);
    ELSIF of_kind = 'driver' THEN
        PERFORM driver_state__end_duty(of_device_id);
    END IF;
    PERFORM record_audit_v1(by_who, of_kind || '.' || change, of_device_id,
        jsonb_build_object('generation', changed.generation));
    RETURN QUERY SELECT changed.device_id, changed.kind::text, changed.generation,
        changed.mqtt_hash IS NULL, changed.created_at, changed.rotated_at, changed.revoked_at,
        changed.removed_at;
END
$$;

-- Fixes that were taken off duty are dropped: docs/explanation/privacy.md.

-- Returns the numbers of incoming fixes that were taken off duty, outside of every assignment. The
-- rows of their drivers are locked, and a command gets a later instant than those before it: so
-- what is decided about an instant in the past stays.
CREATE FUNCTION incoming_fix__off_duty()
RETURNS int[] LANGUAGE sql STABLE
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
    SELECT array_agg(i.n)
    FROM (
        SELECT n, driver_id, least(fix_at, received_at) AS taken_at FROM pg_temp.incoming_fix
        WHERE reason IS NULL AND fix_at IS NOT NULL
    ) i
    JOIN driver_state d ON d.driver_id = i.driver_id AND i.taken_at < d.kept_from
    WHERE 'off_duty' = (
            SELECT c.command FROM driver_command c
            WHERE c.driver_id = i.driver_id AND c.commanded_at <= i.taken_at
            ORDER BY c.commanded_at DESC, c.driver_command_id DESC LIMIT 1
        )
        AND NOT EXISTS (
            SELECT FROM assignment a
            WHERE a.driver_id = i.driver_id AND coalesce(a.ended_at, 'infinity') > i.taken_at
                AND a.assigned_at <= i.taken_at
        )
$$;

-- How long personal data are kept, and erasing them: docs/how-to/personal-data.md.

-- Returns the instant before which data of a kind are past their retention.
CREATE FUNCTION retention__before(of_kind text, as_of timestamptz)
RETURNS timestamptz LANGUAGE sql STABLE
RETURN as_of - make_interval(days => (SELECT r.days FROM retention r WHERE r.kind = of_kind));

-- Sets for how many days a kind is kept. `history` is limits.history_days.
CREATE FUNCTION retention__set_v1(of_kind text, new_days int, by_who text)
RETURNS void LANGUAGE plpgsql
SET search_path = doorstep, public, pg_temp
AS $$
BEGIN
    UPDATE retention SET days = new_days WHERE kind = of_kind;
    UPDATE limits SET history_days = new_days WHERE of_kind = 'history';
    PERFORM record_audit_v1(by_who, 'retention.set', of_kind, jsonb_build_object('days', new_days));
END
$$;

CREATE FUNCTION retention__keep_off_duty_v1(keep bool, by_who text)
RETURNS void LANGUAGE plpgsql
SET search_path = doorstep, public, pg_temp
AS $$
BEGIN
    UPDATE limits SET keep_off_duty_positions = keep;
    PERFORM record_audit_v1(by_who, 'retention.set', 'off-duty', jsonb_build_object('keep', keep));
END
$$;

-- Makes orders anonymous: the destination becomes the restaurant's place, and links end. Evidence
-- and states stay. Returns the number of orders that were not anonymous.
CREATE FUNCTION orders__forget(of_orders uuid[], at timestamptz)
RETURNS int8 LANGUAGE plpgsql AS $$
DECLARE
    forgotten_count int8;
BEGIN
    UPDATE orders o SET customer_name = NULL, idempotency_key = NULL, lon_deg = r.lon_deg,
        lat_deg = r.lat_deg, forgotten_at = at
    FROM restaurant r
    WHERE o.order_id = ANY (of_orders) AND o.forgotten_at IS NULL
        AND r.restaurant_id = o.restaurant_id;
    GET DIAGNOSTICS forgotten_count = ROW_COUNT;
    UPDATE assignment a SET customer_lon_deg = a.restaurant_lon_deg,
        customer_lat_deg = a.restaurant_lat_deg
    WHERE a.order_id = ANY (of_orders);
    UPDATE order_command c SET idempotency_key = NULL,
        actor_id = CASE WHEN c.actor = 'customer' THEN 'forgotten' ELSE c.actor_id END
    WHERE c.order_id = ANY (of_orders);
    DELETE FROM access_token t WHERE t.order_id = ANY (of_orders);
    DELETE FROM order_watch w WHERE w.order_id = ANY (of_orders);
    RETURN forgotten_count;
END
$$;

-- Replaces the people who carried and commanded orders by `forgotten`: all of them, or one driver.
-- The orders have ended. Returns the number of assignments.
CREATE FUNCTION orders__forget_people(of_orders uuid[], of_driver_id text)
RETURNS int8 LANGUAGE plpgsql AS $$
DECLARE
    a assignment;
    forgotten_count int8 := 0;
BEGIN
    INSERT INTO driver (driver_id, name) VALUES ('forgotten', 'forgotten') ON CONFLICT DO NOTHING;
    FOR a IN
        SELECT * FROM assignment t WHERE t.order_id = ANY (of_orders)
            AND t.driver_id = coalesce(of_driver_id, t.driver_id) AND t.driver_id <> 'forgotten'
        ORDER BY t.order_id, t.assignment_no
    LOOP
        WHILE EXISTS (SELECT FROM assignment t
            WHERE t.driver_id = 'forgotten' AND t.assigned_at = a.assigned_at)
        LOOP  -- two windows that began in one microsecond
            a.assigned_at := a.assigned_at - interval '1 microsecond';
        END LOOP;
        UPDATE assignment t SET driver_id = 'forgotten', assigned_at = a.assigned_at
            WHERE t.order_id = a.order_id AND t.assignment_no = a.assignment_no;
        forgotten_count := forgotten_count + 1;
    END LOOP;
    UPDATE order_event e SET driver_id = 'forgotten'
        WHERE e.order_id = ANY (of_orders) AND e.driver_id = coalesce(of_driver_id, e.driver_id);
    UPDATE order_command c SET
        actor_id = CASE WHEN c.actor_id = coalesce(of_driver_id, c.actor_id)
            THEN 'forgotten' ELSE c.actor_id END,
        driver_id = CASE WHEN c.driver_id = coalesce(of_driver_id, c.driver_id)
            THEN 'forgotten' ELSE c.driver_id END
    WHERE c.order_id = ANY (of_orders);
    RETURN forgotten_count;
END
$$;

-- Deletes or makes anonymous up to at_most rows of a kind that are past their retention. Returns
-- their number. Takes no lock that a batch of fixes waits for: it skips locked drivers.
CREATE FUNCTION retention__expire(of_kind text, at_most int, as_of timestamptz)
RETURNS int8 LANGUAGE plpgsql
SET enable_mergejoin = off
AS $$
DECLARE
    before CONSTANT timestamptz := retention__before(of_kind, as_of);
    expired_count int8;
    of_orders uuid[];
    of_drivers text[];
BEGIN
    IF of_kind = 'orders' THEN
        of_orders := ARRAY(
            SELECT o.order_id FROM orders o WHERE o.ended_at < before AND o.forgotten_at IS NULL
            ORDER BY o.ended_at LIMIT at_most FOR NO KEY UPDATE SKIP LOCKED
        );
        RETURN orders__forget(of_orders, as_of);
    ELSIF of_kind = 'commands' THEN
        DELETE FROM driver_command c WHERE c.ctid = ANY (ARRAY(
            SELECT k.ctid FROM driver_command k
            WHERE k.commanded_at < before AND EXISTS (  -- the last one says who was on duty then
                SELECT FROM driver_command n
                WHERE n.driver_id = k.driver_id AND n.commanded_at < before
                    AND (n.commanded_at, n.driver_command_id)
                        > (k.commanded_at, k.driver_command_id)
            )
            LIMIT at_most
        ));
        GET DIAGNOSTICS expired_count = ROW_COUNT;
        of_orders := ARRAY(
            SELECT DISTINCT f.order_id FROM (
                SELECT a.order_id FROM assignment a
                JOIN orders o ON o.order_id = a.order_id AND o.ended_at < before
                WHERE a.ended_at < before AND a.driver_id <> 'forgotten'
                ORDER BY a.ended_at LIMIT at_most
            ) f
        );
        RETURN expired_count + orders__forget_people(of_orders, NULL);
    ELSIF of_kind = 'tokens' THEN
        -- A token without expires_at that was revoked must not be registered again: staff's stay.
        DELETE FROM access_token t WHERE t.token_sha256 = ANY (ARRAY(
            SELECT k.token_sha256 FROM access_token k LEFT JOIN orders o ON o.order_id = k.order_id
            WHERE CASE k.role WHEN 'staff' THEN k.expires_at < before
                ELSE coalesce(k.revoked_at < before, false) OR coalesce(o.ended_at < before, false)
                END
            LIMIT at_most
        ));
    ELSIF of_kind = 'clocks' THEN
        DELETE FROM driver_clock c WHERE c.ctid = ANY (ARRAY(
            SELECT k.ctid FROM driver_clock k WHERE k.hour < before LIMIT at_most
        ));
    ELSIF of_kind = 'audit' THEN
        DELETE FROM audit c WHERE c.audit_id = ANY (ARRAY(
            SELECT k.audit_id FROM audit k WHERE k.at < before ORDER BY k.at LIMIT at_most
        ));
    ELSIF of_kind = 'positions' THEN
        -- the newest position of a driver is kept as long as the history
        of_drivers := ARRAY(
            SELECT d.driver_id FROM driver_state d
            WHERE d.fix_at < as_of - make_interval(days => (SELECT l.history_days FROM limits l))
            LIMIT at_most FOR NO KEY UPDATE SKIP LOCKED
        );
        PERFORM driver_state__forget_position(of_drivers);
        RETURN cardinality(of_drivers);
    ELSE
        RAISE EXCEPTION 'there is no kind %', of_kind USING ERRCODE = '22023';
    END IF;
    GET DIAGNOSTICS expired_count = ROW_COUNT;
    RETURN expired_count;
END
$$;

CREATE FUNCTION driver_state__forget_position(of_drivers text[])
RETURNS void LANGUAGE sql AS $$
    DELETE FROM driver_cell c WHERE c.driver_id = ANY (of_drivers);
    UPDATE driver_state SET fix_at = NULL, received_at = NULL, lon_deg = NULL, lat_deg = NULL,
        accuracy_m = NULL, speed_mps = NULL, heading_deg = NULL, altitude_m = NULL, battery = NULL,
        boot = NULL, seq = NULL, geom = NULL, cell = NULL
    WHERE driver_id = ANY (of_drivers)
$$;

-- For driver_events. The clock and the table `retention`, which only the owner may write, decide,
-- so that a captured service cannot expire anything early.
CREATE FUNCTION retention__expire_v1(of_kind text, at_most int)
RETURNS int8 LANGUAGE sql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    SELECT retention__expire(of_kind, least(at_most, 10000), clock_timestamp())
$$;

-- Erases a driver: what tells of them is deleted, and orders name `forgotten` instead. The id stays
-- in device_credential, so that it is never used again, and in the audit. Returns the number of
-- rows per table. Raises DS003 for an unknown driver, and DS016 if an order of theirs is open.
CREATE FUNCTION forget_driver_v1(of_driver_id text, by_who text)
RETURNS TABLE (table_name text, what text, row_count int8)
LANGUAGE plpgsql
SET search_path = doorstep, public, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    open_order uuid;
    of_orders uuid[];
    name_of_table text;
    deleted_count int8;
BEGIN
    -- Compaction holds this row while it packs: a chunk that it has just written is deleted too.
    PERFORM FROM history_bounds FOR UPDATE;
    PERFORM FROM driver_state d WHERE d.driver_id = of_driver_id FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no driver %', of_driver_id USING ERRCODE = 'DS003';
    END IF;
    SELECT a.order_id INTO open_order FROM assignment a
        WHERE a.driver_id = of_driver_id AND a.ended_at IS NULL LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION '% has the open order %: reassign, cancel or fail it first', of_driver_id,
            open_order USING ERRCODE = 'DS016';
    END IF;
    PERFORM FROM change_device_v2('driver', of_driver_id, 'remove', NULL, NULL, NULL);
    UPDATE device_credential c SET forgotten_at = clock_timestamp()
        WHERE c.device_id = of_driver_id;

    of_orders := ARRAY(
        SELECT c.order_id FROM order_command c
        WHERE c.driver_id = of_driver_id OR c.actor_id = of_driver_id
        UNION SELECT a.order_id FROM assignment a WHERE a.driver_id = of_driver_id
    );
    RETURN QUERY SELECT 'assignment', 'names `forgotten`',
        orders__forget_people(of_orders, of_driver_id);
    DELETE FROM outbox o
        WHERE o.topic = 'dead-letter' AND o.key = convert_to(of_driver_id, 'UTF8');
    GET DIAGNOSTICS deleted_count = ROW_COUNT;
    RETURN QUERY SELECT 'outbox', 'deleted', deleted_count;
    FOREACH name_of_table IN ARRAY ARRAY[
        'fix_history', 'fix_chunk', 'parked_fix', 'driver_cell', 'driver_clock', 'driver_command',
        'driver_pace', 'driver_quota', 'driver_sampling', 'boot_seq_block', 'boot_seqs',
        'access_token', 'driver_state', 'driver'
    ] LOOP
        EXECUTE format('DELETE FROM %I WHERE driver_id = $1', name_of_table) USING of_driver_id;
        GET DIAGNOSTICS deleted_count = ROW_COUNT;
        RETURN QUERY SELECT name_of_table, 'deleted', deleted_count;
    END LOOP;
    PERFORM record_audit_v1(by_who, 'driver.forget', of_driver_id, NULL);
END
$$;

-- Makes an order anonymous. Raises DS002 for an unknown order, DS016 for an open one, and for one
-- that ended within the last 24 hours: positions near its door are hidden from other customers for
-- so long, and late fixes are still compared with it.
CREATE FUNCTION forget_order_v1(of_order_id uuid, by_who text)
RETURNS TABLE (table_name text, what text, row_count int8)
LANGUAGE plpgsql
SET search_path = doorstep, public, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    o orders;
    free_at timestamptz;
    token_count int8;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(of_order_id::text, 1));
    SELECT * INTO o FROM orders k WHERE k.order_id = of_order_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no order %', of_order_id USING ERRCODE = 'DS002';
    END IF;
    IF o.ended_at IS NULL THEN
        RAISE EXCEPTION 'order % is open: cancel or fail it first', of_order_id
            USING ERRCODE = 'DS016';
    END IF;
    free_at := o.ended_at + interval '24 hours';
    IF free_at > clock_timestamp()
        AND EXISTS (SELECT FROM assignment a WHERE a.order_id = of_order_id)
    THEN
        RAISE EXCEPTION 'order % ended less than 24 hours ago, and its door is still hidden from '
            'other customers: repeat this after %', of_order_id, free_at USING ERRCODE = 'DS016';
    END IF;
    SELECT count(*) INTO token_count FROM access_token t WHERE t.order_id = of_order_id;
    RETURN QUERY SELECT 'orders', 'made anonymous',
        orders__forget(ARRAY[of_order_id], clock_timestamp());
    RETURN QUERY SELECT 'assignment', 'made anonymous', count(*) FROM assignment a
        WHERE a.order_id = of_order_id;
    RETURN QUERY SELECT 'access_token', 'deleted', token_count;
    PERFORM record_audit_v1(by_who, 'order.forget', of_order_id::text, NULL);
END
$$;

-- When drivers were off duty: the instants of commands are in order, and driver_state.kept_from
-- follows them.

CREATE FUNCTION driver_command__keep_order()
RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.commanded_at := greatest(NEW.commanded_at, (  -- the clock may be set back
        SELECT max(c.commanded_at) FROM driver_command c WHERE c.driver_id = NEW.driver_id
    ));
    RETURN NEW;
END
$$;

CREATE TRIGGER _100_keep_order BEFORE INSERT ON driver_command
FOR EACH ROW EXECUTE FUNCTION driver_command__keep_order();

CREATE FUNCTION driver_command__derive_kept_from()
RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE driver_state SET
        kept_from = CASE WHEN NEW.command = 'off_duty' THEN 'infinity' ELSE NEW.commanded_at END
    WHERE driver_id = NEW.driver_id AND (NEW.command = 'off_duty' OR kept_from = 'infinity');
    RETURN NULL;
END
$$;

CREATE TRIGGER _500_derive_kept_from AFTER INSERT ON driver_command
FOR EACH ROW EXECUTE FUNCTION driver_command__derive_kept_from();

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA doorstep FROM PUBLIC;
GRANT EXECUTE ON FUNCTION retention__expire_v1 TO driver_events;
