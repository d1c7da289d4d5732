-- Visibility: what a customer may see is decided in the database, for the role `customer`.

SET LOCAL search_path = doorstep, public;
SET LOCAL check_function_bodies = off;  -- functions may refer to objects that are created later

DO $do$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'customer') THEN
        CREATE ROLE customer NOLOGIN;
    END IF;
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO customer', current_database());
END
$do$;
GRANT USAGE ON SCHEMA doorstep TO customer;

ALTER TABLE assignment ADD visible tstzmultirange NOT NULL DEFAULT '{}';
UPDATE assignment SET visible = tstzmultirange(tstzrange(assigned_at, ended_at));

-- What decides which fixes a customer may see: docs/explanation/privacy.md.

-- How far the clocks of phones were ahead of the servers, at most, by the hour of received_at. boot
-- '' is for fixes without one. A lead of half a second or less is no row.
CREATE TABLE driver_clock (
    driver_id text COLLATE "C" NOT NULL REFERENCES driver,
    boot text COLLATE "C" NOT NULL,
    hour timestamptz NOT NULL,
    lead interval NOT NULL CHECK (lead > interval '0.5 s'),
    PRIMARY KEY (driver_id, boot, hour)
);

-- The open assignments of a driver, and those that ended since an instant.
CREATE INDEX assignment_until ON assignment (driver_id, coalesce(ended_at, 'infinity'));

-- The door of another customer, and when that order was the driver's.
CREATE TYPE other_door AS (
    lon_deg float8, lat_deg float8, assigned_at timestamptz, ended_at timestamptz
);

-- An assignment whose customer may look now, with what decides about each fix of its driver.
CREATE TYPE customer_view AS (
    order_id uuid,
    driver_id text,
    visible tstzmultirange,
    clocks_since timestamptz,  -- null if no clock of the driver is known to run ahead
    restaurant_lon_deg float8,
    restaurant_lat_deg float8,
    customer_lon_deg float8,
    customer_lat_deg float8,
    other_doors other_door[]
);

-- Which fixes a customer may see: docs/explanation/privacy.md. customer_view__shows decides for
-- every reader: position, trail, history, streams, the start of the ETA.
--
-- Each function in SQL is a set, so that the planner inlines it. The caller materializes the view:
-- inlined, its list of doors would be read again for each fix.

-- The view of an assignment, or no row if its customer may not look now.
CREATE FUNCTION customer_view__of(of_order_id uuid, of_assignment_no int)
RETURNS SETOF customer_view LANGUAGE sql STABLE ROWS 1
AS $$
    SELECT a.order_id, a.driver_id, a.visible,
        CASE WHEN EXISTS (
            SELECT FROM driver_clock c WHERE c.driver_id = a.driver_id AND c.hour >= s.clocks_since
        ) THEN s.clocks_since END,
        a.restaurant_lon_deg, a.restaurant_lat_deg, a.customer_lon_deg, a.customer_lat_deg,
        ARRAY(
            SELECT (o.customer_lon_deg, o.customer_lat_deg, o.assigned_at, o.ended_at)::other_door
            FROM assignment o
            WHERE o.driver_id = a.driver_id AND o.order_id <> a.order_id
                AND coalesce(o.ended_at, 'infinity') > lower(a.visible) - interval '24 hours'
        )
    FROM (
        SELECT * FROM assignment t
        WHERE t.order_id = of_order_id AND t.assignment_no = of_assignment_no
            AND upper_inf(t.visible) OFFSET 0
    ) a
    CROSS JOIN LATERAL (
        SELECT date_trunc('hour', a.assigned_at - interval '24 hours', 'UTC') AS clocks_since
    ) s
$$;

-- The earliest instant at which a fix can have been taken: fix_at, less how far ahead the phone's
-- clock is known to run, less the second within which a prompt fix arrives.
CREATE FUNCTION customer_view__taken_from(
    view customer_view, of_boot text, of_fix_at timestamptz
)
RETURNS SETOF timestamptz LANGUAGE sql STABLE ROWS 1
AS $$
    SELECT of_fix_at - interval '1 s' - greatest(interval '0.5 s', (
        SELECT max(c.lead) FROM driver_clock c
        WHERE (view).clocks_since IS NOT NULL AND c.driver_id = (view).driver_id
            AND c.boot = of_boot AND c.hour >= (view).clocks_since
    ))
    OFFSET 0
