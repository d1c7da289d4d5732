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
SELECT fix_at, received_at, lon_deg, lat_deg, accuracy_m, speed_mps, heading_deg, boot, seq
FROM fix_history__between_v1(%(driver_id)s, %(from_at)s, %(to_at)s)
WHERE quarantine IS NULL
    AND (fix_at, boot, seq) > (%(after_fix_at)s, %(after_boot)s, %(after_seq)s::int8)
ORDER BY fix_at, boot, seq
LIMIT %(limit)s

-- driver_exists --
SELECT EXISTS (SELECT FROM driver WHERE driver_id = %(driver_id)s)

-- read_drivers_in_box --
SELECT driver_id
FROM driver_state
WHERE lon_deg BETWEEN %(west)s AND %(east)s AND lat_deg BETWEEN %(south)s AND %(north)s
ORDER BY driver_id
LIMIT %(limit)s

-- read_fleet_history --
SELECT driver_id, fix_at, lon_deg, lat_deg
FROM fleet_history_v1(%(driver_ids)s::text[], %(from_at)s, %(to_at)s, %(step_s)s)
