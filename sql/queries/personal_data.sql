-- Keeping, exporting and erasing personal data: docs/how-to/personal-data.md.

-- allow_long_work --
SET statement_timeout = '600s';
SET lock_timeout = '60s';
SET idle_in_transaction_session_timeout = '600s'

-- begin_export --
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY

-- expire_personal_data --
SELECT retention__expire_v1(%(kind)s, %(at_most)s)

-- list_retention --
SELECT kind, days, least_days FROM retention
UNION ALL
SELECT 'history', history_days, 7 FROM limits
ORDER BY kind

-- keeps_off_duty --
SELECT keep_off_duty_positions FROM limits

-- set_retention --
SELECT retention__set_v1(%(kind)s, %(days)s, %(who)s)

-- set_keep_off_duty --
SELECT retention__keep_off_duty_v1(%(keep)s, %(who)s)

-- forget_driver --
SELECT table_name, what, row_count FROM forget_driver_v1(%(driver_id)s, %(who)s)

-- forget_order --
SELECT table_name, what, row_count FROM forget_order_v1(%(order_id)s, %(who)s)

-- has_driver --
SELECT EXISTS (SELECT FROM driver WHERE driver_id = %(id)s)

-- has_order --
SELECT EXISTS (SELECT FROM orders WHERE order_id = %(id)s)

-- tables_with_columns --
-- The tables with at least one of these columns, and which; not the partitions of the history.
SELECT c.relname, array_agg(a.attname::text ORDER BY a.attname)
FROM pg_class c
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = 'doorstep'::regnamespace AND c.relkind IN ('r', 'p')
    AND NOT c.relispartition AND a.attname = ANY (%(columns)s)
GROUP BY c.relname
ORDER BY c.relname

-- export_rows --
-- The condition is an OR of columns that equal the id.
SELECT (to_jsonb(t) - %(hidden)s::text[])::text FROM {table} t WHERE {condition}

-- export_packed_fixes --
SELECT to_jsonb(u)::text FROM fix_chunk c CROSS JOIN LATERAL fix_chunk__unpack(c) u
WHERE c.driver_id = %(id)s AND c.from_at < (SELECT packed_before FROM history_bounds)
ORDER BY c.from_at, u.fix_at

-- export_fixes --
SELECT to_jsonb(h)::text FROM fix_history h
WHERE h.driver_id = %(id)s AND h.fix_at >= (SELECT packed_before FROM history_bounds)
ORDER BY h.fix_at

-- export_points --
-- Of the series that the driver's device published.
SELECT (to_jsonb(p) || jsonb_build_object('name', s.name))::text
FROM series s JOIN series_point p USING (series_no)
WHERE s.source_id = %(id)s ORDER BY s.name, p.at

-- export_pickup --
-- The pickup place that was made for an order.
SELECT (to_jsonb(r) - 'geom')::text
FROM orders o JOIN restaurant r USING (restaurant_id)
WHERE o.order_id = %(id)s AND r.is_ad_hoc