$$;

-- Whether the driver was away from a door between the end of its order and an instant: a fix exists
-- that was taken after the end and arrived before the instant. After a day, any door counts as
-- left. Rarely called, so it has a plan of its own.
CREATE FUNCTION customer_view__has_left(
    view customer_view, door other_door, before timestamptz
)
RETURNS bool LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    RETURN door.ended_at <= before - interval '24 hours' OR EXISTS (
        SELECT FROM fix_history h
        CROSS JOIN LATERAL customer_view__taken_from(view, h.boot, h.fix_at) AS t (taken_from)
        WHERE h.driver_id = view.driver_id AND h.quarantine IS NULL
            AND h.fix_at > door.ended_at
            -- fix_at is ahead of received_at by limits.future_s at most
            AND h.fix_at < before + interval '1 hour'
            AND h.received_at <= before AND t.taken_from > door.ended_at
            AND ground_distance_m(h.lon_deg, h.lat_deg, door.lon_deg, door.lat_deg) > 150
    );
END
$$;

-- A row if the customer may see a fix: one visible range contains all of the time in which it can
-- have been taken, and it is not at another customer's door.
CREATE FUNCTION customer_view__shows(
    view customer_view, of_boot text, of_fix_at timestamptz, of_received_at timestamptz,
    of_lon_deg float8, of_lat_deg float8
)
RETURNS SETOF timestamptz LANGUAGE sql STABLE ROWS 1
AS $$
    SELECT t.taken_from
    FROM customer_view__taken_from(view, of_boot, of_fix_at) AS t (taken_from)
    WHERE (view).visible @> tstzrange(
            least(t.taken_from, of_received_at), greatest(t.taken_from, of_received_at), '[]')
        AND NOT EXISTS (
            SELECT FROM unnest((view).other_doors) d
            WHERE abs(of_lat_deg - d.lat_deg) * 111195 <= 150  -- excludes most doors cheaply
                AND ground_distance_m(of_lon_deg, of_lat_deg, d.lon_deg, d.lat_deg) <= 150
                -- a fix is shown if one of the customer's own places is no farther
                AND ground_distance_m(of_lon_deg, of_lat_deg, d.lon_deg, d.lat_deg) < least(
                    ground_distance_m(of_lon_deg, of_lat_deg,
                        (view).customer_lon_deg, (view).customer_lat_deg),
                    ground_distance_m(of_lon_deg, of_lat_deg,
                        (view).restaurant_lon_deg, (view).restaurant_lat_deg))
                AND d.assigned_at <= of_received_at
                AND (
                    coalesce(d.ended_at, 'infinity') > t.taken_from - interval '15 min'
                    OR NOT customer_view__has_left(view, d, t.taken_from)
                )
        )
$$;

-- The fixes of a time that the customer may see, in no order.
CREATE FUNCTION customer_view__fixes(view customer_view, since timestamptz, before timestamptz)
RETURNS SETOF fix_history LANGUAGE sql STABLE
AS $$
    SELECT h.*
    FROM fix_history h
    CROSS JOIN LATERAL customer_view__shows(
        view, h.boot, h.fix_at, h.received_at, h.lon_deg, h.lat_deg)
    WHERE h.driver_id = (view).driver_id AND h.quarantine IS NULL
        AND h.fix_at > lower((view).visible)  -- taken_from is not before that
        AND h.fix_at >= since AND h.fix_at < before
$$;

-- The newest fix that the customer may see, from the history.
CREATE FUNCTION customer_view__newest(view customer_view, before timestamptz)
RETURNS TABLE (
    fix_at timestamptz, received_at timestamptz, lon_deg float8, lat_deg float8,
    accuracy_m float8, speed_mps float8, heading_deg float8
)
LANGUAGE plpgsql STABLE ROWS 1
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
        SELECT h.fix_at, h.received_at, h.lon_deg, h.lat_deg, h.accuracy_m, h.speed_mps,
            h.heading_deg
        FROM customer_view__fixes(view, '-infinity', before) h
        ORDER BY h.fix_at DESC, h.boot DESC, h.seq DESC
        LIMIT 1;
