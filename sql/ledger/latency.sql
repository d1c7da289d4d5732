-- Percentiles of the time from fix_at to recorded_at, ms, for fixes recorded at or after an
-- instant.
SELECT
    percentile_disc(ARRAY[0.5, 0.95, 0.99])
    WITHIN GROUP (ORDER BY extract(epoch FROM recorded_at - fix_at) * 1000)
FROM doorstep.fix_history
WHERE driver_id = ANY (%(driver_ids)s) AND recorded_at >= %(since)s AND fix_at >= %(since)s
