-- Renames tables, columns, constraints and functions. The data stay as they are. Functions and
-- triggers are dropped and created again. Requires that the services are stopped.

SET LOCAL search_path = doorstep, public;
SET LOCAL check_function_bodies = off;  -- functions may refer to objects that are created later

DO $do$
DECLARE
    session_count int;
BEGIN
    SELECT count(*) INTO session_count FROM pg_stat_activity
        WHERE datname = current_database()
            AND usename IN ('driver_events', 'driver_api', 'tracking_api');
    IF session_count > 0 THEN
        RAISE EXCEPTION '% sessions of the services are connected: stop driver_events, driver_api '
            'and tracking_api, then upgrade again', session_count USING ERRCODE = 'object_in_use';
    END IF;
END
$do$;


-- Functions and triggers ------------------------------------------------------------------

DO $do$
DECLARE
    on_table text;
    trigger_name text;
BEGIN
    FOR on_table, trigger_name IN
        SELECT t.tgrelid::regclass::text, t.tgname
        FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
        WHERE c.relnamespace = 'doorstep'::regnamespace AND NOT t.tgisinternal
            AND t.tgparentid = 0
    LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', trigger_name, on_table);
    END LOOP;
    EXECUTE (
        SELECT 'DROP ROUTINE ' || string_agg(p.oid::regprocedure::text, ', ')
        FROM pg_proc p WHERE p.pronamespace = 'doorstep'::regnamespace
    );
END
$do$;


-- Tables and columns ----------------------------------------------------------------------

ALTER TABLE driver_state RENAME room TO hot_padding;

ALTER TABLE kafka_offset RENAME moved_at TO advanced_at;

ALTER TABLE sealed_before RENAME TO history_bounds;
ALTER TABLE history_bounds RENAME packed_in TO packed_xid;
ALTER TABLE history_bounds RENAME CONSTRAINT sealed_before_pkey TO history_bounds_pkey;
ALTER TABLE history_bounds
    RENAME CONSTRAINT sealed_before_only_row_check TO history_bounds_only_row_check;

ALTER TABLE fix_chunk RENAME fixes TO fix_count;
ALTER TABLE fix_chunk RENAME run_at TO run_starts;
ALTER TABLE fix_chunk RENAME run_seq TO run_seqs;
ALTER TABLE fix_chunk RENAME battery_at TO battery_starts;
ALTER TABLE fix_chunk RENAME way_bytes TO track_bytes;
ALTER TABLE fix_chunk RENAME coded TO encoded;
ALTER TABLE fix_chunk RENAME CONSTRAINT fix_chunk_fixes_check TO fix_chunk_fix_count_check;

ALTER TABLE driver_reporting RENAME TO driver_sampling;
ALTER TABLE driver_sampling RENAME report TO sampling_policy;
ALTER TABLE driver_sampling RENAME CONSTRAINT driver_reporting_pkey TO driver_sampling_pkey;
ALTER TABLE driver_sampling
    RENAME CONSTRAINT driver_reporting_driver_id_fkey TO driver_sampling_driver_id_fkey;
ALTER INDEX driver_reporting_waiting RENAME TO driver_sampling_undelivered;

ALTER TABLE simulation RENAME TO simulation_target;
ALTER TABLE simulation_target RENAME wanted TO target_count;
ALTER TABLE simulation_target RENAME CONSTRAINT simulation_pkey TO simulation_target_pkey;
ALTER TABLE simulation_target
    RENAME CONSTRAINT simulation_kind_check TO simulation_target_kind_check;
ALTER TABLE simulation_target
    RENAME CONSTRAINT simulation_wanted_check TO simulation_target_target_count_check;

ALTER TABLE eta_model RENAME ways TO route_choice;
ALTER TABLE eta_model RENAME CONSTRAINT eta_model_ways_check TO eta_model_route_choice_check;


-- Functions, triggers and grants of revision 0002, as they were then ------------------------

CREATE FUNCTION ground_distance_m(
    lon_deg float8, lat_deg float8, at_lon_deg float8, at_lat_deg float8
)
RETURNS float8 LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 111195.0797 * sqrt(
    ((lon_deg - at_lon_deg) * cosd((lat_deg + at_lat_deg) / 2))
        * ((lon_deg - at_lon_deg) * cosd((lat_deg + at_lat_deg) / 2))
    + (lat_deg - at_lat_deg) * (lat_deg - at_lat_deg)
);

CREATE FUNCTION cell_of(lon_deg float8, lat_deg float8)
RETURNS int4 LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (floor(lat_deg * 100)::int4 + 9000) * 36000
    + least(floor(lon_deg * 100)::int4 + 18000, 35999);

CREATE FUNCTION instant_text(at timestamptz)
RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
RETURN to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"');

CREATE FUNCTION evidence__first_pair(
    of_driver_id text, from_at timestamptz, before_at timestamptz, until_at timestamptz,
    place_lon_deg float8, place_lat_deg float8, inside bool, radius_m float8,
    min_s float8, max_s float8, spread_m float8, max_mps float8, worst_m float8
)
RETURNS SETOF timestamptz LANGUAGE sql STABLE ROWS 1
AS $$
    SELECT a.fix_at
    FROM fix_history a
    WHERE a.driver_id = of_driver_id AND a.fix_at >= from_at
        AND a.fix_at < least(before_at, until_at)
        AND a.quarantine IS NULL AND (a.accuracy_m IS NULL OR a.accuracy_m <= worst_m)
        AND coalesce(a.speed_mps <= max_mps, true)
        AND (ground_distance_m(a.lon_deg, a.lat_deg, place_lon_deg, place_lat_deg) <= radius_m)
            = inside
        AND EXISTS (
            SELECT FROM fix_history b
            WHERE b.driver_id = of_driver_id AND b.fix_at >= a.fix_at + make_interval(secs => min_s)
                AND b.fix_at <= a.fix_at + make_interval(secs => coalesce(max_s, 365 * 86400))
                AND b.fix_at < until_at
                AND b.quarantine IS NULL AND (b.accuracy_m IS NULL OR b.accuracy_m <= worst_m)
                AND coalesce(b.speed_mps <= max_mps, true)
                AND (ground_distance_m(b.lon_deg, b.lat_deg, place_lon_deg, place_lat_deg)
                    <= radius_m) = inside
                AND (spread_m IS NULL
                    OR ground_distance_m(b.lon_deg, b.lat_deg, a.lon_deg, a.lat_deg) <= spread_m)
        )
    ORDER BY a.fix_at
    LIMIT 1
$$;

CREATE FUNCTION evidence__derive(of_orders uuid[], of_assignment_nos int[], recompute bool)
RETURNS void LANGUAGE plpgsql
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    later CONSTANT timestamptz := 'infinity';
BEGIN
    WITH requested AS MATERIALIZED (
        SELECT a.existing_ctid, a.order_id, a.assignment_no, a.driver_id, a.assigned_at,
            a.restaurant_lon_deg, a.restaurant_lat_deg, a.customer_lon_deg, a.customer_lat_deg,
            coalesce(a.ended_at, later) AS until_at,
            CASE WHEN NOT recompute THEN a.at_restaurant_at END AS at_restaurant_at,
            CASE WHEN NOT recompute THEN a.left_restaurant_at END AS left_restaurant_at,
            CASE WHEN NOT recompute THEN a.arriving_at END AS arriving_at,
            CASE WHEN NOT recompute THEN a.at_customer_at END AS at_customer_at,
            p.*
        FROM unnest(of_orders, of_assignment_nos) AS k (order_id, assignment_no)
        CROSS JOIN LATERAL (
            SELECT t.ctid AS existing_ctid, t.* FROM assignment t
            WHERE t.order_id = k.order_id AND t.assignment_no = k.assignment_no OFFSET 0
        ) a
        JOIN policy p ON p.policy_id = a.policy_id
    ),
    arrived AS MATERIALIZED (
        SELECT a.*, coalesce((
            SELECT * FROM evidence__first_pair(
                a.driver_id, a.assigned_at, coalesce(a.at_restaurant_at, later), a.until_at,
                a.restaurant_lon_deg, a.restaurant_lat_deg, true, a.enter_radius_m,
                a.dwell_min_s, a.dwell_max_s, a.dwell_spread_m, a.dwell_max_mps, a.worst_accuracy_m)
        ), a.at_restaurant_at) AS arrived_at
        FROM requested a
    ),
    departed AS MATERIALIZED (  -- finds nothing where arrived_at is NULL
        SELECT a.*, coalesce((
            SELECT * FROM evidence__first_pair(
                a.driver_id, a.arrived_at, coalesce(a.left_restaurant_at, later), a.until_at,
                a.restaurant_lon_deg, a.restaurant_lat_deg, false, a.leave_radius_m,
                a.leave_min_s, a.leave_max_s, NULL, NULL, a.worst_accuracy_m)
        ), a.left_restaurant_at) AS departed_at
        FROM arrived a
    ),
    carried AS MATERIALIZED (
        -- The server's clock may have been set back, so carrying_from_at is never before
        -- assigned_at.
        SELECT a.*, c.picked_up_at,
            CASE WHEN c.picked_up_at IS NOT NULL THEN greatest(c.picked_up_at, a.assigned_at) END
                AS carrying_from_at
        FROM departed a
        CROSS JOIN LATERAL (
            SELECT least(a.departed_at, min(commanded_at)) AS picked_up_at  -- least() skips NULLs
            FROM order_command WHERE order_id = a.order_id
                AND assignment_no = a.assignment_no AND command = 'pick_up'
        ) c
    ),
    proved AS MATERIALIZED (
        SELECT a.existing_ctid, a.arrived_at, a.departed_at, a.picked_up_at,
            coalesce((
                SELECT * FROM evidence__first_pair(
                    a.driver_id, a.carrying_from_at, coalesce(a.arriving_at, later), a.until_at,
                    a.customer_lon_deg, a.customer_lat_deg, true, a.arriving_radius_m,
                    a.arriving_min_s, NULL, NULL, NULL, a.worst_accuracy_m)
            ), a.arriving_at) AS arriving_at,
            coalesce((
                SELECT * FROM evidence__first_pair(
                    a.driver_id, a.carrying_from_at, coalesce(a.at_customer_at, later), a.until_at,
                    a.customer_lon_deg, a.customer_lat_deg, true, a.enter_radius_m,
                    a.dwell_min_s, a.dwell_max_s, a.dwell_spread_m, a.dwell_max_mps,
                    a.worst_accuracy_m)
            ), a.at_customer_at) AS at_customer_at
        FROM carried a
    ),
    changed AS (
        UPDATE assignment t SET
            at_restaurant_at = a.arrived_at, left_restaurant_at = a.departed_at,
            picked_up_at = a.picked_up_at, arriving_at = a.arriving_at,
            at_customer_at = a.at_customer_at
        FROM proved a
        WHERE t.ctid = a.existing_ctid  -- unchanged, because the caller has locked the order row
            AND (t.at_restaurant_at, t.left_restaurant_at, t.picked_up_at, t.arriving_at,
                t.at_customer_at)
            IS DISTINCT FROM (a.arrived_at, a.departed_at, a.picked_up_at, a.arriving_at,
                a.at_customer_at)
        RETURNING t.*
    ),
    facts AS MATERIALIZED (
        SELECT c.order_id, c.assignment_no, f.state, f.occurred_at
        FROM changed c
        CROSS JOIN LATERAL (VALUES
            ('at_restaurant'::order_state, c.at_restaurant_at), ('picked_up', c.left_restaurant_at),
            ('arriving', c.arriving_at), ('at_customer', c.at_customer_at)
        ) AS f (state, occurred_at)
    ),
    removed AS (
        DELETE FROM evidence e
        WHERE recompute AND e.order_id = ANY (of_orders) AND e.source = 'gps' AND EXISTS (
            SELECT FROM facts f
            WHERE f.order_id = e.order_id AND f.assignment_no = e.assignment_no
                AND f.state = e.state AND f.occurred_at IS NULL
        )
    )
    INSERT INTO evidence AS recorded (order_id, assignment_no, state, occurred_at)
    SELECT order_id, assignment_no, state, occurred_at FROM facts WHERE occurred_at IS NOT NULL
    ON CONFLICT (order_id, assignment_no, state, source) DO UPDATE
        SET occurred_at = EXCLUDED.occurred_at
        WHERE recorded.occurred_at <> EXCLUDED.occurred_at;