END
$$;

-- The newest fix that the customer may see. Usually it is the newest fix of the driver, and the
-- history is not read.
CREATE FUNCTION customer_view__position(view customer_view, before timestamptz)
RETURNS TABLE (
    fix_at timestamptz, received_at timestamptz, lon_deg float8, lat_deg float8,
    accuracy_m float8, speed_mps float8, heading_deg float8
)
LANGUAGE sql STABLE ROWS 1
AS $$
    SELECT p.* FROM (
        SELECT d.fix_at, d.received_at, d.lon_deg, d.lat_deg, d.accuracy_m, d.speed_mps,
            d.heading_deg
        FROM driver_state d
        CROSS JOIN LATERAL customer_view__shows(
            view, d.boot, d.fix_at, d.received_at, d.lon_deg, d.lat_deg)
        WHERE d.driver_id = (view).driver_id
        UNION ALL
        SELECT * FROM customer_view__newest(view, before) WHERE (view).driver_id IS NOT NULL
        LIMIT 1  -- the second part runs only if the first has no row
    ) p
$$;

-- The valid ones of links, each a token and the order that it is for. A token expires
-- limits.customer_token_s after the end of the order.
CREATE FUNCTION customer_links__good(token_sha256s bytea[], order_ids uuid[])
RETURNS TABLE (n int8, order_id uuid) LANGUAGE sql STABLE
AS $$
    SELECT k.n, t.order_id
    FROM unnest(token_sha256s, order_ids) WITH ORDINALITY AS k (token_sha256, order_id, n)
    CROSS JOIN LATERAL (
        SELECT a.order_id FROM access_token a
        WHERE a.token_sha256 = k.token_sha256 AND a.order_id = k.order_id
            AND a.role = 'customer' AND a.revoked_at IS NULL OFFSET 0
    ) t
    CROSS JOIN LATERAL (
        SELECT o.ended_at FROM orders o WHERE o.order_id = t.order_id OFFSET 0
    ) o
    WHERE o.ended_at IS NULL OR clock_timestamp()
        < o.ended_at + make_interval(secs => (SELECT customer_token_s FROM limits))
$$;

-- What the role `customer` may execute. Each function takes hashes of tokens and returns data of
-- the orders that these are for. For an invalid link the functions for many links return no row,
-- and those for one link raise DS015.

-- What GET, the snapshot of a stream and an order with new events show, for many links: `n` is the
-- position of a link in the arguments. The trail (oldest first, without the position) and the
-- events are arrays of equal lengths. The service must not pass on driver_id.
CREATE FUNCTION customer_tracks_v1(token_sha256s bytea[], order_ids uuid[])
RETURNS TABLE (
    n int8, now timestamptz, order_id uuid, state order_state, assignment_no int, order_seq int,
    restaurant_name text, restaurant_lon_deg float8, restaurant_lat_deg float8,
    destination_lon_deg float8, destination_lat_deg float8, dwell_min_s float8, pace float8,
    driver_id text, assigned_at timestamptz,
    fix_at timestamptz, received_at timestamptz, lon_deg float8, lat_deg float8,
    accuracy_m float8, speed_mps float8, heading_deg float8,
    trail_fix_at timestamptz[], trail_received_at timestamptz[], trail_lon_deg float8[],
    trail_lat_deg float8[], trail_accuracy_m float8[], trail_speed_mps float8[],
    trail_heading_deg float8[],
    event_order_seq int[], event_assignment_no int[], event_state text[], event_source text[],
    event_occurred_at timestamptz[]
)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
SET enable_hashjoin = off  -- every join is a look-up by key
SET enable_mergejoin = off
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    at CONSTANT timestamptz := clock_timestamp();
    later CONSTANT timestamptz := at + interval '1 hour';
    trail_since CONSTANT timestamptz := at - interval '5 min';
    trail_fixes CONSTANT int := 80;  -- 5 min at one every 4 s
