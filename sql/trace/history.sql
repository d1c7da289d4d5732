-- One fix of the history, packed or not. Packed fixes have no recorded_at.
SELECT
    h.fix_at,
    h.received_at,
    h.recorded_at,
    h.lon_deg,
    h.lat_deg,
    h.quarantine
FROM doorstep.fix_history AS h
CROSS JOIN doorstep.history_bounds AS s
WHERE
    h.driver_id = %(driver_id)s
    AND h.boot = %(boot)s
    AND h.seq = %(seq)s
    AND h.fix_at >= s.packed_before
UNION ALL
SELECT
    u.fix_at,
    u.received_at,
    NULL AS recorded_at,
    u.lon_deg,
    u.lat_deg,
    u.quarantine
FROM doorstep.fix_chunk AS c
CROSS JOIN doorstep.history_bounds AS s
CROSS JOIN doorstep.fix_chunk__unpack(c) AS u
WHERE
    c.driver_id = %(driver_id)s
    AND c.boot = %(boot)s
    AND c.to_at < s.packed_before
    AND doorstep.fix_chunk__seqs(c.run_starts, c.run_seqs, c.fix_count) @> %(seq)s::int8
    AND u.seq = %(seq)s