END
$$;

CREATE FUNCTION orders__apply_evidence(of_orders uuid[])
RETURNS void LANGUAGE plpgsql
SET enable_seqscan = off
AS $$
DECLARE
    step order_state;
BEGIN
    FOREACH step IN ARRAY
        ARRAY['at_restaurant', 'picked_up', 'arriving', 'at_customer']::order_state[]
    LOOP
        UPDATE orders o SET
            state = step, state_source = proved.source, state_at = proved.occurred_at
        FROM (
            SELECT existing.ctid AS existing_ctid, e.source, e.occurred_at
            FROM (SELECT DISTINCT unnest(of_orders) AS order_id) requested
            CROSS JOIN LATERAL (
                SELECT t.ctid, t.* FROM orders t WHERE t.order_id = requested.order_id OFFSET 0
            ) existing
            CROSS JOIN LATERAL (
                SELECT k.source, k.occurred_at FROM evidence k
                WHERE k.order_id = existing.order_id AND k.assignment_no = existing.assignment_no
                    AND k.state = step AND k.source = 'gps' OFFSET 0
            ) e
            WHERE existing.ended_at IS NULL AND existing.state < step
        ) proved
        WHERE o.ctid = proved.existing_ctid;
    END LOOP;
    -- The visible state may turn out to have begun earlier.
    UPDATE orders o SET state_at = proved.occurred_at
    FROM (
        SELECT existing.ctid AS existing_ctid, e.occurred_at
        FROM (SELECT DISTINCT unnest(of_orders) AS order_id) requested
        CROSS JOIN LATERAL (
            SELECT t.ctid, t.* FROM orders t WHERE t.order_id = requested.order_id OFFSET 0
        ) existing
        CROSS JOIN LATERAL (
            SELECT k.occurred_at FROM evidence k
            WHERE k.order_id = existing.order_id AND k.assignment_no = existing.assignment_no
                AND k.state = existing.state AND k.source = 'gps' OFFSET 0
        ) e
        WHERE existing.ended_at IS NULL AND existing.state_source = 'gps'
            AND e.occurred_at < existing.state_at
    ) proved
    WHERE o.ctid = proved.existing_ctid;
END
$$;

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

CREATE FUNCTION incoming_fix__rejection_reason(
    boot text, seq int8, fix_at timestamptz, received_at timestamptz,
    lon_deg float8, lat_deg float8, accuracy_m float8, speed_mps float8, heading_deg float8,
    altitude_m float8, battery float8, reason text,
    future interval, lateness interval, sealed timestamptz
)
RETURNS text LANGUAGE sql STABLE PARALLEL SAFE  -- IMMUTABLE would prevent inlining
RETURN CASE
    WHEN reason IS NOT NULL THEN reason
    WHEN fix_at IS NULL OR lon_deg IS NULL OR lat_deg IS NULL OR (boot IS NULL) <> (seq IS NULL)
        THEN 'missing_field'
    WHEN fix_at > received_at + future THEN 'in_the_future'
    WHEN fix_at < received_at - lateness THEN 'too_old'
    WHEN fix_at < sealed THEN 'sealed'
    WHEN NOT lat_deg BETWEEN -90 AND 90 THEN 'latitude_out_of_range'
    WHEN NOT lon_deg BETWEEN -180 AND 180 THEN 'longitude_out_of_range'
    WHEN NOT accuracy_m BETWEEN 0 AND 1000000 THEN 'accuracy_out_of_range'
    WHEN NOT speed_mps BETWEEN 0 AND 500 THEN 'speed_out_of_range'
    WHEN NOT (heading_deg >= 0 AND heading_deg < 360) THEN 'heading_out_of_range'
    WHEN NOT altitude_m BETWEEN -1000 AND 20000 THEN 'altitude_out_of_range'
    WHEN NOT battery BETWEEN 0 AND 1 THEN 'battery_out_of_range'
END;

CREATE FUNCTION incoming_fix__reject_or_park(drivers_to_park text[])
RETURNS SETOF fix_outcome LANGUAGE plpgsql
AS $$
BEGIN
    RETURN QUERY
        WITH unknown AS (
            DELETE FROM pg_temp.incoming_fix i
            WHERE NOT EXISTS (SELECT FROM driver_state d WHERE d.driver_id = i.driver_id)
            RETURNING i.n
        )
        SELECT u.n, 'rejected', 'unknown_driver' FROM unknown u;
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

CREATE AGGREGATE multirange_union(int8multirange) (
    SFUNC = pg_catalog.multirange_union, STYPE = int8multirange
);

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
BEGIN
    LOOP
        BEGIN
            SELECT array_agg(o) INTO outcomes FROM record_fixes__attempt(parked_drivers) o;
            EXIT;
        EXCEPTION WHEN SQLSTATE 'DS012' THEN
            GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
            parked_drivers := parked_drivers
                || ARRAY(SELECT jsonb_array_elements_text(detail::jsonb));
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
    has_copies bool;
    -- The bounding box of all service areas, so that most fixes need four comparisons.
    west float8;
    south float8;
    east float8;
    north float8;
    deferred int[];
    outcomes fix_outcome[];
