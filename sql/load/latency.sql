-- A histogram of the time from due to commit, per second in which the fix was due, in buckets of 2
-- per cent. Counts the newest fix of each message only: the others wait for it by design. The
-- commit time is PostgreSQL's own (track_commit_timestamp).
SELECT
    floor(f.due_s)::int8 AS second,
    floor(ln(greatest(f.latency_ms, 0.01)) * 50)::int AS bucket,
    count(*) AS fixes
FROM (
    SELECT
        extract(epoch FROM h.fix_at)::float8 AS due_s,
        extract(epoch FROM pg_xact_commit_timestamp(h.xmin) - h.fix_at)::float8 * 1000
            AS latency_ms
    FROM doorstep.fix_history AS h
    WHERE h.fix_at >= %(since)s AND h.fix_at < %(until)s AND h.seq %% %(per_message)s = 0
        AND h.boot LIKE %(boots)s
) AS f
GROUP BY floor(f.due_s), floor(ln(greatest(f.latency_ms, 0.01)) * 50)
