-- From when a fix was due to its commit, by the second in which it was due, in buckets of 2 per cent.
-- With several fixes in a message, of the newest only: the others have waited for it. The commit's
-- instant is PostgreSQL's own, which track_commit_timestamp keeps for every transaction.
SELECT
    floor(f.due_s)::int8 AS second,
    floor(ln(greatest(f.latency_ms, 0.01)) * 50)::int AS bucket,
    count(*) AS fixes
FROM (
    SELECT
        extract(EPOCH FROM h.fix_at)::float8 AS due_s,
        extract(EPOCH FROM pg_xact_commit_timestamp(h.xmin) - h.fix_at)::float8 * 1000
            AS latency_ms
    FROM doorstep.fix_history AS h
    WHERE h.fix_at >= %(since)s AND h.fix_at < %(until)s AND h.seq %% %(per_message)s = 0
) AS f
GROUP BY floor(f.due_s), floor(ln(greatest(f.latency_ms, 0.01)) * 50)