BEGIN
    RETURN QUERY
    WITH links AS MATERIALIZED (SELECT * FROM customer_links__good(token_sha256s, order_ids)),
    found AS MATERIALIZED (
        SELECT o.*, v AS view, w.assigned_at
        FROM (SELECT DISTINCT order_id FROM links) k
        CROSS JOIN LATERAL (SELECT * FROM orders t WHERE t.order_id = k.order_id OFFSET 0) o
        LEFT JOIN LATERAL customer_view__of(o.order_id, o.assignment_no) v ON true
        LEFT JOIN LATERAL (
            SELECT t.assigned_at FROM assignment t
            WHERE t.order_id = v.order_id AND t.assignment_no = o.assignment_no OFFSET 0
        ) w ON true
    ),
    tracks AS MATERIALIZED (
        SELECT f.*, p.fix_at, p.received_at, p.lon_deg AS fix_lon_deg, p.lat_deg AS fix_lat_deg,
            p.accuracy_m, p.speed_mps, p.heading_deg, t.*
        FROM found f
        LEFT JOIN LATERAL customer_view__position(f.view, later) p ON true
        CROSS JOIN LATERAL (
            SELECT array_agg(h.fix_at ORDER BY h.key) AS trail_fix_at,
                array_agg(h.received_at ORDER BY h.key) AS trail_received_at,
                array_agg(h.lon_deg ORDER BY h.key) AS trail_lon_deg,
                array_agg(h.lat_deg ORDER BY h.key) AS trail_lat_deg,
                array_agg(h.accuracy_m ORDER BY h.key) AS trail_accuracy_m,
                array_agg(h.speed_mps ORDER BY h.key) AS trail_speed_mps,
                array_agg(h.heading_deg ORDER BY h.key) AS trail_heading_deg
            FROM (
                SELECT x.*, row_number() OVER () * -1 AS key FROM (
                    SELECT * FROM customer_view__fixes(f.view, trail_since, p.fix_at)
                    WHERE fix_at < later  -- excludes the partitions of later days
                    ORDER BY fix_at DESC, boot DESC, seq DESC
                    LIMIT trail_fixes
                ) x
            ) h
        ) t
    )
    SELECT k.n, at, t.order_id, t.state, t.assignment_no, t.order_seq,
        r.name, r.lon_deg, r.lat_deg, t.lon_deg, t.lat_deg, p.dwell_min_s, p.pace,
        (t.view).driver_id, t.assigned_at,
        t.fix_at, t.received_at, t.fix_lon_deg, t.fix_lat_deg, t.accuracy_m, t.speed_mps,
        t.heading_deg,
        t.trail_fix_at, t.trail_received_at, t.trail_lon_deg, t.trail_lat_deg,
        t.trail_accuracy_m, t.trail_speed_mps, t.trail_heading_deg,
        e.order_seqs, e.assignment_nos, e.states, e.sources, e.occurred_ats
    FROM links k
    JOIN tracks t ON t.order_id = k.order_id
    JOIN restaurant r ON r.restaurant_id = t.restaurant_id
    JOIN policy p ON p.policy_id = t.policy_id
    CROSS JOIN LATERAL (
        SELECT array_agg(e.order_seq ORDER BY e.order_seq) AS order_seqs,
            array_agg(e.assignment_no ORDER BY e.order_seq) AS assignment_nos,
            array_agg(e.state::text ORDER BY e.order_seq) AS states,
            array_agg(e.source::text ORDER BY e.order_seq) AS sources,
            -- late fixes may have moved evidence to an earlier instant
            array_agg(coalesce(g.occurred_at, e.occurred_at) ORDER BY e.order_seq) AS occurred_ats
        FROM order_event e
        LEFT JOIN evidence g ON g.order_id = e.order_id AND g.assignment_no = e.assignment_no
            AND g.state = e.state AND g.source = e.source
        WHERE e.order_id = k.order_id
    ) e;
END
$$;

-- What the poll of a stream needs, for many links: the number of the newest event, and the
-- position. A link without a row is no longer valid.
CREATE FUNCTION customer_polls_v1(token_sha256s bytea[], order_ids uuid[])
RETURNS TABLE (
    n int8, now timestamptz, order_id uuid, order_seq int, driver_id text,
    fix_at timestamptz, received_at timestamptz, lon_deg float8, lat_deg float8,
    accuracy_m float8, speed_mps float8, heading_deg float8
)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
SET enable_hashjoin = off  -- every join is a look-up by key
SET enable_mergejoin = off
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    at CONSTANT timestamptz := clock_timestamp();
    later CONSTANT timestamptz := at + interval '1 hour';
