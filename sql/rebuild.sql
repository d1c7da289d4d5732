-- Derives evidence and states again from the recorded fixes and commands, and compares them with
-- the stored ones: `sql.query("compare_orders", "rebuild.sql")`. This is a second, independent
-- implementation of the rules, over a table with the fixes of each window;
-- sql/schema/41_evidence.sql evaluates them incrementally.

-- set_timeouts --
SET statement_timeout = '120s';
SET lock_timeout = '30s';
SET idle_in_transaction_session_timeout = '120s'

-- set_read_only --
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY

-- create_tables --
CREATE TEMP TABLE IF NOT EXISTS rebuilt (
    order_id uuid NOT NULL,
    assignment_no int NOT NULL,
    driver_id text COLLATE "C" NOT NULL,
    assigned_at timestamptz NOT NULL,
    ended_at timestamptz,
    ended_by order_verb,
    visible tstzmultirange NOT NULL,  -- while this was the driver's next stop
    commanded_at timestamptz,  -- the first pick_up
    is_sealed bool NOT NULL,  -- its fixes may be deleted: the stored evidence is taken as proved
    at_restaurant_at timestamptz,
    left_restaurant_at timestamptz,
    picked_up_at timestamptz,
    arriving_at timestamptz,
    at_customer_at timestamptz,
    PRIMARY KEY (order_id, assignment_no)
) ON COMMIT DELETE ROWS;
CREATE TEMP TABLE IF NOT EXISTS rebuilt_fix (
    order_id uuid NOT NULL,
    assignment_no int NOT NULL,
    fix_at timestamptz NOT NULL,
    lon_deg float8 NOT NULL,
    lat_deg float8 NOT NULL,
    speed_mps float8,
    to_restaurant_m float8 NOT NULL,
    to_customer_m float8 NOT NULL
) ON COMMIT DELETE ROWS;
CREATE INDEX IF NOT EXISTS rebuilt_fix_window ON rebuilt_fix (order_id, assignment_no, fix_at)


-- Counting and paging ---------------------------------------------------------------------

-- count_all --
SELECT (SELECT count(*) FROM orders) AS orders, (SELECT count(*) FROM driver_state) AS drivers

-- next_orders --
SELECT order_id FROM orders
WHERE %(after)s::uuid IS NULL OR order_id > %(after)s ORDER BY order_id LIMIT %(limit)s

-- next_drivers --
SELECT driver_id FROM driver_state
WHERE %(after)s::text IS NULL OR driver_id > %(after)s ORDER BY driver_id LIMIT %(limit)s

-- orders_of_drivers --
SELECT DISTINCT order_id FROM assignment WHERE driver_id = ANY (%(driver_ids)s) ORDER BY order_id

-- existing_orders --
SELECT order_id FROM orders WHERE order_id = ANY (%(order_ids)s)

-- existing_drivers --
SELECT driver_id FROM driver_state WHERE driver_id = ANY (%(driver_ids)s)


-- Orders ----------------------------------------------------------------------------------

-- clear_tables --
DELETE FROM rebuilt;
DELETE FROM rebuilt_fix

-- rebuild_windows --
INSERT INTO rebuilt (order_id, assignment_no, driver_id, assigned_at, ended_at, ended_by,
    visible, commanded_at, is_sealed)
SELECT a.order_id, a.assignment_no, coalesce(begun.driver_id, a.driver_id), a.assigned_at,
    CASE WHEN ending.command IS NOT NULL THEN greatest(ending.commanded_at, a.assigned_at) END,
    ending.command,
    a.visible * tstzmultirange(tstzrange(a.assigned_at,
        CASE WHEN ending.command IS NOT NULL THEN greatest(ending.commanded_at, a.assigned_at) END
    )),
    carried.commanded_at,
    a.assigned_at < s.sealed_before OR o.forgotten_at IS NOT NULL OR a.driver_id = 'forgotten'
