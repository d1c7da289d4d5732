-- The boots of a driver and the status of one seq in each; the boot of the newest fix first.
-- Returns no row for an unknown driver, and a row of nulls for a driver without boots.
SELECT
    b.boot,
    coalesce(b.stored @> %(seq)s::int8, false) AS is_stored,
    coalesce(b.rejected @> %(seq)s::int8, false) AS is_rejected,
    upper(b.stored + b.rejected) - 1 AS newest_seq
FROM doorstep.driver_state AS d
LEFT JOIN doorstep.driver_boot AS b ON b.driver_id = d.driver_id
WHERE d.driver_id = %(driver_id)s
ORDER BY b.boot IS NOT DISTINCT FROM d.boot DESC, b.boot
LIMIT 1000
