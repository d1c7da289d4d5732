-- What the database knows of some seqs, each of a driver and boot. `recorded_at` is null for one
-- that is not in the history.
SELECT
    asked.driver_id,
    asked.boot,
    asked.seq,
    coalesce(b.stored @> asked.seq, false) AS is_stored,
    coalesce(b.rejected @> asked.seq, false) AS is_rejected,
    EXISTS (
        SELECT FROM doorstep.parked_fix AS p
        WHERE p.driver_id = asked.driver_id AND p.boot = asked.boot AND p.seq = asked.seq
    ) AS is_parked,
    h.recorded_at
FROM unnest(%(driver_ids)s::text [], %(boots)s::text [], %(seqs)s::int8 [])
AS asked (driver_id, boot, seq)
LEFT JOIN doorstep.driver_boot AS b ON b.driver_id = asked.driver_id AND b.boot = asked.boot
LEFT JOIN doorstep.fix_history AS h
    ON h.driver_id = asked.driver_id AND h.boot = asked.boot AND h.seq = asked.seq