FROM assignment a
JOIN orders o USING (order_id)
CROSS JOIN history_bounds s
LEFT JOIN LATERAL (
    SELECT c.driver_id FROM order_command c
    WHERE c.order_id = a.order_id AND c.assignment_no = a.assignment_no
        AND c.command IN ('assign', 'reassign')
    ORDER BY c.order_command_id LIMIT 1
) begun ON true
LEFT JOIN LATERAL (
    SELECT c.command, c.commanded_at FROM order_command c
    WHERE c.order_id = a.order_id AND (
        (c.command IN ('decline', 'reassign') AND c.assignment_no = a.assignment_no + 1)
        OR (c.command IN ('deliver', 'fail', 'cancel') AND c.assignment_no = a.assignment_no))
    ORDER BY c.order_command_id LIMIT 1
) ending ON true
CROSS JOIN LATERAL (
    SELECT min(c.commanded_at) AS commanded_at FROM order_command c
    WHERE c.order_id = a.order_id AND c.assignment_no = a.assignment_no AND c.command = 'pick_up'
) carried
WHERE a.order_id = ANY (%(order_ids)s)

-- rebuild_fixes --
INSERT INTO rebuilt_fix
SELECT r.order_id, r.assignment_no, h.fix_at, h.lon_deg, h.lat_deg, h.speed_mps,
    ground_distance_m(h.lon_deg, h.lat_deg, a.restaurant_lon_deg, a.restaurant_lat_deg),
    ground_distance_m(h.lon_deg, h.lat_deg, a.customer_lon_deg, a.customer_lat_deg)
FROM rebuilt r
JOIN assignment a USING (order_id, assignment_no)
JOIN policy p ON p.policy_id = a.policy_id
JOIN fix_history h ON h.driver_id = r.driver_id AND h.fix_at >= r.assigned_at
    AND h.fix_at < coalesce(r.ended_at, 'infinity')
WHERE NOT r.is_sealed AND h.quarantine IS NULL
    AND (h.accuracy_m IS NULL OR h.accuracy_m <= p.worst_accuracy_m)

-- rebuild_sealed --
UPDATE rebuilt r SET at_restaurant_at = a.at_restaurant_at,
    left_restaurant_at = a.left_restaurant_at, picked_up_at = a.picked_up_at,
    arriving_at = a.arriving_at, at_customer_at = a.at_customer_at
FROM assignment a
WHERE r.is_sealed AND a.order_id = r.order_id AND a.assignment_no = r.assignment_no

-- rebuild_at_restaurant --
UPDATE rebuilt r SET at_restaurant_at = (
    SELECT a.fix_at FROM rebuilt_fix a
    WHERE a.order_id = r.order_id AND a.assignment_no = r.assignment_no
        AND a.to_restaurant_m <= p.enter_radius_m
        AND (a.speed_mps IS NULL OR a.speed_mps <= p.dwell_max_mps)
        AND EXISTS (
            SELECT FROM rebuilt_fix b
            WHERE b.order_id = r.order_id AND b.assignment_no = r.assignment_no
                AND b.fix_at BETWEEN a.fix_at + make_interval(secs => p.dwell_min_s)
                    AND a.fix_at + make_interval(secs => p.dwell_max_s)
                AND b.to_restaurant_m <= p.enter_radius_m
                AND (b.speed_mps IS NULL OR b.speed_mps <= p.dwell_max_mps)
                AND ground_distance_m(a.lon_deg, a.lat_deg, b.lon_deg, b.lat_deg)
                    <= p.dwell_spread_m
        )
    ORDER BY a.fix_at LIMIT 1
)
FROM assignment t JOIN policy p ON p.policy_id = t.policy_id
WHERE t.order_id = r.order_id AND t.assignment_no = r.assignment_no AND NOT r.is_sealed

-- rebuild_picked_up --
UPDATE rebuilt r SET left_restaurant_at = found.fix_at,
    picked_up_at = least(r.commanded_at, found.fix_at)
