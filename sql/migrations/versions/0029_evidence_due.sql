-- Pairs of fixes dated in the future count when each is past, no longer when the newest of their
-- batch is.

-- The instant of a driver's first stored fix from one instant to another, or the latter.
CREATE FUNCTION fix_history__first_at(of_driver_id text, since timestamptz, until timestamptz)
RETURNS timestamptz LANGUAGE sql STABLE
AS $$
    SELECT coalesce(min(h.fix_at), until) FROM fix_history h
    WHERE h.driver_id = of_driver_id AND h.fix_at >= since AND h.fix_at < until
$$;

CREATE OR REPLACE FUNCTION evidence__defer(of_orders uuid[], of_assignment_nos int[])
RETURNS void LANGUAGE plpgsql
SET enable_hashjoin = off  -- every join is a look-up by key
SET enable_mergejoin = off
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    present CONSTANT timestamptz := evidence__counts_before();
BEGIN
    INSERT INTO evidence_due AS e (order_id, assignment_no, due_at, until_at)
    SELECT DISTINCT a.order_id, a.assignment_no,
        fix_history__first_at(d.driver_id, present, d.fix_at), d.fix_at
    FROM unnest(of_orders, of_assignment_nos) AS k (order_id, assignment_no)
    JOIN assignment a ON a.order_id = k.order_id AND a.assignment_no = k.assignment_no
    JOIN driver_state d ON d.driver_id = a.driver_id
    WHERE a.stop_no = 1 AND a.picked_up_at IS NOT NULL AND d.fix_at >= present
    ON CONFLICT (order_id, assignment_no) DO UPDATE
        SET due_at = least(e.due_at, EXCLUDED.due_at),
            until_at = greatest(e.until_at, EXCLUDED.until_at);
END
$$;

CREATE OR REPLACE FUNCTION evidence__settle_v1(at_most int)
RETURNS int LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
SET enable_hashjoin = off  -- every join is a look-up by key
SET enable_mergejoin = off
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    due_before timestamptz;
    of_driver_id text;
    due_orders uuid[];
    due_nos int[];
    settled_count int := 0;
BEGIN
    FOR of_driver_id IN
        SELECT DISTINCT k.driver_id FROM (
            SELECT a.driver_id FROM evidence_due e
            JOIN assignment a ON a.order_id = e.order_id AND a.assignment_no = e.assignment_no
            WHERE e.due_at < evidence__counts_before() ORDER BY e.due_at LIMIT at_most
        ) k
    LOOP
        PERFORM FROM driver_state d WHERE d.driver_id = of_driver_id
            FOR NO KEY UPDATE SKIP LOCKED;
        CONTINUE WHEN NOT FOUND;
        due_before := evidence__counts_before();
        SELECT array_agg(a.order_id ORDER BY a.order_id),
                array_agg(a.assignment_no ORDER BY a.order_id)
            INTO due_orders, due_nos
            FROM assignment a
            JOIN evidence_due e ON e.order_id = a.order_id AND e.assignment_no = a.assignment_no
            WHERE a.driver_id = of_driver_id AND a.ended_at IS NULL AND e.due_at < due_before;
        CONTINUE WHEN due_orders IS NULL;
        DELETE FROM evidence_due e
            WHERE e.order_id = ANY (due_orders) AND e.until_at < due_before;
        UPDATE evidence_due e
            SET due_at = fix_history__first_at(of_driver_id, due_before, e.until_at)
            WHERE e.order_id = ANY (due_orders) AND e.due_at < due_before;
        PERFORM FROM orders o WHERE o.order_id = ANY (due_orders)
            ORDER BY o.order_id FOR NO KEY UPDATE;
        PERFORM evidence__derive(due_orders, due_nos, false);
        PERFORM orders__apply_evidence(due_orders);
        settled_count := settled_count + 1;
    END LOOP;
    RETURN settled_count;
END
$$;

REVOKE EXECUTE ON FUNCTION fix_history__first_at FROM PUBLIC;
