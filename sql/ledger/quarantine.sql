-- The quarantined seqs per driver, boot and reason.
SELECT
    k.driver_id,
    k.boot,
    k.reason,
    range_agg(k.seqs) AS seqs
FROM (
    SELECT
        f.driver_id,
        f.boot,
        f.quarantine AS reason,
        int8multirange(int8range(f.seq, f.seq, '[]')) AS seqs
    FROM doorstep.fix_history AS f
    WHERE f.driver_id = ANY (%(driver_ids)s) AND f.quarantine IS NOT NULL
    UNION ALL
    SELECT
        c.driver_id,
        c.boot,
        c.quarantine AS reason,
        doorstep.fix_chunk__seqs(c.run_starts, c.run_seqs, c.fix_count) AS seqs
    FROM doorstep.fix_chunk AS c
    WHERE c.driver_id = ANY (%(driver_ids)s) AND c.quarantine IS NOT NULL
) AS k
GROUP BY k.driver_id, k.boot, k.reason