BEGIN
    RETURN QUERY
    WITH links AS MATERIALIZED (SELECT * FROM customer_links__good(token_sha256s, order_ids)),
    found AS MATERIALIZED (
        SELECT o.order_id, o.order_seq, v AS view
        FROM (SELECT DISTINCT order_id FROM links) k
        CROSS JOIN LATERAL (SELECT * FROM orders t WHERE t.order_id = k.order_id OFFSET 0) o
        LEFT JOIN LATERAL customer_view__of(o.order_id, o.assignment_no) v ON true
    ),
    positions AS MATERIALIZED (
        SELECT f.order_id, f.order_seq, (f.view).driver_id, p.*
        FROM found f
        LEFT JOIN LATERAL customer_view__position(f.view, later) p ON true
    )
    SELECT k.n, at, p.order_id, p.order_seq, p.driver_id,
        p.fix_at, p.received_at, p.lon_deg, p.lat_deg, p.accuracy_m, p.speed_mps, p.heading_deg
    FROM links k
    JOIN positions p ON p.order_id = k.order_id;
END
$$;

-- A page of at most 5,000 of the fixes that the customer of a link may see, oldest first. Pass the
-- key of the last one as `after_…` to read the next page. Raises DS015 for an invalid link.
CREATE FUNCTION customer_history_v1(
    of_token_sha256 bytea, of_order_id uuid, since timestamptz, before timestamptz, at_most int,
    after_fix_at timestamptz, after_boot text, after_seq int8
)
RETURNS TABLE (
    fix_at timestamptz, received_at timestamptz, lon_deg float8, lat_deg float8,
    accuracy_m float8, speed_mps float8, heading_deg float8, boot text, seq int8
)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
SET enable_hashjoin = off  -- every join is a look-up by key
SET enable_mergejoin = off
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    view customer_view;
    begins CONSTANT timestamptz := greatest(since, after_fix_at);  -- greatest() skips nulls
    ends CONSTANT timestamptz := least(before, clock_timestamp() + interval '1 hour');
BEGIN
    PERFORM FROM customer_links__good(ARRAY[of_token_sha256], ARRAY[of_order_id]);
    IF NOT FOUND THEN
        RAISE EXCEPTION 'this link does not lead to an order' USING ERRCODE = 'DS015';
    END IF;
    SELECT v.* INTO view FROM orders o
        CROSS JOIN LATERAL customer_view__of(o.order_id, o.assignment_no) v
        WHERE o.order_id = of_order_id;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    RETURN QUERY
        SELECT h.fix_at, h.received_at, h.lon_deg, h.lat_deg, h.accuracy_m, h.speed_mps,
            h.heading_deg, h.boot, h.seq
        FROM customer_view__fixes(view, coalesce(begins, '-infinity'), ends) h
        WHERE after_fix_at IS NULL
            OR (h.fix_at, h.boot, h.seq) > (after_fix_at, after_boot, after_seq)
        ORDER BY h.fix_at, h.boot, h.seq
        LIMIT least(greatest(at_most, 0), 5000);
END
$$;

-- Cancels the order of a link as its customer. Raises DS015 for an invalid link, and DS001 in a
-- state in which customers may not cancel.
CREATE FUNCTION customer_cancel_v1(
    of_token_sha256 bytea, of_order_id uuid, with_idempotency_key text
)
RETURNS TABLE (order_id uuid, state order_state, assignment_no int, order_seq int)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    PERFORM FROM customer_links__good(ARRAY[of_token_sha256], ARRAY[of_order_id]);
    IF NOT FOUND THEN
        RAISE EXCEPTION 'this link does not lead to an order' USING ERRCODE = 'DS015';
    END IF;
    RETURN QUERY
        SELECT c.order_id, c.state, c.assignment_no, c.order_seq
        FROM apply_order_command_v1(
            of_order_id, 'cancel', 'customer', 'customer', NULL, with_idempotency_key) c;
