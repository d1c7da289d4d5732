-- What record_fixes_v1 does for nearly every fix, in one update of its driver's row.

-- The optimistic path, for nearly every fix: writes the fixes of each driver whose fixes are all
-- ordinary, the next seqs of the boot of its newest fix, later than that, and within the quota. One
-- update of driver_state locks the row, checks and moves the prefix and the position. Removes these
-- fixes from incoming_fix; returns whether none is left. What it decides, record_fixes__attempt
-- would decide alike. Locks are waited for as briefly as possible: then the caller starts over.
CREATE FUNCTION record_fixes__continue()
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
