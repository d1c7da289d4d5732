-- The fixes of the bare chain that were due in a window: their number, the number committed within
-- the window, and percentiles of the time from due to commit, ms. Latency counts the newest fix of
-- each message only, of boots like `boots`: the others wait for it by design.
SELECT
    count(*),
    count(*) FILTER (WHERE committed_at >= %(since)s AND committed_at < %(until)s),
    percentile_disc(ARRAY[0.5, 0.95, 0.99, 1.0]) WITHIN GROUP (
        ORDER BY extract(epoch FROM committed_at - fix_at) * 1000
    ) FILTER (WHERE fix_at >= %(since)s AND seq %% %(per_message)s = 0 AND boot LIKE %(boots)s)
FROM (
    SELECT
        fix_at,
        seq,
        boot,
        pg_xact_commit_timestamp(xmin) AS committed_at
    FROM bare_fix
    WHERE fix_at >= %(began)s AND fix_at < %(until)s
) AS f