FROM assignment t
JOIN policy p ON p.policy_id = t.policy_id
JOIN rebuilt w ON w.order_id = t.order_id AND w.assignment_no = t.assignment_no
LEFT JOIN LATERAL (
    SELECT a.fix_at FROM rebuilt_fix a
    WHERE a.order_id = w.order_id AND a.assignment_no = w.assignment_no
        AND a.to_restaurant_m > p.leave_radius_m AND a.fix_at >= w.at_restaurant_at
        AND EXISTS (
            SELECT FROM rebuilt_fix b
            WHERE b.order_id = w.order_id AND b.assignment_no = w.assignment_no
                AND b.fix_at BETWEEN a.fix_at + make_interval(secs => p.leave_min_s)
                    AND a.fix_at + make_interval(secs => p.leave_max_s)
                AND b.to_restaurant_m > p.leave_radius_m
        )
    ORDER BY a.fix_at LIMIT 1
) found ON true
WHERE w.order_id = r.order_id AND w.assignment_no = r.assignment_no AND NOT r.is_sealed

-- rebuild_arriving --
UPDATE rebuilt r SET
    arriving_at = (
        SELECT a.fix_at FROM rebuilt_fix a
        WHERE a.order_id = r.order_id AND a.assignment_no = r.assignment_no
            AND a.to_customer_m <= p.arriving_radius_m AND a.fix_at >= r.picked_up_at
            AND EXISTS (
                SELECT FROM rebuilt_fix b
                JOIN unnest(r.visible) v ON v @> a.fix_at AND v @> b.fix_at
                WHERE b.order_id = r.order_id AND b.assignment_no = r.assignment_no
                    AND b.fix_at < evidence__counts_before()
                    AND b.fix_at >= a.fix_at + make_interval(secs => p.arriving_min_s)
                    AND b.to_customer_m <= p.arriving_radius_m
            )
        ORDER BY a.fix_at LIMIT 1
    ),
    at_customer_at = (
        SELECT a.fix_at FROM rebuilt_fix a
        WHERE a.order_id = r.order_id AND a.assignment_no = r.assignment_no
            AND a.to_customer_m <= p.enter_radius_m AND a.fix_at >= r.picked_up_at
            AND (a.speed_mps IS NULL OR a.speed_mps <= p.dwell_max_mps)
            AND EXISTS (
                SELECT FROM rebuilt_fix b
                JOIN unnest(r.visible) v ON v @> a.fix_at AND v @> b.fix_at
                WHERE b.order_id = r.order_id AND b.assignment_no = r.assignment_no
                    AND b.fix_at < evidence__counts_before()
                    AND b.fix_at BETWEEN a.fix_at + make_interval(secs => p.dwell_min_s)
                        AND a.fix_at + make_interval(secs => p.dwell_max_s)
                    AND b.to_customer_m <= p.enter_radius_m
                    AND (b.speed_mps IS NULL OR b.speed_mps <= p.dwell_max_mps)
                    AND ground_distance_m(a.lon_deg, a.lat_deg, b.lon_deg, b.lat_deg)
                        <= p.dwell_spread_m
            )
        ORDER BY a.fix_at LIMIT 1
    )
FROM assignment t JOIN policy p ON p.policy_id = t.policy_id
WHERE t.order_id = r.order_id AND t.assignment_no = r.assignment_no AND NOT r.is_sealed

-- count_rebuilt --
SELECT (SELECT count(*) FROM rebuilt) AS assignments,
    (SELECT count(*) FROM rebuilt WHERE is_sealed) AS sealed,
    (SELECT count(*) FROM rebuilt_fix) AS fixes