END
$$;

-- Clocks of phones, and the first arrival of fixes. record_fixes_v1 calls these functions only for
-- batches that need them. The driver rows are locked.

-- Records how far fixes of incoming_fix are ahead of their arrival, including rejected ones.
CREATE FUNCTION driver_clock__learn()
RETURNS void LANGUAGE sql
AS $$
    INSERT INTO driver_clock AS known (driver_id, boot, hour, lead)
    SELECT a.driver_id, a.boot, a.hour, a.lead
    FROM (
        SELECT i.driver_id, CASE WHEN i.seq IS NULL THEN '' ELSE i.boot END AS boot,
            date_trunc('hour', i.received_at, 'UTC') AS hour, max(i.fix_at - i.received_at) AS lead
        FROM pg_temp.incoming_fix i
        WHERE i.fix_at > i.received_at + interval '0.5 s'
            AND (i.seq IS NULL OR (i.boot <> '' AND i.seq BETWEEN 1 AND 4611686018427387904))
        GROUP BY 1, 2, 3
    ) a
    WHERE NOT EXISTS (  -- avoids locking the row of a lead that is recorded already
        SELECT FROM driver_clock k
        WHERE k.driver_id = a.driver_id AND k.boot = a.boot AND k.hour = a.hour
            AND k.lead >= a.lead
    )
    ON CONFLICT (driver_id, boot, hour) DO UPDATE SET lead = EXCLUDED.lead
        WHERE known.lead < EXCLUDED.lead
$$;

-- Lowers received_at to the least of the accepted copies, in whatever order they are recorded.
-- `outcomes` are those of incoming_fix.
CREATE FUNCTION fix_history__keep_first_arrival(
    outcomes fix_outcome[], future interval, lateness interval, sealed timestamptz
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
    SELECT count(*), bool_or(fix_at > received_at + interval '0.5 s') INTO fix_count, is_ahead
        FROM pg_temp.incoming_fix;
    has_copies := fix_count > locked_count AND EXISTS (
        SELECT FROM pg_temp.incoming_fix GROUP BY driver_id, boot, seq HAVING count(*) > 1
    );
    IF is_ahead THEN
        PERFORM driver_clock__learn();
    END IF;

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
            IF EXISTS (SELECT FROM unnest(outcomes) o WHERE o.outcome = 'duplicate') THEN
                PERFORM fix_history__keep_first_arrival(outcomes, future, lateness, sealed);
            END IF;
            RETURN QUERY SELECT o.* FROM unnest(outcomes) o;
        END IF;
        EXIT WHEN deferred IS NULL;
    END LOOP;
END
$$;

-- Derives the visible ranges of assignments, and deletes old rows of driver_clock.

-- 500: assigning opens a range, and the end of the assignment closes it.
CREATE FUNCTION assignment__derive_visible()
RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' OR NEW.assigned_at <> OLD.assigned_at THEN
        NEW.visible := tstzmultirange(tstzrange(NEW.assigned_at, NEW.ended_at));
    ELSE
        NEW.visible := NEW.visible * tstzmultirange(tstzrange(NULL, NEW.ended_at));
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER _500_derive_visible BEFORE INSERT OR UPDATE OF assigned_at, ended_at ON assignment
FOR EACH ROW EXECUTE FUNCTION assignment__derive_visible();

-- 900: a new hour of a driver's clocks deletes those that no open assignment reads: the rule looks
-- back 24 hours from the start of an assignment. A row trigger, because these rows are rare.
CREATE FUNCTION driver_clock__expire()
RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM driver_clock c
    WHERE c.driver_id = NEW.driver_id AND c.hour < NEW.hour - interval '72 hours';
    RETURN NULL;
END
$$;

CREATE TRIGGER _900_expire AFTER INSERT ON driver_clock
FOR EACH ROW EXECUTE FUNCTION driver_clock__expire();

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA doorstep FROM PUBLIC;

-- Customers read no table: what they may see is decided inside these functions.
GRANT EXECUTE ON FUNCTION
    customer_tracks_v1, customer_polls_v1, customer_history_v1, customer_cancel_v1
TO customer;
