-- From when a fix was due to its row in the history, ms; for what was recorded from an instant on.
SELECT
    percentile_disc(ARRAY[0.5, 0.95, 0.99])
    WITHIN GROUP (ORDER BY extract(EPOCH FROM recorded_at - fix_at) * 1000)
FROM doorstep.fix_history
WHERE driver_id = ANY(%(driver_ids)s) AND recorded_at >= %(since)s AND fix_at >= %(since)s
