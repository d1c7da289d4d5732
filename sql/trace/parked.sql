-- Since when a fix has been parked, waiting for its driver or order row.
SELECT min(parked_at)
FROM doorstep.parked_fix
WHERE driver_id = %(driver_id)s AND boot = %(boot)s AND seq = %(seq)s
