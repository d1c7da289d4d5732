-- Packing the history: `sql.query("pack", "operate/compact.sql")`. What each step does stands in
-- sql/schema/46_history_at_rest.sql.

-- be_patient --
SET statement_timeout = '600s'

-- take_turn --
SELECT pg_try_advisory_lock(hashtextextended('doorstep.compact', 0)) AS is_ours

-- standing --
SELECT nullif(s.sealed_before, '-infinity') AS sealed_before,
    nullif(s.packed_before, '-infinity') AS packed_before, l.history_days
FROM sealed_before s CROSS JOIN limits l

-- may_seal --
SELECT reason, date_trunc('day', before, 'UTC') AS before
FROM fix_history__may_seal_v1(%(unread_since)s) ORDER BY 2 LIMIT 1

-- days --
SELECT day FROM fix_history__days_v1(%(before)s) AS day

-- seal --
SELECT fix_history__seal_v1(%(before)s)::text AS since

-- is_quiet --
SELECT fix_history__is_quiet_v1(%(since)s::xid8) AS is_quiet

-- pack --
SELECT last_driver_id, fixes, chunks
FROM fix_history__pack_v1(%(day)s, %(after)s, %(at_most)s)

-- switch --
SELECT fix_history__switch_v1(%(day)s) AS fixes

-- drop_packed --
SELECT fix_history__drop_packed_v1() AS still_there

-- expire --
SELECT fix_chunk__expire_v1(%(at_most)s) AS fixes


-- For the owner ----------------------------------------------------------------------------

-- keep_days --
UPDATE limits SET history_days = %(days)s

-- count_day --
SELECT count(*) AS fixes FROM fix_history
WHERE fix_at >= %(day)s::date::timestamptz AND fix_at < (%(day)s::date + 1)::timestamptz

-- count_past --
SELECT coalesce(sum(fixes), 0)::int8 AS fixes FROM fix_chunk
WHERE from_at < date_trunc('day', now(), 'UTC') - make_interval(days => %(days)s)

-- size --
SELECT coalesce(sum(fixes), 0)::int8 AS fixes, count(*) AS chunks,
    pg_total_relation_size('doorstep.fix_chunk') AS bytes
FROM fix_chunk
