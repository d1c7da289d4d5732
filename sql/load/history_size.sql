-- The size of fix_history on disk, including indexes, in bytes.
SELECT coalesce(sum(pg_total_relation_size(t.relid)), 0)::int8
FROM pg_partition_tree('doorstep.fix_history') AS t
WHERE t.isleaf
