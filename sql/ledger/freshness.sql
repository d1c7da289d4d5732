-- How old the newest recorded position of the median driver is, s.
SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY extract(EPOCH FROM clock_timestamp() - fix_at))
FROM doorstep.driver_state
WHERE driver_id = ANY(%(driver_ids)s) AND fix_at >= %(since)s