BEGIN
    -- Step 1: lock the driver rows
    IF parked_drivers <> '{}' THEN
        RETURN QUERY SELECT * FROM incoming_fix__reject_or_park(parked_drivers);
    END IF;
    WITH requested AS MATERIALIZED (  -- sorted: neighbours share pages of the index and the table
        SELECT DISTINCT driver_id FROM pg_temp.incoming_fix ORDER BY driver_id
    ),
    locked AS MATERIALIZED (
        SELECT d.driver_id FROM requested r JOIN driver_state d USING (driver_id)
        FOR NO KEY UPDATE OF d SKIP LOCKED
    )
    SELECT (SELECT count(*) FROM requested), (SELECT count(*) FROM locked)
        INTO requested_count, locked_count;
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
    IF EXISTS (SELECT FROM parked_fix) THEN
        WITH unparked AS (
            DELETE FROM parked_fix p
            WHERE p.driver_id IN (SELECT driver_id FROM pg_temp.incoming_fix)
            RETURNING p.*
        )
        INSERT INTO pg_temp.incoming_fix (n, driver_id, boot, seq, fix_at, received_at, lon_deg,
            lat_deg, accuracy_m, speed_mps, heading_deg, altitude_m, battery, reason)
        SELECT (-1000000000 + row_number() OVER (ORDER BY parked_id))::int4, driver_id, boot, seq,
            fix_at, received_at, lon_deg, lat_deg, accuracy_m, speed_mps, heading_deg, altitude_m,
            battery, reason
        FROM unparked;
    END IF;

    SELECT make_interval(secs => future_s), make_interval(secs => lateness_s), worst_accuracy_m
        INTO future, lateness, worst_m FROM limits;
    SELECT sealed_before INTO sealed FROM history_bounds;
    SELECT min(a.west), min(a.south), max(a.east), max(a.north)
        INTO west, south, east, north FROM service_area a;

    -- Few batches contain a fix twice, and only those pay for the comparison of copies. (A plain
    -- PATCH has neither boot nor seq, so two of one driver may be copies.)
    has_copies := (SELECT count(*) FROM pg_temp.incoming_fix) > locked_count AND EXISTS (
        SELECT FROM pg_temp.incoming_fix GROUP BY driver_id, boot, seq HAVING count(*) > 1
    );

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
                CASE
                    WHEN NOT anonymous
                        AND (r.boot = '' OR NOT r.seq BETWEEN 1 AND 4611686018427387904)
                        THEN 'rejected bad_id'
                    -- a fix that is too old or too early to be new may be stored already
                    WHEN anonymous AND rejection NOT IN ('too_old', 'in_the_future', 'sealed')
                        THEN 'rejected ' || rejection
                    WHEN anonymous OR b.stored @> r.seq THEN coalesce(
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
                            OR b.rejected @> r.seq THEN 'rejected_before'
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
            LEFT JOIN driver_boot b ON b.driver_id = r.driver_id AND b.boot = r.boot
        ),
        -- Step 6
        history AS (
            INSERT INTO fix_history (driver_id, fix_at, boot, seq, received_at, lon_deg, lat_deg,
                accuracy_m, speed_mps, heading_deg, altitude_m, battery, quarantine)
            SELECT driver_id, fix_at, boot, seq, received_at, lon_deg, lat_deg,
                accuracy_m, speed_mps, heading_deg, altitude_m, battery, quarantine
            FROM decided WHERE outcome IS NULL
        ),
        settled AS MATERIALIZED (
            SELECT driver_id, boot, min(boot_ctid) AS boot_ctid,
                coalesce(multirange_union(int8multirange(int8range(seq, seq, '[]')))
                    FILTER (WHERE outcome IS NULL), '{}') AS stored,
                coalesce(multirange_union(int8multirange(int8range(seq, seq, '[]')))
                    FILTER (WHERE outcome IS NOT NULL), '{}') AS rejected
            FROM decided
            WHERE NOT anonymous AND (outcome IS NULL OR (outcome LIKE 'rejected %'
                AND outcome NOT IN ('rejected rejected_before', 'rejected bad_id')))
            GROUP BY driver_id, boot
        ),
        existing_boots AS (
            UPDATE driver_boot b SET stored = b.stored + s.stored,
                rejected = CASE WHEN isempty(b.rejected) AND isempty(s.rejected) THEN b.rejected
                    ELSE b.rejected + (s.rejected - b.stored) - s.stored END
            FROM settled s
            WHERE b.ctid = s.boot_ctid  -- unchanged, because the driver row is locked
        ),
        new_boots AS (
            INSERT INTO driver_boot (driver_id, boot, stored, rejected)
            SELECT driver_id, boot, stored, rejected - stored FROM settled WHERE boot_ctid IS NULL
        )
        SELECT array_agg((n, split_part(outcome, ' ', 1), nullif(split_part(outcome, ' ', 2), ''))
                ::fix_outcome) FILTER (WHERE outcome IS NOT NULL AND outcome <> 'deferred')
            || array_agg((n, 'quarantined', quarantine)::fix_outcome)
                FILTER (WHERE outcome IS NULL AND quarantine IS NOT NULL),
            array_agg(n) FILTER (WHERE outcome = 'deferred')
        INTO outcomes, deferred
        FROM decided
        WHERE outcome IS NOT NULL OR quarantine IS NOT NULL;

        IF outcomes IS NOT NULL THEN
            IF EXISTS (SELECT FROM unnest(outcomes) o WHERE o.n < 0) THEN
                PERFORM parked_fix__add_dead_letters(outcomes);
            END IF;
            RETURN QUERY SELECT o.* FROM unnest(outcomes) o;
        END IF;
        EXIT WHEN deferred IS NULL;
    END LOOP;
END
$$;

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
    WHERE o.n < 0 AND o.outcome IN ('rejected', 'conflict')
$$;

CREATE FUNCTION record_parked_v1()
RETURNS int LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
DECLARE
    before_count int;
    after_count int;
BEGIN
    SELECT count(*) INTO before_count FROM parked_fix;
    IF before_count = 0 THEN
        RETURN 0;
    END IF;
    PERFORM prepare_incoming_v1();
    WITH unparked AS (
        DELETE FROM parked_fix p
        WHERE parked_id IN (SELECT parked_id FROM parked_fix ORDER BY parked_id LIMIT 20000
            FOR UPDATE SKIP LOCKED)
        RETURNING p.*
    )
    INSERT INTO pg_temp.incoming_fix (n, driver_id, boot, seq, fix_at, received_at, lon_deg,
        lat_deg, accuracy_m, speed_mps, heading_deg, altitude_m, battery, reason)
    SELECT (-2000000000 + row_number() OVER (ORDER BY parked_id))::int4, driver_id, boot, seq,
        fix_at, received_at, lon_deg, lat_deg, accuracy_m, speed_mps, heading_deg, altitude_m,
        battery, reason
    FROM unparked;
    PERFORM record_fixes_v1();
    SELECT count(*) INTO after_count FROM parked_fix;
    RETURN greatest(before_count - after_count, 0);
END
$$;

CREATE FUNCTION read_watermarks_v1(driver_ids text[], boots text[])
RETURNS TABLE (driver_id text, boot text, seq int8, missing jsonb)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    SELECT b.driver_id, b.boot,
        coalesce(g.gaps[65][1] - 1, upper(b.settled) - 1),
        coalesce(to_jsonb(g.gaps[1:64]), '[]')
    FROM unnest(driver_ids, boots) AS requested (driver_id, boot)
    CROSS JOIN LATERAL (
        SELECT k.driver_id, k.boot, k.stored + k.rejected AS settled FROM driver_boot k
        WHERE k.driver_id = requested.driver_id AND k.boot = requested.boot
    ) b
    CROSS JOIN LATERAL (
        SELECT array_agg(ARRAY[lower(gap), upper(gap) - 1] ORDER BY lower(gap)) AS gaps
        FROM unnest(int8multirange(int8range(1, upper(b.settled))) - b.settled) AS gap
    ) g
    WHERE NOT isempty(b.settled)
$$;

CREATE FUNCTION orders__raise_illegal_transition(
    of_order_id uuid, rejected_command text, from_order_state order_state, by_actor actor
)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is not possible from %', rejected_command, from_order_state USING
        ERRCODE = 'DS001',
        DETAIL = jsonb_build_object(
            'subject_id', of_order_id, 'command', rejected_command,
            'current_state', from_order_state,
            'allowed', ARRAY(
                SELECT DISTINCT command FROM order_transition
                WHERE from_state = from_order_state AND via = 'command'
                    AND (by_actor IS NULL OR actor = by_actor)
                ORDER BY command
            )
        );
END
$$;

