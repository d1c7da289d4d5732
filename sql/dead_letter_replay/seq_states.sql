-- The status of seqs, each of a driver and boot. `recorded_at` is null for a seq that is not in the
-- history.
SELECT
    requested.driver_id,
    requested.boot,
    requested.seq,
    coalesce(b.stored @> requested.seq, false) AS is_stored,
    coalesce(b.rejected @> requested.seq, false) AS is_rejected,
    EXISTS (
        SELECT FROM doorstep.parked_fix AS p
        WHERE
            p.driver_id = requested.driver_id
            AND p.boot = requested.boot
            AND p.seq = requested.seq
    ) AS is_parked,
    h.recorded_at
FROM unnest(%(driver_ids)s::text[], %(boots)s::text[], %(seqs)s::int8[])
AS requested (driver_id, boot, seq)
LEFT JOIN doorstep.driver_boot AS b ON b.driver_id = requested.driver_id AND b.boot = requested.boot
LEFT JOIN doorstep.fix_history AS h
    ON h.driver_id = requested.driver_id AND h.boot = requested.boot AND h.seq = requested.seq
