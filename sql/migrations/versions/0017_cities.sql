-- Cities: a time zone, boxes that cross 180 degrees, and the city of each restaurant.

SET LOCAL search_path = doorstep, public;
SET LOCAL check_function_bodies = off;  -- functions may refer to objects that are created later

ALTER TABLE service_area DROP CONSTRAINT service_area_check;
ALTER TABLE service_area RENAME CONSTRAINT service_area_check1 TO service_area_check;
ALTER TABLE service_area ADD CONSTRAINT service_area_east_check CHECK (east BETWEEN -180 AND 180);
ALTER TABLE service_area ADD COLUMN time_zone text NOT NULL DEFAULT 'UTC';
ALTER TABLE service_area ADD COLUMN made_at timestamptz;  -- of the city's files that are registered

ALTER TABLE restaurant ADD COLUMN city text COLLATE "C"
    REFERENCES service_area ON DELETE SET NULL;  -- null: outside all of them
CREATE INDEX restaurant_city ON restaurant (city);

-- Metres between two places in one city, on a plane that touches the sphere halfway: within 0.1 %
-- of the great-circle distance up to 10 km, below 80 degrees of latitude. Exactly symmetric,
-- because evidence must not depend on the order of two fixes. 111195.0797 m is one degree of
-- PostGIS's sphere (radius 6371008.7714 m). Longitudes differ by the short way round.
CREATE OR REPLACE FUNCTION ground_distance_m(
    lon_deg float8, lat_deg float8, at_lon_deg float8, at_lat_deg float8
)
RETURNS float8 LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 111195.0797 * sqrt(
    ((lon_deg - at_lon_deg - 360 * round((lon_deg - at_lon_deg) / 360))
            * cosd((lat_deg + at_lat_deg) / 2))
        * ((lon_deg - at_lon_deg - 360 * round((lon_deg - at_lon_deg) / 360))
            * cosd((lat_deg + at_lat_deg) / 2))
    + (lat_deg - at_lat_deg) * (lat_deg - at_lat_deg)
);

-- Whether a place is in a box, whose west is above its east where it crosses 180 degrees.
CREATE FUNCTION is_in_box(
    lon_deg float8, lat_deg float8, west float8, south float8, east float8, north float8
)
RETURNS bool LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN lat_deg BETWEEN south AND north AND CASE WHEN west <= east
    THEN lon_deg BETWEEN west AND east ELSE lon_deg >= west OR lon_deg <= east END;

-- Whether a place is in no service area, but in one with its coordinates swapped.
CREATE FUNCTION service_area__is_swapped(at_lon_deg float8, at_lat_deg float8)
RETURNS bool LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN NOT EXISTS (
            SELECT FROM service_area a
            WHERE is_in_box(at_lon_deg, at_lat_deg, a.west, a.south, a.east, a.north)
        ) AND EXISTS (
            SELECT FROM service_area a
            WHERE is_in_box(at_lat_deg, at_lon_deg, a.west, a.south, a.east, a.north)
        );
END
$$;

-- The optimistic path, for nearly every fix: writes the fixes of each driver whose fixes are all
-- ordinary, the next seqs of the boot of its newest fix, later than that, and within the quota. One
-- update of driver_state locks the row, checks and moves the prefix and the position. Removes these
-- fixes from incoming_fix; returns whether none is left. What it decides, record_fixes__attempt
-- would decide alike. Locks are waited for as briefly as possible: then the caller starts over.
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
    SELECT min(CASE WHEN a.west <= a.east THEN a.west ELSE -180 END), min(a.south),
            max(CASE WHEN a.west <= a.east THEN a.east ELSE 180 END), max(a.north)
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
                AND CASE WHEN i.lat_deg BETWEEN west AND east AND i.lon_deg BETWEEN south AND north
                    THEN NOT service_area__is_swapped(i.lon_deg, i.lat_deg) ELSE true END
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

-- Returns available drivers with a recent position, nearest first. Searches a block of cells around
-- the place, and enlarges it until it holds enough drivers. A driver counts only if no nearer one
-- can be outside the block. The first block has 2 x 2 cells, because a cell may hold thousands.
CREATE OR REPLACE FUNCTION nearest_drivers_v1(from_lon_deg float8, from_lat_deg float8, at_most int)
RETURNS TABLE (
    driver_id text, distance_m float8, fix_at timestamptz, lon_deg float8, lat_deg float8
)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_memoize = off  -- no driver is in two cells
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    reach int;  -- cells of 0.01 degrees from `south` and `west` to each edge of the block
    south CONSTANT int := round(from_lat_deg * 100);  -- the grid line nearest to the place
    west CONSTANT int := round(from_lon_deg * 100);
    rows_deg float8;  -- from the place to the nearer edge of the block, north or south
    columns_deg float8;  -- east or west
    first_columns int[];  -- of the block: two ranges where it crosses 180 degrees
    last_columns int[];
    safe_m float8;
    l limits;
    recent_at timestamptz;
    nearest driver_distance[];