CREATE FUNCTION create_order_v1(
    at_restaurant_id int, to_lon_deg float8, to_lat_deg float8, token_sha256 bytea,
    with_policy_id int, with_idempotency_key text, for_customer_name text
)
RETURNS TABLE (
    order_id uuid, state order_state, assignment_no int, driver_id text, order_seq int,
    restaurant_id int, lon_deg float8, lat_deg float8, customer_name text, policy_id int,
    created_at timestamptz, assigned_at timestamptz, ended_at timestamptz, created bool
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    pinned_policy_id CONSTANT int := coalesce(with_policy_id, 1);
    created_order orders;
    is_new bool;
BEGIN
    IF NOT EXISTS (SELECT FROM restaurant WHERE restaurant_id = at_restaurant_id) THEN
        RAISE EXCEPTION 'there is no restaurant %', at_restaurant_id USING ERRCODE = 'DS004';
    END IF;
    IF NOT EXISTS (SELECT FROM policy WHERE policy_id = pinned_policy_id) THEN
        RAISE EXCEPTION 'there is no policy %', pinned_policy_id USING ERRCODE = 'DS005';
    END IF;
    INSERT INTO orders (restaurant_id, lon_deg, lat_deg, policy_id, idempotency_key, customer_name)
    VALUES (at_restaurant_id, to_lon_deg, to_lat_deg, pinned_policy_id, with_idempotency_key,
        for_customer_name)
    ON CONFLICT (idempotency_key) DO NOTHING
    RETURNING * INTO created_order;
    is_new := FOUND;
    IF NOT is_new THEN
        SELECT * INTO STRICT created_order FROM orders
            WHERE idempotency_key = with_idempotency_key;
        IF (created_order.restaurant_id, created_order.lon_deg, created_order.lat_deg,
            created_order.policy_id, created_order.customer_name)
            IS DISTINCT FROM (at_restaurant_id, to_lon_deg, to_lat_deg, pinned_policy_id,
            for_customer_name)
        THEN
            RAISE EXCEPTION 'this key made another order' USING ERRCODE = 'DS008';
        END IF;
    END IF;
    INSERT INTO access_token (token_sha256, role, order_id)
    VALUES (token_sha256, 'customer', created_order.order_id);
    RETURN QUERY SELECT v.*, is_new FROM order_now v WHERE v.order_id = created_order.order_id;
END
$$;

CREATE FUNCTION apply_order_command_v1(
    of_order_id uuid, command_name text, by_actor text, by_actor_id text, to_driver_id text,
    with_idempotency_key text
)
RETURNS TABLE (
    order_id uuid, state order_state, assignment_no int, driver_id text, order_seq int,
    restaurant_id int, lon_deg float8, lat_deg float8, customer_name text, policy_id int,
    created_at timestamptz, assigned_at timestamptz, ended_at timestamptz
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    verb CONSTANT order_verb := command_name;
    by_role CONSTANT actor := by_actor;
    o orders;
    a assignment;  -- the open assignment
    repeated order_command;
    chosen_driver_id text;
    target order_state;
    target_no int;
    at timestamptz;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(of_order_id::text, 1));
    SELECT * INTO o FROM orders WHERE order_id = of_order_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no order %', of_order_id USING ERRCODE = 'DS002';
    END IF;
    IF by_role = 'driver' AND NOT EXISTS (
        SELECT FROM assignment WHERE order_id = of_order_id AND assignment_no = o.assignment_no
            AND driver_id = by_actor_id
    ) AND NOT EXISTS (  -- a driver who repeats a decline no longer has the order
        SELECT FROM order_command WHERE order_id = of_order_id AND actor = 'driver'
            AND idempotency_key = with_idempotency_key AND actor_id = by_actor_id
    ) THEN
        RAISE EXCEPTION 'driver % has no order %', by_actor_id, of_order_id USING ERRCODE = 'DS002';
    END IF;
    SELECT * INTO repeated FROM order_command
        WHERE order_id = of_order_id AND idempotency_key = with_idempotency_key;
    IF FOUND THEN
        IF repeated.command <> verb OR repeated.driver_id <> to_driver_id THEN
            RAISE EXCEPTION 'this key was used for %', repeated.command USING ERRCODE = 'DS008';
        END IF;
        -- Returns the current order. A driver who no longer has it gets the state that the command
        -- left, and none of the later changes.
        RETURN QUERY
            SELECT v.order_id,
                CASE WHEN given_up THEN repeated.to_state ELSE v.state END,
                CASE WHEN given_up THEN repeated.assignment_no ELSE v.assignment_no END,
                CASE WHEN NOT given_up THEN v.driver_id END,
                CASE WHEN NOT given_up THEN v.order_seq ELSE (
                    SELECT max(e.order_seq) FROM order_event e WHERE e.order_id = v.order_id
                        AND (e.assignment_no, e.state) = (repeated.assignment_no, repeated.to_state)
                ) END,
                v.restaurant_id, v.lon_deg, v.lat_deg, v.customer_name, v.policy_id, v.created_at,
                CASE WHEN NOT given_up THEN v.assigned_at END,
                CASE WHEN NOT given_up THEN v.ended_at END
            FROM order_now v
            CROSS JOIN LATERAL (
                SELECT by_role = 'driver' AND NOT EXISTS (
                    SELECT FROM assignment t WHERE t.order_id = v.order_id
                        AND t.assignment_no = v.assignment_no AND t.driver_id = by_actor_id
                ) AS given_up
            ) AS g
            WHERE v.order_id = of_order_id;
        RETURN;
    END IF;

    -- Lock the rows, drivers first
    SELECT * INTO a FROM assignment WHERE order_id = of_order_id AND ended_at IS NULL;
    PERFORM FROM driver_state d
        WHERE d.driver_id IN (
            a.driver_id, CASE WHEN verb IN ('assign', 'reassign') THEN to_driver_id END
        )
        ORDER BY d.driver_id FOR NO KEY UPDATE;
    SELECT * INTO o FROM orders WHERE order_id = of_order_id FOR NO KEY UPDATE;
    at := clock_timestamp();

    SELECT to_state INTO target FROM order_transition
        WHERE from_state = o.state AND via = 'command' AND command = verb AND actor = by_role;
    IF NOT FOUND THEN
        PERFORM orders__raise_illegal_transition(of_order_id, command_name, o.state, by_role);
    END IF;

    IF verb IN ('assign', 'reassign') THEN
        chosen_driver_id := orders__choose_driver(o, to_driver_id, a.driver_id);
    END IF;
    target_no := CASE
        WHEN verb IN ('decline', 'reassign') THEN o.assignment_no + 1
        WHEN verb = 'assign' AND o.assignment_no = 0 THEN 1
        ELSE o.assignment_no
    END;

    INSERT INTO order_command (order_id, command, actor, actor_id, driver_id, from_state, to_state,
        assignment_no, idempotency_key, commanded_at)
    VALUES (of_order_id, verb, by_role, by_actor_id, chosen_driver_id, o.state, target, target_no,
        with_idempotency_key, at);

    IF a.order_id IS NOT NULL AND verb IN ('decline', 'reassign', 'deliver', 'cancel', 'fail') THEN
        UPDATE assignment SET ended_at = greatest(at, assigned_at), ended_by = verb
            WHERE order_id = of_order_id AND assignment_no = a.assignment_no;
        PERFORM evidence__derive(ARRAY[of_order_id], ARRAY[a.assignment_no], true);
    END IF;
    IF chosen_driver_id IS NOT NULL THEN
        INSERT INTO assignment (order_id, assignment_no, driver_id, assigned_at, policy_id,
            restaurant_lon_deg, restaurant_lat_deg, customer_lon_deg, customer_lat_deg)
        SELECT of_order_id, target_no, chosen_driver_id,
            -- the windows of a driver never overlap, even if the clock is set back
            greatest(at, (
                SELECT max(greatest(ended_at, assigned_at + interval '1 microsecond'))
                FROM assignment t WHERE t.driver_id = chosen_driver_id
            )),
            o.policy_id, r.lon_deg, r.lat_deg, o.lon_deg, o.lat_deg
        FROM restaurant r WHERE r.restaurant_id = o.restaurant_id;
    END IF;
    IF target <> o.state OR target_no <> o.assignment_no THEN
        UPDATE orders SET state = target, assignment_no = target_no, state_at = at,
            state_source = by_role::text::state_source,
            ended_at = CASE WHEN target IN ('delivered', 'cancelled', 'failed') THEN at END
        WHERE order_id = of_order_id;
    END IF;
    IF verb IN ('assign', 'reassign', 'pick_up') THEN  -- fixes may already be stored
        PERFORM evidence__derive(ARRAY[of_order_id], ARRAY[target_no], false);
        PERFORM orders__apply_evidence(ARRAY[of_order_id]);
    END IF;
    RETURN QUERY SELECT * FROM order_now WHERE order_id = of_order_id;
END
$$;

CREATE FUNCTION orders__choose_driver(o orders, named_driver_id text, excluded_driver_id text)
RETURNS text LANGUAGE plpgsql
AS $$
DECLARE
    is_free bool;
    candidate text;
    polls_left int := 50;  -- 50 x 20 ms = 1 s
BEGIN
    IF named_driver_id IS NOT NULL THEN
        SELECT d.state = 'available' INTO is_free FROM driver_state d
            WHERE d.driver_id = named_driver_id FOR NO KEY UPDATE;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'there is no driver %', named_driver_id USING ERRCODE = 'DS003';
        ELSIF NOT is_free THEN
            RAISE EXCEPTION 'driver % is off duty or has an order', named_driver_id
                USING ERRCODE = 'DS006';
        END IF;
        RETURN named_driver_id;
    END IF;
    FOR candidate IN
        SELECT n.driver_id FROM restaurant r
        CROSS JOIN LATERAL nearest_drivers_v1(r.lon_deg, r.lat_deg, 100) n
        WHERE r.restaurant_id = o.restaurant_id AND n.driver_id IS DISTINCT FROM excluded_driver_id
        ORDER BY n.distance_m
    LOOP
        LOOP
            PERFORM FROM driver_state d WHERE d.driver_id = candidate AND d.state = 'available'
                FOR NO KEY UPDATE SKIP LOCKED;
            IF FOUND THEN
                RETURN candidate;
            END IF;
            PERFORM FROM driver_state d WHERE d.driver_id = candidate AND d.state = 'available';
            EXIT WHEN NOT FOUND OR polls_left = 0;
            polls_left := polls_left - 1;
            PERFORM pg_sleep(0.02);
        END LOOP;
    END LOOP;
    RAISE EXCEPTION 'no driver on duty is free and near' USING ERRCODE = 'DS007';
END
$$;

CREATE FUNCTION nearest_drivers_v1(from_lon_deg float8, from_lat_deg float8, at_most int)
RETURNS TABLE (
    driver_id text, distance_m float8, fix_at timestamptz, lon_deg float8, lat_deg float8
)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
    safe_m float8;
    rows_deg float8;  -- half the height of the box
    columns_deg float8;  -- half its width, where a degree of longitude is shortest
    l limits;
    nearest driver_distance[];
BEGIN
    SELECT * INTO STRICT l FROM limits;
    FOREACH safe_m IN ARRAY ARRAY[100, 1000, 3000, 9000, 27000, 81000] LOOP
        rows_deg := safe_m / 111195;
        columns_deg := rows_deg / cosd(least(abs(from_lat_deg) + rows_deg, 89));
        nearest := ARRAY(
            SELECT (d.driver_id, m.distance_m)::driver_distance
            FROM generate_series(
                floor((from_lat_deg - rows_deg) * 100)::int + 9000,
                floor((from_lat_deg + rows_deg) * 100)::int + 9000
            ) AS r (cell_row)
            JOIN driver_cell c
                ON c.cell BETWEEN r.cell_row * 36000
                        + floor((from_lon_deg - columns_deg) * 100)::int + 18000
                    AND r.cell_row * 36000
                        + floor((from_lon_deg + columns_deg) * 100)::int + 18000
            JOIN driver_state d ON d.driver_id = c.driver_id
            CROSS JOIN LATERAL (
                SELECT ground_distance_m(d.lon_deg, d.lat_deg, from_lon_deg, from_lat_deg)
            ) AS m (distance_m)
            WHERE d.state = 'available' AND m.distance_m <= least(safe_m, l.nearest_max_m)
                AND d.fix_at > clock_timestamp() - make_interval(secs => l.nearest_max_age_s)
            ORDER BY m.distance_m, d.driver_id
            LIMIT at_most
        );
        EXIT WHEN cardinality(nearest) >= at_most;
    END LOOP;
    RETURN QUERY
        SELECT d.driver_id, f.distance_m, d.fix_at, d.lon_deg, d.lat_deg
        FROM unnest(nearest) f JOIN driver_state d ON d.driver_id = f.driver_id
        ORDER BY f.distance_m, d.driver_id;
END
$$;

CREATE FUNCTION driver_state__derive(of_drivers text[])
RETURNS void LANGUAGE sql AS $$
    UPDATE driver_state d SET state = s.state, order_id = s.order_id
    FROM (
        SELECT k.driver_id, o.order_id,
            CASE
                WHEN o.state = 'assigned' THEN 'to_restaurant'
                WHEN o.state = 'at_restaurant' THEN 'at_restaurant'
                WHEN o.state IN ('picked_up', 'arriving') THEN 'to_customer'
                WHEN o.state = 'at_customer' THEN 'at_customer'
                WHEN k.duty = 'on_duty' THEN 'available'
                ELSE k.duty::text
            END::driver_status AS state
        FROM driver_state k
        LEFT JOIN assignment a ON a.driver_id = k.driver_id AND a.ended_at IS NULL
        LEFT JOIN orders o ON o.order_id = a.order_id
        WHERE k.driver_id = ANY (of_drivers)
    ) s
    WHERE d.driver_id = s.driver_id
        AND (d.state, d.order_id) IS DISTINCT FROM (s.state, s.order_id)
$$;

CREATE FUNCTION apply_driver_command_v1(
    of_driver_id text, command_name text, by_actor text, with_idempotency_key text
)
RETURNS TABLE (driver_id text, duty driver_duty, state driver_status, order_id uuid)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    verb CONSTANT driver_verb := command_name;
    d driver_state;
    repeated driver_verb;
    target driver_status;
BEGIN
    SELECT * INTO d FROM driver_state WHERE driver_id = of_driver_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no driver %', of_driver_id USING ERRCODE = 'DS003';
    END IF;
    SELECT command INTO repeated FROM driver_command
        WHERE driver_id = of_driver_id AND idempotency_key = with_idempotency_key;
    IF repeated <> verb THEN
        RAISE EXCEPTION 'this key was used for %', repeated USING ERRCODE = 'DS008';
    END IF;
    -- A repeated command or key changes nothing.
    IF repeated IS NULL AND d.duty::text <> verb::text THEN
        SELECT to_state INTO target FROM driver_transition
            WHERE from_state = d.state AND command = verb;
        IF NOT FOUND THEN
            RAISE EXCEPTION '% is not possible from %', command_name, d.state USING
                ERRCODE = 'DS001',
                DETAIL = jsonb_build_object(
                    'subject_id', of_driver_id, 'command', command_name, 'current_state', d.state,
                    'allowed', ARRAY(SELECT command FROM driver_transition
                        WHERE from_state = d.state ORDER BY command)
                );
        END IF;
        INSERT INTO driver_command (driver_id, command, actor, from_state, to_state,
            idempotency_key)
        VALUES (of_driver_id, verb, by_actor::actor, d.state, target, with_idempotency_key);
        UPDATE driver_state SET duty = verb::text::driver_duty WHERE driver_id = of_driver_id;
        PERFORM driver_state__derive(ARRAY[of_driver_id]);
    END IF;
    RETURN QUERY SELECT driver_id, duty, state, order_id FROM driver_state
        WHERE driver_id = of_driver_id;
END
$$;

CREATE FUNCTION open_offsets_v1(of_cluster_id text, of_topic_id text, of_partitions int[])
RETURNS TABLE (partition int, next_offset int8)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    INSERT INTO kafka_offset (cluster_id, topic_id, partition, next_offset)
    SELECT of_cluster_id, of_topic_id, p, 0 FROM unnest(of_partitions) p
    ON CONFLICT DO NOTHING;
    RETURN QUERY SELECT partition, next_offset FROM kafka_offset
        WHERE cluster_id = of_cluster_id AND topic_id = of_topic_id
            AND partition = ANY (of_partitions);
END
$$;

CREATE FUNCTION advance_offsets_v1(
    of_cluster_id text, of_topic_id text, of_partitions int[], from_offsets int8[],
    to_offsets int8[]
)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
DECLARE
    advanced_count int;
BEGIN
    UPDATE kafka_offset k SET next_offset = m.to_offset, advanced_at = clock_timestamp()
    FROM unnest(of_partitions, from_offsets, to_offsets) AS m (partition, from_offset, to_offset)
    WHERE k.cluster_id = of_cluster_id AND k.topic_id = of_topic_id
        AND k.partition = m.partition AND k.next_offset = m.from_offset;
    GET DIAGNOSTICS advanced_count = ROW_COUNT;
    IF advanced_count <> cardinality(of_partitions) THEN
        RAISE EXCEPTION 'another consumer has moved an offset' USING ERRCODE = 'DS009';
    END IF;
END
$$;

CREATE FUNCTION add_dead_letters_v1(
    payloads bytea[], driver_ids text[], reasons text[], sources text[], topics text[],
    details text[], received_at_mss int8[]
)
RETURNS void LANGUAGE sql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    INSERT INTO outbox (topic, key, payload, headers)
    SELECT 'dead-letter', convert_to(driver_id, 'UTF8'), payload,
        jsonb_build_array(
            jsonb_build_array('reason', reason), jsonb_build_array('source', source),
            jsonb_build_array('topic', topic),
            jsonb_build_array('driver_id', coalesce(driver_id, '')),
            jsonb_build_array('detail', detail),
            jsonb_build_array('received_at_ms', received_at_ms::text))
    FROM unnest(payloads, driver_ids, reasons, sources, topics, details, received_at_mss)
        AS letter (payload, driver_id, reason, source, topic, detail, received_at_ms)
$$;

CREATE FUNCTION take_outbox_v1(at_most int)
RETURNS TABLE (outbox_id int8, topic text, key bytea, payload bytea, headers jsonb)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    IF pg_try_advisory_xact_lock(hashtextextended('doorstep.outbox', 0)) THEN
        RETURN QUERY SELECT outbox_id, topic, key, payload, headers FROM outbox
            ORDER BY outbox_id LIMIT at_most;
    END IF;
END
$$;

CREATE FUNCTION delete_outbox_v1(ids int8[])
RETURNS void LANGUAGE sql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    DELETE FROM outbox WHERE outbox_id = ANY (ids)
$$;

CREATE FUNCTION find_token_v1(of_token_sha256 bytea)
RETURNS TABLE (role token_role, driver_id text, order_id uuid)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    SELECT t.role, t.driver_id, t.order_id
    FROM access_token t
    LEFT JOIN orders o ON o.order_id = t.order_id
    WHERE t.token_sha256 = of_token_sha256 AND t.revoked_at IS NULL
        AND (o.ended_at IS NULL OR clock_timestamp()
            < o.ended_at + make_interval(secs => (SELECT customer_token_s FROM limits)))
$$;

CREATE FUNCTION revoke_customer_tokens_v1(of_order_id uuid)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
BEGIN
    PERFORM FROM orders WHERE order_id = of_order_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no order %', of_order_id USING ERRCODE = 'DS002';
    END IF;
    UPDATE access_token SET revoked_at = clock_timestamp()
        WHERE order_id = of_order_id AND revoked_at IS NULL;
END
$$;

CREATE FUNCTION replace_customer_token_v1(of_order_id uuid, new_token_sha256 bytea)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
BEGIN
    PERFORM revoke_customer_tokens_v1(of_order_id);
    INSERT INTO access_token (token_sha256, role, order_id)
    VALUES (new_token_sha256, 'customer', of_order_id);
END
$$;

CREATE FUNCTION create_policy_v1("values" jsonb)
RETURNS int LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
DECLARE
    created policy;
BEGIN
    SELECT * INTO STRICT created FROM policy WHERE policy_id = 1;
    created := jsonb_populate_record(created, "values" - 'policy_id' - 'created_at');
    created.policy_id := nextval(pg_get_serial_sequence('doorstep.policy', 'policy_id'));
    created.created_at := now();
    INSERT INTO policy SELECT created.*;
    RETURN created.policy_id;
END
$$;

CREATE FUNCTION register_drivers_v1(driver_ids text[], names text[], token_sha256s bytea[])
RETURNS void LANGUAGE plpgsql
SET search_path = doorstep, public, pg_temp
AS $$
BEGIN
    INSERT INTO driver (driver_id, name) SELECT * FROM unnest(driver_ids, names)
    ON CONFLICT (driver_id) DO UPDATE SET name = EXCLUDED.name WHERE driver.name <> EXCLUDED.name;
    INSERT INTO driver_state (driver_id) SELECT unnest(driver_ids)
    ON CONFLICT DO NOTHING;
    UPDATE access_token t SET revoked_at = clock_timestamp()
    FROM unnest(driver_ids, token_sha256s) AS n (driver_id, token_sha256)
    WHERE t.driver_id = n.driver_id AND t.revoked_at IS NULL AND t.token_sha256 <> n.token_sha256;
    INSERT INTO access_token (token_sha256, role, driver_id)
    SELECT n.token_sha256, 'driver', n.driver_id
    FROM unnest(driver_ids, token_sha256s) AS n (driver_id, token_sha256)
    WHERE n.token_sha256 IS NOT NULL
    ON CONFLICT (token_sha256) DO UPDATE SET revoked_at = NULL
        WHERE access_token.revoked_at IS NOT NULL;
END
$$;

CREATE FUNCTION register_restaurants_v1(
    restaurant_ids int[], names text[], lon_degs float8[], lat_degs float8[]
)
RETURNS void LANGUAGE sql
SET search_path = doorstep, public, pg_temp
AS $$
    INSERT INTO restaurant (restaurant_id, name, lon_deg, lat_deg)
    SELECT * FROM unnest(restaurant_ids, names, lon_degs, lat_degs)
    ON CONFLICT (restaurant_id) DO UPDATE
        SET name = EXCLUDED.name, lon_deg = EXCLUDED.lon_deg, lat_deg = EXCLUDED.lat_deg
$$;

CREATE FUNCTION register_service_area_v1(
    of_name text, west float8, south float8, east float8, north float8
)
RETURNS void LANGUAGE sql
SET search_path = doorstep, public, pg_temp
AS $$
    INSERT INTO service_area VALUES (of_name, west, south, east, north)
    ON CONFLICT (name) DO UPDATE SET west = EXCLUDED.west, south = EXCLUDED.south,
        east = EXCLUDED.east, north = EXCLUDED.north
$$;

CREATE FUNCTION register_staff_token_v1(new_token_sha256 bytea, of_name text)
RETURNS void LANGUAGE plpgsql
SET search_path = doorstep, public, pg_temp
AS $$
BEGIN
    UPDATE access_token SET revoked_at = clock_timestamp()
        WHERE role = 'staff' AND name = of_name AND revoked_at IS NULL
            AND token_sha256 <> new_token_sha256;
    INSERT INTO access_token (token_sha256, role, name) VALUES (new_token_sha256, 'staff', of_name)
    ON CONFLICT (token_sha256) DO UPDATE SET revoked_at = NULL;
END
$$;

CREATE FUNCTION fix_history__ensure_partitions_v1(first_day date, last_day date)
RETURNS int LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    day date;
    part text;
    created_count int := 0;
BEGIN
    IF last_day - first_day > 400 THEN
        RAISE EXCEPTION 'that is more than 400 days' USING ERRCODE = '22023';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('doorstep.partitions', 0));
    FOR day IN SELECT first_day + n FROM generate_series(0, last_day - first_day) n LOOP
        part := 'fix_history_' || to_char(day, 'YYYYMMDD');
        CONTINUE WHEN to_regclass('doorstep.' || part) IS NOT NULL;
        EXECUTE format('CREATE TABLE %I (LIKE fix_history INCLUDING ALL)', part);
        EXECUTE format('WITH moved AS (DELETE FROM fix_history_default '
            'WHERE fix_at >= %L AND fix_at < %L RETURNING *) INSERT INTO %I SELECT * FROM moved',
            day::timestamptz, (day + 1)::timestamptz, part);
        EXECUTE format('ALTER TABLE fix_history ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
            part, day::timestamptz, (day + 1)::timestamptz);
        created_count := created_count + 1;
    END LOOP;
    RETURN created_count;
