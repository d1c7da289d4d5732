-- What the database says it has of each boot, and what its history really holds.
SELECT
    b.driver_id,
    b.boot,
    b.stored,
    b.rejected,
    coalesce(h.seqs, '{}') AS in_history,
    coalesce(h.rows, 0) AS history_rows
FROM doorstep.driver_boot AS b
LEFT JOIN (
    SELECT
        driver_id,
        boot,
        count(*) AS rows,
        range_agg(int8range(seq, seq, '[]')) AS seqs
    FROM doorstep.fix_history
    WHERE driver_id = ANY(%(driver_ids)s)
    GROUP BY driver_id, boot
) AS h ON h.driver_id = b.driver_id AND h.boot = b.boot
WHERE b.driver_id = ANY(%(driver_ids)s)