BEGIN
    SELECT * INTO STRICT l FROM limits;
    recent_at := clock_timestamp() - make_interval(secs => l.nearest_max_age_s);
    FOREACH reach IN ARRAY ARRAY[1, 3, 9, 27, 81] LOOP
        rows_deg := reach / 100.0 - abs(from_lat_deg - south / 100.0);
        columns_deg := reach / 100.0 - abs(from_lon_deg - west / 100.0);
        first_columns := ARRAY[greatest(west - reach + 18000, 0)];
        last_columns := ARRAY[least(west + reach - 1 + 18000, 35999)];
        IF west - reach + 18000 < 0 THEN
            first_columns := first_columns || west - reach + 54000;
            last_columns := last_columns || 35999;
        ELSIF west + reach - 1 + 18000 > 35999 THEN
            first_columns := first_columns || 0;
            last_columns := last_columns || west + reach - 1 - 18000;
        END IF;
        -- a degree of longitude is shortest at the block's edge nearest to a pole
        safe_m := 111195 * least(rows_deg,
            columns_deg * cosd(least(abs(from_lat_deg) + rows_deg, 89)));
        nearest := ARRAY(
            SELECT (d.driver_id, m.distance_m)::driver_distance
            FROM generate_series(south - reach + 9000, south + reach - 1 + 9000) AS r (cell_row)
            CROSS JOIN unnest(first_columns, last_columns) AS k (first_column, last_column)
            -- OFFSET 0 keeps the order of the look-ups, whatever the planner expects of a block
            CROSS JOIN LATERAL (
                SELECT c.driver_id FROM driver_cell c
                WHERE c.cell BETWEEN r.cell_row * 36000 + k.first_column
                    AND r.cell_row * 36000 + k.last_column
                OFFSET 0
            ) c
            CROSS JOIN LATERAL (
                SELECT s.driver_id, s.lon_deg, s.lat_deg FROM driver_state s
                WHERE s.driver_id = c.driver_id AND s.state = 'available'
                    AND s.lat_deg BETWEEN from_lat_deg - safe_m / 111195
                        AND from_lat_deg + safe_m / 111195  -- excludes many cheaply
                    AND s.fix_at > recent_at
                OFFSET 0
            ) d
            CROSS JOIN LATERAL (
                SELECT ground_distance_m(d.lon_deg, d.lat_deg, from_lon_deg, from_lat_deg)
            ) AS m (distance_m)
            WHERE m.distance_m <= least(safe_m, l.nearest_max_m)
            ORDER BY m.distance_m, d.driver_id
            LIMIT at_most
        );
        EXIT WHEN cardinality(nearest) >= at_most OR safe_m >= l.nearest_max_m;
    END LOOP;
    RETURN QUERY
        SELECT d.driver_id, f.distance_m, d.fix_at, d.lon_deg, d.lat_deg
        FROM unnest(nearest) f JOIN driver_state d ON d.driver_id = f.driver_id
        ORDER BY f.distance_m, d.driver_id;
END
$$;

-- What an answer holds of an order besides the position, as a JSON array in the order of
-- tracking_api's OrderDetails. Depends on the order's events alone, but for instants of events:
-- late fixes may move evidence to an earlier one.
CREATE OR REPLACE FUNCTION customer_order__details(of_order_id uuid)
RETURNS text LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    RETURN (
        SELECT json_build_array(o.state, o.assignment_no, o.order_seq, r.name, r.lon_deg, r.lat_deg,
            o.lon_deg, o.lat_deg, p.dwell_min_s, p.pace, a.assigned_at, (
                SELECT coalesce(json_agg(json_build_array(e.order_seq, e.state, e.source,
                    coalesce(g.occurred_at, e.occurred_at), e.assignment_no) ORDER BY e.order_seq
                ), '[]')
                FROM order_event e
                LEFT JOIN evidence g ON g.order_id = e.order_id
                    AND g.assignment_no = e.assignment_no AND g.state = e.state
                    AND g.source = e.source
                WHERE e.order_id = o.order_id
            ), r.city)
        FROM orders o
        JOIN restaurant r ON r.restaurant_id = o.restaurant_id
        JOIN policy p ON p.policy_id = o.policy_id
        LEFT JOIN assignment a ON a.order_id = o.order_id AND a.assignment_no = o.assignment_no
            AND upper_inf(a.visible)
        WHERE o.order_id = of_order_id
    );
END
$$;

CREATE OR REPLACE FUNCTION register_service_area_v1(
    of_name text, west float8, south float8, east float8, north float8
)
RETURNS void LANGUAGE sql
SET search_path = doorstep, public, pg_temp
AS $$
    INSERT INTO service_area (name, west, south, east, north)
    VALUES (of_name, west, south, east, north)
    ON CONFLICT (name) DO UPDATE SET west = EXCLUDED.west, south = EXCLUDED.south,
        east = EXCLUDED.east, north = EXCLUDED.north
$$;