END
$$;

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

CREATE FUNCTION fix_chunk__seqs(run_starts int4[], run_seqs int8[], fix_count int4)
RETURNS int8multirange LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT range_agg(
        int8range(r.seq, r.seq + coalesce(run_starts[r.k + 1], fix_count + 1) - r.start)
    )
    FROM unnest(run_starts, run_seqs) WITH ORDINALITY AS r (start, seq, k);
END;

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

CREATE FUNCTION fix_history__writers_finished_v1(since xid8)
RETURNS bool LANGUAGE sql STABLE
RETURN pg_snapshot_xmin(pg_current_snapshot()) > since;

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

CREATE FUNCTION driver_sampling__set_v1(of_driver_id text, new_policy jsonb)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
BEGIN
    PERFORM FROM driver WHERE driver_id = of_driver_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no driver %', of_driver_id USING ERRCODE = 'DS003';
    END IF;
    INSERT INTO driver_sampling (driver_id, sampling_policy) VALUES (of_driver_id, new_policy)
    ON CONFLICT (driver_id) DO UPDATE SET sampling_policy = EXCLUDED.sampling_policy,
        version = driver_sampling.version + 1, is_delivered = false, set_at = clock_timestamp();
END
$$;

CREATE FUNCTION driver_sampling__take_v1(at_most int)
RETURNS TABLE (driver_id text, version int8, sampling_policy jsonb)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    IF pg_try_advisory_xact_lock(hashtextextended('doorstep.driver_sampling', 0)) THEN
        RETURN QUERY SELECT driver_id, version, sampling_policy FROM driver_sampling
            WHERE NOT is_delivered ORDER BY driver_id LIMIT at_most;
    END IF;
