-- Watermarks without gaps and notices of orders cost less.

SET LOCAL search_path = doorstep, public;

CREATE OR REPLACE FUNCTION read_watermarks_v2(driver_ids text[], boots text[])
RETURNS TABLE (driver_id text, boot text, seq int8, missing jsonb, hold_s int, held int8)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    SELECT requested.driver_id, requested.boot, coalesce(g.seq, s.settled_to, 0),
        coalesce(g.missing, '[]'),
        -- as long as half of the quota takes for what is parked; 1 h at most, then it is said again
        CASE WHEN q.parked > 0
            THEN least(3600, greatest(60, ceil(2 * q.parked / l.quota_per_s)))::int END,
        coalesce(s.held, 0)
    FROM unnest(driver_ids, boots) AS requested (driver_id, boot)
    CROSS JOIN limits l
    LEFT JOIN boot_prefix s ON s.driver_id = requested.driver_id AND s.boot = requested.boot
    LEFT JOIN driver_quota q ON q.driver_id = requested.driver_id
    LEFT JOIN LATERAL (  -- OFFSET 0: otherwise it is called for boots without gaps too
        SELECT * FROM boot_seqs__gaps(s.driver_id, s.boot, s.settled_to)
        WHERE s.settled_to < s.newest_seq OFFSET 0
    ) g ON true
    WHERE s.newest_seq > 0 OR q.parked > 0
$$;

DROP TRIGGER _510_derive_driver_state ON orders;

CREATE OR REPLACE FUNCTION orders__derive_driver_state()
RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    affected_drivers text[];
BEGIN
    SELECT array_agg(DISTINCT a.driver_id) INTO affected_drivers
    FROM new_orders n
    JOIN assignment a ON a.order_id = n.order_id AND a.assignment_no >= n.assignment_no - 1
    WHERE ((n.order_id, n.assignment_no, n.state)
        IN (SELECT order_id, assignment_no, state FROM old_orders)) IS NOT TRUE;  -- never a join
    IF affected_drivers IS NOT NULL THEN
        PERFORM driver_state__derive(affected_drivers);
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER _510_derive_driver_state
AFTER UPDATE ON orders REFERENCING NEW TABLE AS new_orders OLD TABLE AS old_orders
FOR EACH STATEMENT EXECUTE FUNCTION orders__derive_driver_state();
