-- The number of fixes committed per second.
SELECT
    floor(extract(epoch FROM pg_xact_commit_timestamp(h.xmin)))::int8 AS second,
    count(*) AS fixes
FROM doorstep.fix_history AS h
WHERE h.fix_at >= %(since)s AND h.fix_at < %(until)s
GROUP BY floor(extract(epoch FROM pg_xact_commit_timestamp(h.xmin)))