END
$$;

CREATE FUNCTION driver_sampling__confirm_v1(driver_ids text[], versions int8[])
RETURNS void LANGUAGE sql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    UPDATE driver_sampling s SET is_delivered = true
    FROM unnest(driver_ids, versions) AS c (driver_id, version)
    WHERE s.driver_id = c.driver_id AND s.version = c.version
$$;

CREATE FUNCTION driver_sampling__mark_undelivered_v1()
RETURNS void LANGUAGE sql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    UPDATE driver_sampling SET is_delivered = false WHERE is_delivered
$$;

CREATE FUNCTION fleet_tile_v1(
    z int, x int, y int, of_states text[], of_duties text[], of_presences text[],
    silent_after_s float8, lost_after_s float8, moving_mps float8, at_most int
)
RETURNS bytea LANGUAGE plpgsql STABLE
SET search_path = doorstep, public, pg_temp
SET plan_cache_mode = force_custom_plan  -- so that a null array costs nothing
AS $$
#variable_conflict use_column
DECLARE
    west CONSTANT float8 := x / 2.0 ^ z * 360 - 180;
    east CONSTANT float8 := (x + 1) / 2.0 ^ z * 360 - 180;
    north CONSTANT float8 := degrees(atan(sinh(pi() * (1 - 2 * y / 2.0 ^ z))));
    south CONSTANT float8 := degrees(atan(sinh(pi() * (1 - 2 * (y + 1) / 2.0 ^ z))));
    -- Web Mercator's y. Plain arithmetic is faster than PROJ.
    top CONSTANT float8 := pi() * (1 - 2 * y / 2.0 ^ z);
    high CONSTANT float8 := 2 * pi() / 2.0 ^ z;
    silent_before CONSTANT timestamptz := clock_timestamp() - make_interval(secs => silent_after_s);
    lost_before CONSTANT timestamptz := clock_timestamp() - make_interval(secs => lost_after_s);
    -- From zoom 9 (0.7 degrees) on, drivers are found by cell; a tile of a lower zoom holds nearly
    -- all of them. Beyond 20,000 candidates a sequential scan is faster.
    candidates text[] := CASE WHEN z >= 9 THEN ARRAY(
        SELECT c.driver_id
        FROM generate_series(floor(south * 100)::int, floor(north * 100)::int) AS r (cell_row)
        JOIN driver_cell c
            ON c.cell BETWEEN (r.cell_row + 9000) * 36000 + floor(west * 100)::int + 18000
                AND (r.cell_row + 9000) * 36000 + floor(east * 100)::int + 18000
        LIMIT 20000
    ) END;
    tile bytea;
BEGIN
    IF cardinality(candidates) = 20000 THEN
        candidates := NULL;
    END IF;
    WITH inside AS MATERIALIZED (
        SELECT d.driver_id, d.state, d.duty, p.presence,
            round((d.lon_deg - west) / (east - west) * 4096) AS px,
            round((top - ln(tan(pi() / 4 + radians(d.lat_deg) / 2))) / high * 4096) AS py
        FROM driver_state d
        CROSS JOIN LATERAL (
            SELECT CASE
                WHEN d.received_at < lost_before THEN 'lost'
                WHEN d.received_at < silent_before THEN 'silent'
                WHEN d.speed_mps < moving_mps THEN 'stationary'
                ELSE 'online'
            END
        ) AS p (presence)
        WHERE (candidates IS NULL OR d.driver_id = ANY (candidates))
            AND d.lon_deg >= west AND d.lon_deg < east AND d.lat_deg <= north AND d.lat_deg > south
            AND (of_states IS NULL OR d.state::text = ANY (of_states))
            AND (of_duties IS NULL OR d.duty::text = ANY (of_duties))
            AND (of_presences IS NULL OR p.presence = ANY (of_presences))
    ), many AS MATERIALIZED (  -- counted once, in every plan
        SELECT count(*) > at_most AS are_many FROM inside
    ), places AS (
        SELECT ST_MakePoint(round(avg(px)), round(avg(py))) AS geom,
            count(*)::int AS count,
            CASE WHEN count(*) = 1 THEN min(driver_id) END AS driver_id,
            CASE WHEN count(*) = 1 THEN min(state)::text END AS state,
            CASE WHEN count(*) = 1 THEN min(duty)::text END AS duty,
            CASE WHEN count(*) = 1 THEN min(presence) END AS presence
        FROM inside CROSS JOIN many
        GROUP BY CASE WHEN NOT are_many THEN driver_id END,
            CASE WHEN are_many THEN floor(px / 256) END,
            CASE WHEN are_many THEN floor(py / 256) END
    )
    SELECT ST_AsMVT(places, 'drivers', 4096, 'geom') INTO tile FROM places;
    RETURN tile;
END
$$;

CREATE FUNCTION fleet_history_v1(
    of_drivers text[], from_at timestamptz, to_at timestamptz, step_s float8
)
RETURNS TABLE (driver_id text, fix_at timestamptz, lon_deg float8, lat_deg float8)
LANGUAGE sql STABLE
SET search_path = doorstep, public, pg_temp
AS $$
    SELECT DISTINCT ON (f.driver_id, step) f.driver_id, f.fix_at, f.lon_deg, f.lat_deg
    FROM (
        SELECT d.driver_id, p.fix_at, p.lon_deg, p.lat_deg
        FROM unnest(of_drivers) AS d (driver_id)
        CROSS JOIN generate_series(
            0, ceil(extract(epoch FROM to_at - from_at) / step_s)::int - 1
        ) AS s (n)
        CROSS JOIN LATERAL (
            SELECT h.fix_at, h.lon_deg, h.lat_deg FROM fix_history h
            WHERE h.driver_id = d.driver_id AND h.quarantine IS NULL
                AND h.fix_at >= from_at + make_interval(secs => s.n * step_s)
                AND h.fix_at < least(to_at, from_at + make_interval(secs => (s.n + 1) * step_s))
                AND h.fix_at >= (SELECT packed_before FROM history_bounds)
            ORDER BY h.fix_at LIMIT 1
        ) AS p
        UNION ALL
        SELECT c.driver_id, p.fix_at, p.lon_deg, p.lat_deg
        FROM fix_chunk c
        CROSS JOIN LATERAL fix_chunk__sample(
            c, 2 + 2 * ceil(extract(epoch FROM c.to_at - c.from_at) / step_s)::int
        ) AS p
        CROSS JOIN LATERAL (VALUES (fleet_history_v1.from_at, fleet_history_v1.to_at))
            AS requested (since, before)  -- fix_chunk has columns named from_at and to_at, too
        WHERE c.driver_id = ANY (of_drivers) AND c.quarantine IS NULL
            AND c.from_at > requested.since - interval '24 hours'  -- no chunk spans more than a day
            AND c.from_at < requested.before AND c.to_at >= requested.since
            AND c.to_at < (SELECT packed_before FROM history_bounds)
            AND p.fix_at >= requested.since AND p.fix_at < requested.before
    ) AS f
    CROSS JOIN LATERAL floor(extract(epoch FROM f.fix_at - from_at) / step_s) AS step
    ORDER BY f.driver_id, step, f.fix_at
