-- The ranges within seqs 1 to last_seq of each boot that are neither stored nor rejected.
SELECT
    p.place,
    lower(gap) AS first_seq,
    upper(gap) - 1 AS last_seq
FROM unnest(%(driver_ids)s::text[], %(boots)s::text[], %(last_seqs)s::int8[])
    WITH ORDINALITY AS p (driver_id, boot, last_seq, place)
LEFT JOIN doorstep.driver_boot AS b ON b.driver_id = p.driver_id AND b.boot = p.boot
CROSS JOIN LATERAL unnest(
    int8multirange(int8range(1, p.last_seq, '[]')) - coalesce(b.stored + b.rejected, '{}')
) AS gap
WHERE p.last_seq > 0
ORDER BY p.place, lower(gap)
