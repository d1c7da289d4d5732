-- What the service roles may do, from the catalog: `sql.query("functions", "roles.sql")`. Grants to
-- PUBLIC and through memberships count. Partitions by day have the rights of their creation: none.


-- functions --
SELECT p.proname AS object, r.rolname AS role, '' AS rights
FROM pg_proc p CROSS JOIN pg_roles r
WHERE p.pronamespace = 'doorstep'::regnamespace AND r.rolname = ANY (%(roles)s)
    AND has_function_privilege(r.oid, p.oid, 'EXECUTE')
ORDER BY 1, 2

-- tables --
-- A right on some columns only is followed by them.
SELECT c.relname AS object, r.rolname AS role, string_agg(
    CASE WHEN has_table_privilege(r.oid, c.oid, v.privilege) THEN v.verb
        ELSE v.verb || ' ' || (
            SELECT string_agg(a.attname, ', ' ORDER BY a.attnum) FROM pg_attribute a
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                AND has_column_privilege(r.oid, c.oid, a.attnum, v.privilege)
        )
    END, ', ' ORDER BY v.n) AS rights
FROM pg_class c CROSS JOIN pg_roles r
CROSS JOIN (VALUES
    (1, 'SELECT', 'reads', true), (2, 'INSERT', 'inserts', true), (3, 'UPDATE', 'updates', true),
    (4, 'DELETE', 'deletes', false), (5, 'TRUNCATE', 'truncates', false),
    (6, 'REFERENCES', 'refers to', true), (7, 'TRIGGER', 'adds triggers', false)
) AS v (n, privilege, verb, is_per_column)
WHERE c.relnamespace = 'doorstep'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
    AND r.rolname = ANY (%(roles)s)
    AND CASE WHEN v.is_per_column THEN has_any_column_privilege(r.oid, c.oid, v.privilege)
        ELSE has_table_privilege(r.oid, c.oid, v.privilege) END
GROUP BY 1, 2
ORDER BY 1, 2

-- containers --
SELECT object, role, string_agg(verb, ', ' ORDER BY verb) AS rights
FROM (
    SELECT 'the database' AS object, r.rolname AS role, v.verb FROM pg_roles r
    CROSS JOIN (VALUES ('CONNECT', 'connects'), ('CREATE', 'creates schemas'),
        ('TEMPORARY', 'creates temporary tables')) AS v (privilege, verb)
    WHERE r.rolname = ANY (%(roles)s)
        AND has_database_privilege(r.oid, current_database(), v.privilege)
    UNION ALL
    SELECT 'schema ' || n.nspname, r.rolname, v.verb FROM pg_roles r
    CROSS JOIN pg_namespace n
    CROSS JOIN (VALUES ('USAGE', 'uses'), ('CREATE', 'creates')) AS v (privilege, verb)
    WHERE r.rolname = ANY (%(roles)s) AND n.nspname IN ('doorstep', 'public')
        AND has_schema_privilege(r.oid, n.oid, v.privilege)
    UNION ALL
    SELECT 'sequence ' || c.relname, r.rolname, lower(v.privilege) FROM pg_roles r
    CROSS JOIN pg_class c
    CROSS JOIN (VALUES ('USAGE'), ('SELECT'), ('UPDATE')) AS v (privilege)
    WHERE r.rolname = ANY (%(roles)s) AND c.relkind = 'S'
        AND c.relnamespace = 'doorstep'::regnamespace
        AND has_sequence_privilege(r.oid, c.oid, v.privilege)
    UNION ALL
    SELECT 'the cluster', r.rolname, v.verb FROM pg_roles r
    CROSS JOIN LATERAL (VALUES (r.rolsuper, 'is a superuser'), (r.rolcreaterole, 'creates roles'),
        (r.rolcreatedb, 'creates databases'), (r.rolbypassrls, 'bypasses row security'),
        (r.rolreplication, 'replicates')) AS v (has, verb)
    WHERE r.rolname = ANY (%(roles)s) AND v.has
    UNION ALL
    SELECT 'role ' || g.rolname, r.rolname, 'is a member' FROM pg_auth_members m
    JOIN pg_roles r ON r.oid = m.member JOIN pg_roles g ON g.oid = m.roleid
    WHERE r.rolname = ANY (%(roles)s)
) AS rights
GROUP BY 1, 2
ORDER BY 1, 2