$$;

CREATE FUNCTION series__unit(measure text)
RETURNS text LANGUAGE sql IMMUTABLE
RETURN CASE substring(measure FROM '_([a-z]+)$')
    WHEN 'm' THEN 'm' WHEN 'mps' THEN 'm/s' WHEN 'kmh' THEN 'km/h' WHEN 's' THEN 's'
    WHEN 'ms' THEN 'ms' WHEN 'deg' THEN '°' WHEN 'c' THEN '°C' WHEN 'pct' THEN '%'
    WHEN 'v' THEN 'V' WHEN 'a' THEN 'A' WHEN 'w' THEN 'W' WHEN 'kg' THEN 'kg' ELSE '' END;

CREATE FUNCTION series__prepare_v1()
RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
BEGIN
    IF to_regclass('pg_temp.incoming_point') IS NULL THEN
        CREATE TEMP TABLE incoming_point (
            n int4 NOT NULL,
            name text COLLATE "C" NOT NULL,
            at timestamptz NOT NULL,
            value float8 NOT NULL
        ) ON COMMIT DELETE ROWS;
        EXECUTE format('GRANT INSERT ON pg_temp.incoming_point TO %I', session_user);
    ELSE
        TRUNCATE pg_temp.incoming_point;
    END IF;
END
$$;

CREATE FUNCTION series__record_v1()
RETURNS TABLE (n int4, outcome text)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    -- A source may have 1,000 series. In ASCII, '0' follows '/'.
    INSERT INTO series (name, unit)
    SELECT name, series__unit(split_part(name, '/', 2))
    FROM (
        SELECT f.name, f.source_id,
            row_number() OVER (PARTITION BY f.source_id ORDER BY f.first_n) AS nth
        FROM (
            SELECT i.name, split_part(i.name, '/', 1) AS source_id, min(i.n) AS first_n
            FROM pg_temp.incoming_point i
            WHERE NOT EXISTS (SELECT FROM series s WHERE s.name = i.name)
            GROUP BY i.name
        ) f
    ) candidate
    WHERE nth + (
        SELECT count(*) FROM series s
        WHERE s.name >= candidate.source_id || '/' AND s.name < candidate.source_id || '0'
    ) <= 1000
    ON CONFLICT DO NOTHING;

    RETURN QUERY SELECT i.n, 'too_many_series' FROM pg_temp.incoming_point i
        WHERE NOT EXISTS (SELECT FROM series s WHERE s.name = i.name);

    RETURN QUERY
        WITH numbered AS MATERIALIZED (
            SELECT i.n, s.series_no, i.at, i.value
            FROM pg_temp.incoming_point i JOIN series s USING (name)
        ),
        firsts AS MATERIALIZED (
            SELECT DISTINCT ON (series_no, at) n, series_no, at, value
            FROM numbered ORDER BY series_no, at, n
        ),
        written AS (
            INSERT INTO series_point (series_no, at, value)
            SELECT series_no, at, value FROM firsts ORDER BY series_no, at
            ON CONFLICT DO NOTHING
        )
        -- p is the row before this statement, if any
        SELECT m.n,
            CASE WHEN coalesce(p.value, f.value) = m.value THEN 'duplicate' ELSE 'conflict' END
        FROM numbered m
        JOIN firsts f USING (series_no, at)
        LEFT JOIN series_point p USING (series_no, at)
        WHERE p.series_no IS NOT NULL OR f.n <> m.n;

    WITH newest AS (
        SELECT s.series_no, max(i.at) AS at
        FROM pg_temp.incoming_point i JOIN series s USING (name) GROUP BY s.series_no
    )
    UPDATE series s SET last_at = p.at, last_value = p.value
    FROM newest JOIN series_point p USING (series_no, at)
    WHERE s.series_no = newest.series_no AND (s.last_at IS NULL OR s.last_at < p.at);
END
$$;

CREATE FUNCTION series__expire_v1(before timestamptz)
RETURNS int8 LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
DECLARE
    of_series_no int4;
    series_deleted int8;
    total_deleted int8 := 0;
BEGIN
    FOR of_series_no IN SELECT series_no FROM series LOOP
        DELETE FROM series_point WHERE series_no = of_series_no AND at < before;
        GET DIAGNOSTICS series_deleted = ROW_COUNT;
        total_deleted := total_deleted + series_deleted;
    END LOOP;
    RETURN total_deleted;
END
$$;

CREATE FUNCTION series__downsample_v1(
    of_series_no int4, of_driver_id text, of_measure text,
    from_at timestamptz, to_at timestamptz, points int
)
RETURNS TABLE (low_at timestamptz, low float8, high_at timestamptz, high float8, point_count int8)
LANGUAGE plpgsql STABLE
SET search_path = doorstep, public, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    interval_s float8 := extract(epoch FROM to_at - from_at) / greatest(1, points / 2);
    has_more bool;
BEGIN
    SELECT count(*) > points INTO has_more FROM (
        SELECT FROM series__points(of_series_no, of_driver_id, of_measure, from_at, to_at)
        LIMIT points + 1
    ) first_ones;
    IF has_more THEN
        RETURN QUERY
            -- arrays compare by value first; the second element carries the instant
            SELECT to_timestamp((lowest)[2]), (lowest)[1], to_timestamp(-(highest)[2]),
                (highest)[1], point_count
            FROM (
                SELECT min(ARRAY[r.value, extract(epoch FROM r.at)::float8]) AS lowest,
                    max(ARRAY[r.value, -extract(epoch FROM r.at)::float8]) AS highest,
                    count(*) AS point_count,
                    floor(extract(epoch FROM r.at - from_at)::float8 / interval_s) AS nth
                FROM series__points(of_series_no, of_driver_id, of_measure, from_at, to_at) r
                GROUP BY 4
            ) intervals
            ORDER BY nth;
    ELSE
        RETURN QUERY SELECT r.at, r.value, r.at, r.value, 1::int8
            FROM series__points(of_series_no, of_driver_id, of_measure, from_at, to_at) r
            ORDER BY r.at;
    END IF;
END
$$;

CREATE FUNCTION series__points(
    of_series_no int4, of_driver_id text, of_measure text,
    from_at timestamptz, to_at timestamptz
)
RETURNS TABLE (at timestamptz, value float8)
LANGUAGE sql STABLE  -- inlined into its caller
AS $$
    SELECT p.at, p.value FROM series_point p
    WHERE p.series_no = of_series_no AND p.at >= from_at AND p.at < to_at
    UNION ALL
    SELECT f.fix_at, CASE of_measure WHEN 'battery' THEN f.battery ELSE f.speed_mps END
    FROM fix_history__between_v1(of_driver_id, from_at, to_at) f
    WHERE of_series_no IS NULL AND f.quarantine IS NULL
        AND CASE of_measure WHEN 'battery' THEN f.battery ELSE f.speed_mps END IS NOT NULL
$$;

CREATE FUNCTION simulation_target__set_v1(of_kind text, new_count int)
RETURNS void LANGUAGE sql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    INSERT INTO simulation_target (kind, target_count) VALUES (of_kind, new_count)
    ON CONFLICT (kind) DO UPDATE
        SET target_count = EXCLUDED.target_count, set_at = clock_timestamp()
$$;

CREATE FUNCTION eta_model__add_v1(model jsonb)
RETURNS int LANGUAGE plpgsql
SET search_path = doorstep, public, pg_temp
AS $$
DECLARE
    new_model_id int;
BEGIN
    INSERT INTO eta_model (learned_at, rides, crossing_s, arrival_s, wait_s, route_choice)
    SELECT m.learned_at, m.rides, m.crossing_s, m.arrival_s, m.wait_s, m.route_choice
    FROM jsonb_to_record(model) AS m (learned_at timestamptz, rides int, crossing_s float8,
        arrival_s float8, wait_s float8[], route_choice text)
    RETURNING model_id INTO new_model_id;
    INSERT INTO street_speed
    SELECT new_model_id, s.* FROM jsonb_to_recordset(model -> 'street_speeds')
        AS s (street_class text, hour int, mps float8, metres float8);
    INSERT INTO driver_pace
    SELECT new_model_id, p.key, p.value::float8 FROM jsonb_each_text(model -> 'driver_pace') p
    JOIN driver d ON d.driver_id = p.key;
    INSERT INTO eta_band
    SELECT new_model_id, b.* FROM jsonb_to_recordset(model -> 'bands')
        AS b (phase text, up_to_s float8, p10 float8, p50 float8, p90 float8, samples int);
    DELETE FROM eta_model WHERE model_id <= new_model_id - 10;
    RETURN new_model_id;
END
$$;

CREATE FUNCTION eta_model__read_v1(known_model_id int)
RETURNS jsonb LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    SELECT to_jsonb(m) || jsonb_build_object(
        'street_speeds', (SELECT jsonb_agg(to_jsonb(s)) FROM street_speed s
            WHERE s.model_id = m.model_id),
        'driver_pace', (SELECT coalesce(jsonb_object_agg(p.driver_id, p.pace), '{}')
            FROM driver_pace p WHERE p.model_id = m.model_id),
        'bands', (SELECT coalesce(jsonb_agg(to_jsonb(b)), '[]') FROM eta_band b
            WHERE b.model_id = m.model_id))
    FROM (SELECT * FROM eta_model ORDER BY model_id DESC LIMIT 1) m
    WHERE m.model_id <> known_model_id
$$;

