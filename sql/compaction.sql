-- Compaction of the history: `sql.query("pack", "compaction.sql")`.
-- sql/schema/46_history_compaction.sql describes each step.

-- set_timeout --
SET statement_timeout = '600s'

-- try_lock --
SELECT pg_try_advisory_lock(hashtextextended('doorstep.compact', 0)) AS is_locked

-- read_bounds --
SELECT nullif(s.sealed_before, '-infinity') AS sealed_before,
    nullif(s.packed_before, '-infinity') AS packed_before, l.history_days
FROM history_bounds s CROSS JOIN limits l

-- seal_limit --
SELECT reason, date_trunc('day', before, 'UTC') AS before
FROM fix_history__seal_limits_v1(%(unread_since)s) ORDER BY 2 LIMIT 1

-- unpacked_days --
SELECT day FROM fix_history__unpacked_days_v1(%(before)s) AS day

-- seal --
SELECT fix_history__seal_v1(%(before)s)::text AS since

-- writers_finished --
SELECT fix_history__writers_finished_v1(%(since)s::xid8) AS are_finished

-- pack --
SELECT last_driver_id, fixes, chunks
FROM fix_history__pack_v1(%(day)s, %(after)s, %(at_most)s)

-- switch --
SELECT fix_history__switch_v1(%(day)s) AS fixes

-- drop_packed --
SELECT fix_history__drop_packed_v1() AS partitions_left

-- drop_boots --
SELECT last_driver_id, last_boot, boots
FROM boot_seqs__drop_sealed_v1(%(after_driver)s, %(after_boot)s, %(at_most)s)

-- expire --
SELECT fix_chunk__expire_v1(%(at_most)s) AS fixes


-- Run by the owner ------------------------------------------------------------------------

-- set_history_days --
UPDATE limits SET history_days = %(days)s

-- count_day --
SELECT count(*) AS fixes FROM fix_history
WHERE fix_at >= %(day)s::date::timestamptz AND fix_at < (%(day)s::date + 1)::timestamptz

-- count_expired --
SELECT coalesce(sum(fix_count), 0)::int8 AS fixes FROM fix_chunk
WHERE from_at < date_trunc('day', now(), 'UTC') - make_interval(days => %(days)s)

-- size --
SELECT coalesce(sum(fix_count), 0)::int8 AS fixes, count(*) AS chunks,
    pg_total_relation_size('doorstep.fix_chunk') AS bytes
FROM fix_chunk
