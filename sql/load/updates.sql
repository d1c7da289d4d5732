-- The number of row updates, and of those that were HOT.
SELECT
    relname AS table_name,
    n_tup_upd AS updates,
    n_tup_hot_upd AS hot_updates
FROM pg_stat_user_tables
WHERE schemaname = 'doorstep' AND relname IN ('driver_state', 'boot_seqs')