CREATE FUNCTION fix_history__derive_driver_state()
RETURNS trigger LANGUAGE plpgsql
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
BEGIN
    WITH moved AS (
        UPDATE driver_state d SET
            fix_at = f.fix_at, received_at = f.received_at,
            lon_deg = f.lon_deg, lat_deg = f.lat_deg, accuracy_m = f.accuracy_m,
            speed_mps = f.speed_mps, heading_deg = f.heading_deg, altitude_m = f.altitude_m,
            battery = f.battery, boot = f.boot, seq = f.seq,
            geom = ST_SetSRID(ST_MakePoint(f.lon_deg, f.lat_deg), 4326),
            cell = cell_of(f.lon_deg, f.lat_deg), hot_padding = NULL
        FROM (
            SELECT n.*, existing.ctid AS existing_ctid, existing.cell AS existing_cell
            FROM (
                SELECT DISTINCT ON (driver_id) * FROM new_fixes WHERE quarantine IS NULL
                ORDER BY driver_id, fix_at DESC, boot DESC, seq DESC
            ) n
            JOIN driver_state existing ON existing.driver_id = n.driver_id
                AND (existing.fix_at IS NULL OR n.fix_at > existing.fix_at
                    OR (n.fix_at = existing.fix_at
                        AND (n.boot, n.seq) > (existing.boot, existing.seq)))
        ) f
        WHERE d.ctid = f.existing_ctid  -- unchanged, because the driver row is locked
        RETURNING d.driver_id, d.cell, f.existing_cell
    )
    INSERT INTO driver_cell AS c (driver_id, cell)
    SELECT driver_id, cell FROM moved WHERE cell IS DISTINCT FROM existing_cell
    ON CONFLICT (driver_id) DO UPDATE SET cell = EXCLUDED.cell;
    RETURN NULL;
END
$$;

CREATE TRIGGER _500_derive_driver_state
AFTER INSERT ON fix_history REFERENCING NEW TABLE AS new_fixes
FOR EACH STATEMENT EXECUTE FUNCTION fix_history__derive_driver_state();

CREATE FUNCTION evidence__partner(
    of_driver_id text, at timestamptz, of_lon_deg float8, of_lat_deg float8, known_at timestamptz,
    place_lon_deg float8, place_lat_deg float8, inside bool, radius_m float8,
    min_s float8, max_s float8, spread_m float8
)
RETURNS SETOF timestamptz LANGUAGE sql STABLE ROWS 1
AS $$
    SELECT h.fix_at
    FROM fix_history h
    WHERE h.driver_id = of_driver_id
        AND h.fix_at >= at - make_interval(secs => max_s)
        AND h.fix_at <= at + make_interval(secs => max_s)
        AND least(h.fix_at, at) < coalesce(known_at, 'infinity')  -- the earlier fix of the pair
        AND (h.fix_at <= at - make_interval(secs => min_s)
            OR h.fix_at >= at + make_interval(secs => min_s))
        AND h.quarantine IS NULL
        AND (ground_distance_m(h.lon_deg, h.lat_deg, place_lon_deg, place_lat_deg) <= radius_m)
            = inside
        AND (spread_m IS NULL
            OR ground_distance_m(h.lon_deg, h.lat_deg, of_lon_deg, of_lat_deg) <= spread_m)
$$;

CREATE FUNCTION fix_history__derive_evidence()
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

CREATE TRIGGER _520_derive_evidence
AFTER INSERT ON fix_history REFERENCING NEW TABLE AS new_fixes
FOR EACH STATEMENT EXECUTE FUNCTION fix_history__derive_evidence();

CREATE FUNCTION order_command__guard()
RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    o orders;
BEGIN
    SELECT * INTO o FROM orders WHERE order_id = NEW.order_id;
    IF o.state <> NEW.from_state OR NOT EXISTS (
        SELECT FROM order_transition t
        WHERE t.from_state = NEW.from_state AND t.to_state = NEW.to_state AND t.via = 'command'
            AND t.command = NEW.command AND t.actor = NEW.actor
    ) THEN
        PERFORM orders__raise_illegal_transition(
            NEW.order_id, NEW.command::text, o.state, NEW.actor
        );
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER _100_guard_transition BEFORE INSERT ON order_command
FOR EACH ROW EXECUTE FUNCTION order_command__guard();

CREATE FUNCTION orders__guard()
RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state <> 'created' OR NEW.assignment_no <> 0 OR NEW.order_seq <> 1 THEN
            PERFORM orders__raise_illegal_transition(NEW.order_id, 'insert', NEW.state, NULL);
        END IF;
        RETURN NEW;
    END IF;
    IF (NEW.state, NEW.assignment_no) = (OLD.state, OLD.assignment_no) THEN
        RETURN NEW;
    END IF;
    -- Only forward, by a legal transition, and by at most one assignment.
    IF (NEW.assignment_no, NEW.state) < (OLD.assignment_no, OLD.state)
        OR NEW.assignment_no > OLD.assignment_no + 1
        OR NOT EXISTS (
            SELECT FROM order_transition t
            WHERE t.from_state = OLD.state AND t.to_state = NEW.state
                AND (NEW.assignment_no = OLD.assignment_no
                    OR t.command IN ('assign', 'decline', 'reassign'))
        )
    THEN
        PERFORM orders__raise_illegal_transition(
            NEW.order_id, 'update to ' || NEW.state, OLD.state, NULL
        );
    END IF;
    NEW.order_seq := OLD.order_seq + 1;
    RETURN NEW;
END
$$;

CREATE TRIGGER _100_guard_transition BEFORE INSERT OR UPDATE OF state, assignment_no ON orders
FOR EACH ROW EXECUTE FUNCTION orders__guard();

CREATE FUNCTION policy__guard()
RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'policies are immutable: orders pin them' USING ERRCODE = 'DS013';
END
$$;

CREATE TRIGGER _100_guard_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON policy
FOR EACH STATEMENT EXECUTE FUNCTION policy__guard();

CREATE FUNCTION orders__derive_events()
RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO order_event (order_id, order_seq, assignment_no, state, source, occurred_at)
        SELECT order_id, order_seq, assignment_no, state, state_source, state_at FROM new_orders;
        RETURN NULL;
    END IF;
    INSERT INTO order_event (order_id, order_seq, assignment_no, state, source, driver_id,
        occurred_at)
    SELECT n.order_id, n.order_seq, n.assignment_no, n.state, n.state_source, a.driver_id,
        n.state_at
    FROM new_orders n
    JOIN old_orders o ON o.order_id = n.order_id AND o.order_seq < n.order_seq
    LEFT JOIN assignment a ON a.order_id = n.order_id AND a.assignment_no = n.assignment_no;
    RETURN NULL;
END
$$;

CREATE TRIGGER _500_derive_events
AFTER INSERT ON orders REFERENCING NEW TABLE AS new_orders
FOR EACH STATEMENT EXECUTE FUNCTION orders__derive_events();

CREATE TRIGGER _501_derive_events
AFTER UPDATE ON orders REFERENCING NEW TABLE AS new_orders OLD TABLE AS old_orders
FOR EACH STATEMENT EXECUTE FUNCTION orders__derive_events();

CREATE FUNCTION orders__derive_driver_state()
RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    affected_drivers text[];
BEGIN
    SELECT array_agg(DISTINCT a.driver_id) INTO affected_drivers
    FROM new_orders n
    JOIN assignment a ON a.order_id = n.order_id AND a.assignment_no >= n.assignment_no - 1;
    IF affected_drivers IS NOT NULL THEN
        PERFORM driver_state__derive(affected_drivers);
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER _510_derive_driver_state
AFTER UPDATE ON orders REFERENCING NEW TABLE AS new_orders
FOR EACH STATEMENT EXECUTE FUNCTION orders__derive_driver_state();

CREATE FUNCTION order_event__announce()
RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO outbox (topic, key, payload)
    SELECT 'tracking-updates', convert_to(order_id::text, 'UTF8'),
        convert_to(json_build_object(
            'order_id', order_id, 'order_seq', order_seq, 'assignment_no', assignment_no,
            'state', state, 'source', source, 'driver_id', driver_id,
            'occurred_at', instant_text(occurred_at), 'recorded_at', instant_text(recorded_at)
        )::text, 'UTF8')
    FROM new_events ORDER BY order_id, order_seq;
    RETURN NULL;
END
$$;

CREATE TRIGGER _900_announce AFTER INSERT ON order_event REFERENCING NEW TABLE AS new_events
FOR EACH STATEMENT EXECUTE FUNCTION order_event__announce();

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA doorstep FROM PUBLIC;

GRANT EXECUTE ON FUNCTION
    prepare_incoming_v1, record_fixes_v1, record_parked_v1, read_watermarks_v1,
    open_offsets_v1, advance_offsets_v1, add_dead_letters_v1, take_outbox_v1, delete_outbox_v1,
    fix_history__ensure_partitions_v1,
    driver_sampling__take_v1, driver_sampling__confirm_v1, driver_sampling__mark_undelivered_v1,
    series__prepare_v1, series__record_v1, series__expire_v1,
    fix_history__seal_limits_v1, fix_history__seal_v1, fix_history__writers_finished_v1,
    fix_history__unpacked_days_v1, fix_history__pack_v1, fix_history__switch_v1, fix_history__drop_packed_v1, fix_chunk__expire_v1
TO driver_events;

GRANT EXECUTE ON FUNCTION
    prepare_incoming_v1, record_fixes_v1, read_watermarks_v1, add_dead_letters_v1,
    apply_order_command_v1, apply_driver_command_v1, find_token_v1
TO driver_api;

GRANT EXECUTE ON FUNCTION
    create_order_v1, apply_order_command_v1, create_policy_v1, find_token_v1,
    replace_customer_token_v1, revoke_customer_tokens_v1, nearest_drivers_v1,
    ground_distance_m, instant_text, driver_sampling__set_v1, fleet_tile_v1, fleet_history_v1,
    series__downsample_v1, series__points, simulation_target__set_v1, eta_model__read_v1,
    fix_history__between_v1, fix_chunk__unpack, fix_chunk__sample
TO tracking_api;