-- compare_orders --
-- The visible state is the maximum of (assignment_no, state) over commands and evidence. Events
-- record what was visible and when; the last event must be the visible state.
WITH fact AS (
    SELECT r.order_id, r.assignment_no, f.state, f.occurred_at
    FROM rebuilt r
    CROSS JOIN LATERAL (VALUES
        ('at_restaurant'::order_state, r.at_restaurant_at), ('picked_up', r.left_restaurant_at),
        ('arriving', r.arriving_at), ('at_customer', r.at_customer_at)
    ) AS f (state, occurred_at)
    WHERE f.occurred_at IS NOT NULL
),
shown AS (
    SELECT order_id, 0 AS assignment_no, 'created'::order_state AS state
    FROM orders WHERE order_id = ANY (%(order_ids)s)
    UNION ALL
    SELECT order_id, assignment_no, to_state FROM order_command
    WHERE order_id = ANY (%(order_ids)s)
    UNION ALL
    SELECT order_id, assignment_no, state FROM fact
),
top AS (
    SELECT DISTINCT ON (order_id) * FROM shown
    ORDER BY order_id, assignment_no DESC, state DESC
),
visible AS (
    SELECT top.order_id, top.assignment_no, top.state, f.occurred_at AS proved_at,
        c.commanded_at, c.actor, e.occurred_at AS shown_at,
        greatest(e.order_seq, (
            SELECT max(n.order_seq) FROM order_notice n WHERE n.order_id = top.order_id
        )) AS order_seq,
        (e.assignment_no, e.state) = (top.assignment_no, top.state) AS is_shown,
        CASE
            WHEN (e.assignment_no, e.state) = (top.assignment_no, top.state) THEN e.source
            WHEN f.occurred_at IS NOT NULL THEN 'gps'
            ELSE c.actor::text::state_source
        END AS source
    FROM top
    LEFT JOIN fact f USING (order_id, assignment_no, state)
    LEFT JOIN LATERAL (
        SELECT commanded_at, actor FROM order_command k
        WHERE k.order_id = top.order_id AND k.assignment_no = top.assignment_no
            AND k.to_state = top.state
        ORDER BY order_command_id LIMIT 1
    ) c ON true
    LEFT JOIN LATERAL (
        SELECT * FROM order_event k WHERE k.order_id = top.order_id
        ORDER BY order_seq DESC LIMIT 1
    ) e ON true
),
compared AS (
    SELECT 'assignment' AS part,
        jsonb_build_object('order_id', a.order_id, 'assignment_no', a.assignment_no) AS key,
        jsonb_build_object('driver_id', r.driver_id, 'ended_at', r.ended_at,
            'ended_by', r.ended_by, 'at_restaurant_at', r.at_restaurant_at,
            'left_restaurant_at', r.left_restaurant_at, 'picked_up_at', r.picked_up_at,
            'arriving_at', r.arriving_at, 'at_customer_at', r.at_customer_at) AS expected,
        jsonb_build_object('driver_id', a.driver_id, 'ended_at', a.ended_at,
            'ended_by', a.ended_by, 'at_restaurant_at', a.at_restaurant_at,
            'left_restaurant_at', a.left_restaurant_at, 'picked_up_at', a.picked_up_at,
            'arriving_at', a.arriving_at, 'at_customer_at', a.at_customer_at) AS actual
    FROM rebuilt r JOIN assignment a USING (order_id, assignment_no)
    UNION ALL
    SELECT 'evidence',
        jsonb_build_object('order_id', order_id, 'assignment_no', assignment_no, 'state', state),
        CASE WHEN f.occurred_at IS NOT NULL
            THEN jsonb_build_object('occurred_at', f.occurred_at) END,
        CASE WHEN e.occurred_at IS NOT NULL
            THEN jsonb_build_object('occurred_at', e.occurred_at) END
    FROM fact f
    FULL JOIN (
        SELECT * FROM evidence WHERE order_id = ANY (%(order_ids)s) AND source = 'gps'
    ) e USING (order_id, assignment_no, state)
    UNION ALL
    SELECT 'order', jsonb_build_object('order_id', o.order_id),
        jsonb_build_object('state', v.state, 'assignment_no', v.assignment_no,
            'state_source', v.source,
            'state_at', CASE
                WHEN v.source = 'gps' THEN v.proved_at
                ELSE coalesce(v.commanded_at, v.shown_at)
            END,
            'order_seq', v.order_seq + (NOT v.is_shown)::int,
            'ended_at', CASE WHEN v.state IN ('delivered', 'cancelled', 'failed')
                THEN v.commanded_at END),
        jsonb_build_object('state', o.state, 'assignment_no', o.assignment_no,
            'state_source', o.state_source, 'state_at', o.state_at, 'order_seq', o.order_seq,
            'ended_at', o.ended_at)
    FROM visible v JOIN orders o USING (order_id)
)
SELECT part, key, expected, actual FROM compared
WHERE expected IS DISTINCT FROM actual ORDER BY part, key::text