-- Adds or replaces a city and the restaurants of its files. Returns false, and changes nothing, if
-- these files or newer ones are registered: what staff have changed since stays. Restaurants from
-- 1,000,000,000 on come from files; one that is missing now goes, unless an order refers to it.
CREATE FUNCTION register_city_v1(
    of_name text, west float8, south float8, east float8, north float8, of_time_zone text,
    files_made_at timestamptz,
    restaurant_ids int[], names text[], lon_degs float8[], lat_degs float8[]
)
RETURNS bool LANGUAGE plpgsql
SET search_path = doorstep, public, pg_temp
AS $$
BEGIN
    INSERT INTO service_area AS a (name, west, south, east, north, time_zone, made_at)
    VALUES (of_name, west, south, east, north, of_time_zone, files_made_at)
    ON CONFLICT (name) DO UPDATE SET west = EXCLUDED.west, south = EXCLUDED.south,
        east = EXCLUDED.east, north = EXCLUDED.north, time_zone = EXCLUDED.time_zone,
        made_at = EXCLUDED.made_at
    WHERE a.made_at IS NULL OR a.made_at < EXCLUDED.made_at;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO restaurant AS r (restaurant_id, name, lon_deg, lat_deg, city)
    SELECT n.restaurant_id, n.name, n.lon_deg, n.lat_deg, of_name
    FROM unnest(restaurant_ids, names, lon_degs, lat_degs)
        AS n (restaurant_id, name, lon_deg, lat_deg)
    ON CONFLICT (restaurant_id) DO UPDATE SET name = EXCLUDED.name,
        lon_deg = EXCLUDED.lon_deg, lat_deg = EXCLUDED.lat_deg, city = EXCLUDED.city
    WHERE r.city IS NULL OR r.city = of_name;  -- never another city's
    DELETE FROM restaurant r
    WHERE r.city = of_name AND r.restaurant_id >= 1000000000
        AND r.restaurant_id <> ALL (restaurant_ids)
        AND NOT EXISTS (SELECT FROM orders o WHERE o.restaurant_id = r.restaurant_id);
    RETURN true;
END
$$;

-- Removes a city, and those restaurants of its files that no order refers to. Returns the number of
-- open orders in it: with any, nothing is removed.
CREATE FUNCTION remove_city_v1(of_name text)
RETURNS int LANGUAGE plpgsql
SET search_path = doorstep, public, pg_temp
AS $$
DECLARE
    open_count CONSTANT int := (
        SELECT count(*) FROM orders o JOIN restaurant r ON r.restaurant_id = o.restaurant_id
        WHERE r.city = of_name AND o.ended_at IS NULL
    );
BEGIN
    IF open_count > 0 THEN
        RETURN open_count;
    END IF;
    DELETE FROM restaurant r
    WHERE r.city = of_name AND r.restaurant_id >= 1000000000
        AND NOT EXISTS (SELECT FROM orders o WHERE o.restaurant_id = r.restaurant_id);
    DELETE FROM service_area WHERE name = of_name;
    RETURN 0;
END
$$;

-- A restaurant that is given no city belongs to the smallest one around it.
CREATE FUNCTION restaurant__find_city()
RETURNS trigger LANGUAGE plpgsql
SET search_path = doorstep, public, pg_temp
AS $$
BEGIN
    NEW.city := (
        SELECT a.name FROM service_area a
        WHERE is_in_box(NEW.lon_deg, NEW.lat_deg, a.west, a.south, a.east, a.north)
        ORDER BY (a.north - a.south) * (a.east - a.west + CASE WHEN a.west > a.east THEN 360
            ELSE 0 END), a.name
        LIMIT 1
    );
    RETURN NEW;
END
$$;

-- A new or larger area takes the restaurants in it that have no city.
CREATE FUNCTION service_area__take_restaurants()
RETURNS trigger LANGUAGE plpgsql
SET search_path = doorstep, public, pg_temp
AS $$
BEGIN
    UPDATE restaurant r SET city = NEW.name
    WHERE r.city IS NULL AND is_in_box(
        r.lon_deg, r.lat_deg, NEW.west, NEW.south, NEW.east, NEW.north
    );
    RETURN NULL;
END
$$;

CREATE TRIGGER _500_find_city BEFORE INSERT OR UPDATE OF lon_deg, lat_deg ON restaurant
FOR EACH ROW WHEN (NEW.city IS NULL) EXECUTE FUNCTION restaurant__find_city();

CREATE TRIGGER _500_take_restaurants AFTER INSERT OR UPDATE ON service_area
FOR EACH ROW EXECUTE FUNCTION service_area__take_restaurants();

-- Restaurants of the areas that are registered, the smallest one first.
UPDATE restaurant SET city = (
    SELECT a.name FROM service_area a
    WHERE restaurant.lon_deg BETWEEN a.west AND a.east
        AND restaurant.lat_deg BETWEEN a.south AND a.north
    ORDER BY (a.north - a.south) * (a.east - a.west), a.name
    LIMIT 1
);

REVOKE EXECUTE ON FUNCTION is_in_box, service_area__is_swapped, register_city_v1, remove_city_v1,
    restaurant__find_city, service_area__take_restaurants FROM PUBLIC;
GRANT EXECUTE ON FUNCTION is_in_box TO tracking_api;
GRANT SELECT ON service_area TO tracking_api;
