-- Fixes that were taken off duty are dropped: docs/explanation/privacy.md.

-- Returns the numbers of incoming fixes that were taken off duty, outside of every assignment. The
-- rows of their drivers are locked, and a command gets a later instant than those before it: so
-- what is decided about an instant in the past stays.
CREATE FUNCTION incoming_fix__off_duty()
RETURNS int[] LANGUAGE sql STABLE
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
    SELECT array_agg(i.n)
    FROM (
        SELECT n, driver_id, least(fix_at, received_at) AS taken_at FROM pg_temp.incoming_fix
        WHERE reason IS NULL AND fix_at IS NOT NULL
    ) i
    JOIN driver_state d ON d.driver_id = i.driver_id AND i.taken_at < d.kept_from
    WHERE 'off_duty' = (
            SELECT c.command FROM driver_command c
            WHERE c.driver_id = i.driver_id AND c.commanded_at <= i.taken_at
            ORDER BY c.commanded_at DESC, c.driver_command_id DESC LIMIT 1
        )
        AND NOT EXISTS (
            SELECT FROM assignment a
            WHERE a.driver_id = i.driver_id AND coalesce(a.ended_at, 'infinity') > i.taken_at
                AND a.assigned_at <= i.taken_at
        )
$$;
