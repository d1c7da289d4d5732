-- Since when copies of one fix wait for their driver's or order's row.
SELECT min(parked_at)
FROM doorstep.parked_fix
WHERE driver_id = %(driver_id)s AND boot = %(boot)s AND seq = %(seq)s
