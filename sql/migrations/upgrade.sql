-- The queries of `python -m sql upgrade`: `sql.query("fingerprint", "migrations/upgrade.sql")`.

-- lock_upgrade --
SELECT pg_advisory_xact_lock(hashtextextended('doorstep.upgrade', 0))

-- has_schema --
SELECT to_regnamespace('doorstep') IS NOT NULL

-- set_search_path --
SET LOCAL search_path = doorstep, public

-- fingerprint --
-- One row per object that the code of the services relies on. Uses only catalog columns whose text
-- is the same in every version of PostgreSQL: no pg_get_functiondef, no expressions. Excludes
-- partitions, which depend on the day. The bodies of functions written as BEGIN ATOMIC or RETURN
-- are expressions, so only their signatures are included.
SELECT 'function' AS kind, p.proname::text AS name,
    concat_ws(E'\n',
        ARRAY(
            SELECT format_type(a.type, NULL)
            FROM unnest(coalesce(p.proallargtypes, p.proargtypes::oid[])) WITH ORDINALITY
                AS a (type, nth)
            ORDER BY a.nth
        ),
        p.proargnames, p.proargmodes, p.proretset, format_type(p.prorettype, NULL), p.prokind,
        p.provolatile, p.prosecdef, l.lanname,
        ARRAY(SELECT s.setting FROM unnest(p.proconfig) AS s (setting) ORDER BY s.setting
            COLLATE "C"),
        p.prosrc
    ) AS definition
FROM pg_proc p
JOIN pg_language l ON l.oid = p.prolang
WHERE p.pronamespace = 'doorstep'::regnamespace
UNION ALL
SELECT 'column', c.relname || '.' || a.attname,
    concat_ws(E'\n', c.relkind, format_type(a.atttypid, a.atttypmod), a.attnotnull)
FROM pg_class c
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = 'doorstep'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'c')
    AND NOT c.relispartition
UNION ALL
SELECT 'trigger', c.relname || '.' || t.tgname,
    concat_ws(E'\n', t.tgfoid::regproc, t.tgtype, t.tgoldtable, t.tgnewtable)
FROM pg_trigger t
JOIN pg_class c ON c.oid = t.tgrelid
WHERE c.relnamespace = 'doorstep'::regnamespace AND NOT c.relispartition AND NOT t.tgisinternal
UNION ALL
SELECT 'enum', t.typname::text, string_agg(e.enumlabel, E'\n' ORDER BY e.enumsortorder)
FROM pg_type t
JOIN pg_enum e ON e.enumtypid = t.oid
WHERE t.typnamespace = 'doorstep'::regnamespace
GROUP BY t.typname
