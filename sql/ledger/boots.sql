-- The seqs recorded as stored and rejected per boot, and the seqs that the history holds, packed or
-- not.
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
        k.driver_id,
        k.boot,
        sum(k.rows)::int8 AS rows,
        range_agg(k.seqs) AS seqs
    FROM (
        SELECT
            f.driver_id,
            f.boot,
            count(*) AS rows,
            range_agg(int8range(f.seq, f.seq, '[]')) AS seqs
        FROM doorstep.fix_history AS f
        CROSS JOIN doorstep.history_bounds AS s
        WHERE f.driver_id = ANY (%(driver_ids)s) AND f.fix_at >= s.packed_before
        GROUP BY f.driver_id, f.boot
        UNION ALL
        SELECT
            c.driver_id,
            c.boot,
            c.fix_count AS rows,
            doorstep.fix_chunk__seqs(c.run_starts, c.run_seqs, c.fix_count) AS seqs
        FROM doorstep.fix_chunk AS c
        CROSS JOIN doorstep.history_bounds AS s
        WHERE c.driver_id = ANY (%(driver_ids)s) AND c.to_at < s.packed_before
    ) AS k
    GROUP BY k.driver_id, k.boot
) AS h ON h.driver_id = b.driver_id AND h.boot = b.boot
WHERE b.driver_id = ANY (%(driver_ids)s)
