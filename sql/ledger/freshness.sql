-- The median age of the newest position of each driver, s.
SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM clock_timestamp() - fix_at))
FROM doorstep.driver_state
WHERE driver_id = ANY (%(driver_ids)s) AND fix_at >= %(since)s
