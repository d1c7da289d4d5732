-- What tracking_api reads of the past. Parameters are psycopg's %(name)s.


-- read_order_history --
-- For staff: the current assignment's fixes, oldest first. No row: no such order. One row without a
-- fix: nothing to show.
SELECT f.fix_at, f.received_at, f.lon_deg, f.lat_deg, f.accuracy_m, f.speed_mps, f.heading_deg
FROM orders o
LEFT JOIN assignment a ON a.order_id = o.order_id AND a.assignment_no = o.assignment_no
LEFT JOIN LATERAL (
    SELECT h.*
    FROM fix_history__between_v1(a.driver_id, greatest(a.assigned_at, %(from_at)s::timestamptz),
        least(a.ended_at, %(to_at)s::timestamptz, 'infinity')) h
    WHERE h.quarantine IS NULL
    ORDER BY h.fix_at, h.boot, h.seq
    LIMIT %(limit)s
) AS f ON true
WHERE o.order_id = %(order_id)s
ORDER BY f.fix_at, f.boot, f.seq

-- read_driver_history --
-- Fixes that are not packed, and chunks as they are stored: the API decodes those in a tenth of the
-- time. One statement, so that one snapshot reads both tables, as fix_history__between_v1 does.
(
    SELECT h.fix_at, h.received_at, h.lon_deg, h.lat_deg, h.accuracy_m, h.speed_mps, h.heading_deg,
        h.boot, h.seq, NULL::int[], NULL::int8[], NULL::bytea
    FROM fix_history h
    WHERE h.driver_id = %(driver_id)s AND h.fix_at >= %(from_at)s AND h.fix_at < %(to_at)s
        AND h.fix_at >= (SELECT s.packed_before FROM history_bounds s)
        AND h.quarantine IS NULL
        AND (h.fix_at, h.boot, h.seq) > (%(after_fix_at)s, %(after_boot)s, %(after_seq)s::int8)
    ORDER BY h.fix_at, h.boot, h.seq
    LIMIT %(limit)s
)
UNION ALL
SELECT c.from_at, NULL, NULL, NULL, NULL, NULL, NULL, c.boot, c.track_bytes, c.run_starts,
    c.run_seqs, c.encoded
FROM fix_chunk c
WHERE c.driver_id = %(driver_id)s
    -- no chunk spans more than a day
    AND c.from_at > %(from_at)s::timestamptz - interval '24 hours'
    AND c.from_at < %(to_at)s AND c.to_at >= %(from_at)s
    AND c.to_at < (SELECT s.packed_before FROM history_bounds s)
    AND c.quarantine IS NULL

-- driver_exists --
SELECT EXISTS (SELECT FROM driver WHERE driver_id = %(driver_id)s)

-- read_drivers_in_box --
SELECT driver_id
FROM driver_state
WHERE is_in_box(lon_deg, lat_deg, %(west)s, %(south)s, %(east)s, %(north)s)
ORDER BY driver_id
LIMIT %(limit)s

-- read_fleet_history --
SELECT driver_id, fix_at, lon_deg, lat_deg
FROM fleet_history_v1(%(driver_ids)s::text[], %(from_at)s, %(to_at)s, %(step_s)s)
