-- One fix in the history.
SELECT fix_at, received_at, recorded_at, lon_deg, lat_deg, quarantine
FROM doorstep.fix_history
WHERE driver_id = %(driver_id)s AND boot = %(boot)s AND seq = %(seq)s