-- Drivers ---------------------------------------------------------------------------------

-- compare_drivers --
-- `orders` and `windows`: the differences that compare_orders found.
WITH requested AS (
    SELECT * FROM driver_state WHERE driver_id = ANY (%(driver_ids)s)
),
duty AS (
    SELECT DISTINCT ON (driver_id) driver_id, command::text AS duty FROM driver_command
    WHERE driver_id = ANY (%(driver_ids)s) ORDER BY driver_id, driver_command_id DESC
),
other_window AS (
    SELECT * FROM jsonb_to_recordset(%(windows)s)
        AS w (order_id uuid, assignment_no int, driver_id text, ended_at timestamptz)
),
open_order AS (
    SELECT DISTINCT ON (w.driver_id) w.driver_id, w.order_id, coalesce(x.state, o.state) AS state
    FROM (
        SELECT driver_id, order_id, stop_no FROM assignment a
        WHERE a.driver_id = ANY (%(driver_ids)s) AND a.ended_at IS NULL AND NOT EXISTS (
            SELECT FROM other_window k
            WHERE k.order_id = a.order_id AND k.assignment_no = a.assignment_no
        )
        UNION ALL
        SELECT k.driver_id, k.order_id, a.stop_no FROM other_window k
        JOIN assignment a USING (order_id, assignment_no)
        WHERE k.driver_id = ANY (%(driver_ids)s) AND k.ended_at IS NULL
    ) w
    JOIN orders o USING (order_id)
    LEFT JOIN jsonb_to_recordset(%(orders)s) AS x (order_id uuid, state order_state)
        USING (order_id)
    ORDER BY w.driver_id, w.stop_no
),
newest AS (
    SELECT h.* FROM requested d
    CROSS JOIN LATERAL (
        SELECT * FROM fix_history k
        WHERE k.driver_id = d.driver_id AND k.quarantine IS NULL
        ORDER BY k.fix_at DESC, k.boot DESC, k.seq DESC LIMIT 1
    ) h
),
in_history AS (
    SELECT driver_id, boot, range_agg(int8range(seq, seq, '[]')) AS seqs FROM fix_history
    WHERE driver_id = ANY (%(driver_ids)s) AND boot <> ''
    GROUP BY driver_id, boot
),
boot AS (
    SELECT driver_id, boot, b.stored, b.rejected,
        -- sealed fixes may be deleted from the history, but their seqs stay stored
        coalesce(h.seqs, '{}')
            + CASE WHEN s.sealed_before > '-infinity' THEN coalesce(b.stored, '{}') ELSE '{}' END
            AS seqs
    FROM (SELECT * FROM driver_boot WHERE driver_id = ANY (%(driver_ids)s)) b
    FULL JOIN in_history h USING (driver_id, boot)
    CROSS JOIN history_bounds s
),
compared AS (
    SELECT 'driver' AS part, jsonb_build_object('driver_id', d.driver_id) AS key,
        jsonb_build_object('duty', coalesce(k.duty, 'off_duty'), 'order_id', o.order_id,
            'state', CASE
                WHEN o.state = 'assigned' THEN 'to_restaurant'
                WHEN o.state = 'at_restaurant' THEN 'at_restaurant'
                WHEN o.state IN ('picked_up', 'arriving') THEN 'to_customer'
                WHEN o.state = 'at_customer' THEN 'at_customer'
                WHEN k.duty = 'on_duty' THEN 'available'
                ELSE coalesce(k.duty, 'off_duty')
            END) AS expected,
        jsonb_build_object('duty', d.duty, 'order_id', d.order_id, 'state', d.state) AS actual
    FROM requested d
    LEFT JOIN duty k USING (driver_id)
    LEFT JOIN open_order o USING (driver_id)
    UNION ALL
    SELECT 'position', jsonb_build_object('driver_id', d.driver_id),
        jsonb_build_object('fix_at', n.fix_at, 'received_at', n.received_at, 'boot', n.boot,
            'seq', n.seq, 'lon_deg', n.lon_deg, 'lat_deg', n.lat_deg,
            'accuracy_m', n.accuracy_m, 'speed_mps', n.speed_mps, 'heading_deg', n.heading_deg,
            'altitude_m', n.altitude_m, 'battery', n.battery,
            'place', CASE WHEN n.fix_at IS NOT NULL
                THEN jsonb_build_array(n.lon_deg, n.lat_deg) END,
            'cell', cell_of(n.lon_deg, n.lat_deg), 'found_in', cell_of(n.lon_deg, n.lat_deg)),
        jsonb_build_object('fix_at', d.fix_at, 'received_at', d.received_at, 'boot', d.boot,
            'seq', d.seq, 'lon_deg', d.lon_deg, 'lat_deg', d.lat_deg,
            'accuracy_m', d.accuracy_m, 'speed_mps', d.speed_mps, 'heading_deg', d.heading_deg,
            'altitude_m', d.altitude_m, 'battery', d.battery,
            'place', CASE WHEN d.geom IS NOT NULL
                THEN jsonb_build_array(ST_X(d.geom), ST_Y(d.geom)) END,
            'cell', d.cell, 'found_in', c.cell)
    FROM requested d
    CROSS JOIN history_bounds s
    LEFT JOIN newest n USING (driver_id)
    LEFT JOIN driver_cell c USING (driver_id)
    WHERE n.fix_at IS NOT NULL OR d.fix_at IS NULL OR d.fix_at >= s.sealed_before
    UNION ALL
    SELECT 'boot', jsonb_build_object('driver_id', driver_id, 'boot', boot),
        jsonb_build_object('stored', seqs::text,
            'rejected', (coalesce(rejected, '{}') - seqs)::text),
        CASE WHEN stored IS NOT NULL
            THEN jsonb_build_object('stored', stored::text, 'rejected', rejected::text) END
    FROM boot
)
SELECT part, key, expected, actual FROM compared
WHERE expected IS DISTINCT FROM actual ORDER BY part, key::text


