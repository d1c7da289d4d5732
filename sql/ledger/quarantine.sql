-- Quarantined seqs per driver, boot and reason.
SELECT
    driver_id,
    boot,
    quarantine AS reason,
    range_agg(int8range(seq, seq, '[]')) AS seqs
FROM doorstep.fix_history
WHERE driver_id = ANY(%(driver_ids)s) AND quarantine IS NOT NULL
GROUP BY driver_id, boot, quarantine