-- Repairing, row by row -------------------------------------------------------------------

-- disable_transition_guard --
ALTER TABLE orders DISABLE TRIGGER _100_guard_transition

-- enable_transition_guard --
ALTER TABLE orders ENABLE TRIGGER _100_guard_transition

-- lock_orders --
SELECT FROM driver_state d
WHERE d.driver_id IN (SELECT driver_id FROM assignment WHERE order_id = ANY (%(order_ids)s))
ORDER BY d.driver_id FOR NO KEY UPDATE

-- lock_drivers --
SELECT FROM driver_state WHERE driver_id = ANY (%(driver_ids)s)
ORDER BY driver_id FOR NO KEY UPDATE

-- repair_assignment --
UPDATE assignment t SET driver_id = e.driver_id, ended_at = e.ended_at, ended_by = e.ended_by,
    at_restaurant_at = e.at_restaurant_at, left_restaurant_at = e.left_restaurant_at,
    picked_up_at = e.picked_up_at, arriving_at = e.arriving_at, at_customer_at = e.at_customer_at
FROM jsonb_populate_record(NULL::assignment, %(expected)s) e,
    jsonb_populate_record(NULL::assignment, %(key)s) k
WHERE t.order_id = k.order_id AND t.assignment_no = k.assignment_no

-- repair_evidence --
INSERT INTO evidence (order_id, assignment_no, state, occurred_at)
SELECT k.order_id, k.assignment_no, k.state, e.occurred_at
FROM jsonb_populate_record(NULL::evidence, %(expected)s) e,
    jsonb_populate_record(NULL::evidence, %(key)s) k
ON CONFLICT (order_id, assignment_no, state, source) DO UPDATE
    SET occurred_at = EXCLUDED.occurred_at

-- delete_evidence --
DELETE FROM evidence t USING jsonb_populate_record(NULL::evidence, %(key)s) k
WHERE t.order_id = k.order_id AND t.assignment_no = k.assignment_no AND t.state = k.state
    AND t.source = 'gps'

-- repair_order --
UPDATE orders t SET state = e.state, assignment_no = e.assignment_no,
    state_source = e.state_source, state_at = e.state_at, order_seq = e.order_seq,
    ended_at = e.ended_at
FROM jsonb_populate_record(NULL::orders, %(expected)s) e,
    jsonb_populate_record(NULL::orders, %(key)s) k
WHERE t.order_id = k.order_id

-- repair_driver --
UPDATE driver_state t SET duty = e.duty, state = e.state, order_id = e.order_id
FROM jsonb_populate_record(NULL::driver_state, %(expected)s) e,
    jsonb_populate_record(NULL::driver_state, %(key)s) k
WHERE t.driver_id = k.driver_id

-- repair_position --
-- The prefix in driver_state is that of the boot before the repair.
WITH released AS (
    INSERT INTO boot_seqs AS b (driver_id, boot, settled_to, newest_seq)
    SELECT d.driver_id, d.boot, d.settled_to, d.settled_to
    FROM driver_state d, jsonb_populate_record(NULL::driver_state, %(key)s) k
    WHERE d.driver_id = k.driver_id AND d.settled_to IS NOT NULL
    ON CONFLICT (driver_id, boot) DO UPDATE SET settled_to = EXCLUDED.settled_to,
        newest_seq = EXCLUDED.newest_seq, settled_at = EXCLUDED.settled_at
        WHERE b.newest_seq <= EXCLUDED.newest_seq
)
UPDATE driver_state t SET fix_at = e.fix_at, received_at = e.received_at, boot = e.boot,
    seq = e.seq, lon_deg = e.lon_deg, lat_deg = e.lat_deg, accuracy_m = e.accuracy_m,
    speed_mps = e.speed_mps, heading_deg = e.heading_deg, altitude_m = e.altitude_m,
    battery = e.battery, cell = e.cell, settled_to = NULL,
    geom = ST_SetSRID(ST_MakePoint(e.lon_deg, e.lat_deg), 4326)
FROM jsonb_populate_record(NULL::driver_state, %(expected)s) e,
    jsonb_populate_record(NULL::driver_state, %(key)s) k
WHERE t.driver_id = k.driver_id

-- repair_cell --
WITH repaired AS (
    SELECT k.driver_id, e.cell
    FROM jsonb_populate_record(NULL::driver_state, %(expected)s) e,
        jsonb_populate_record(NULL::driver_state, %(key)s) k
),
deleted AS (
    DELETE FROM driver_cell c USING repaired m WHERE c.driver_id = m.driver_id AND m.cell IS NULL
)
INSERT INTO driver_cell (driver_id, cell)
SELECT driver_id, cell FROM repaired WHERE cell IS NOT NULL
ON CONFLICT (driver_id) DO UPDATE SET cell = EXCLUDED.cell

-- repair_boot --
SELECT boot_seqs__replace(k.driver_id, k.boot, e.stored, e.rejected)
FROM jsonb_populate_record(NULL::driver_boot, %(expected)s) e,
    jsonb_populate_record(NULL::driver_boot, %(key)s) k
