-- The jobs of driver_events that decide what an order's people are told besides its states, and
-- what needs a person.

-- Orders that are due a notice, by the database's clock.
-- late: the promised window has passed; or the courier carries the order, and would arrive after it
--   by a straight line, stretched, at a courier's usual speed (as tracking_api's estimate).
-- nearby: the courier carries the order and is within the policy's radius or minutes of the door.
-- Both use the position that the customer may see, and none while another stop comes first.
CREATE FUNCTION order_notice__due(at_most int)
RETURNS TABLE (order_id uuid, assignment_no int, kind notice_kind, occurred_at timestamptz)
LANGUAGE plpgsql STABLE
AS $$
#variable_conflict use_column
DECLARE
    at CONSTANT timestamptz := clock_timestamp();
    later CONSTANT timestamptz := at + interval '1 hour';
    way_factor CONSTANT float8 := 1.5 / 4.5;  -- street over straight, and m/s: seconds per metre
BEGIN
    RETURN QUERY
    WITH overdue AS MATERIALIZED (
        SELECT o.order_id, o.assignment_no, 'late'::notice_kind AS kind, d.promised_to
        FROM orders o JOIN order_detail d ON d.order_id = o.order_id
        WHERE o.ended_at IS NULL AND d.promised_to < at AND NOT EXISTS (
            SELECT FROM order_notice n WHERE n.order_id = o.order_id AND n.kind = 'late'
        )
        LIMIT at_most
    ),
    -- by the newest position, whether it may be shown or not: a look-up each, of many orders
    candidate AS MATERIALIZED (
        SELECT o.order_id, o.assignment_no, a.customer_lon_deg, a.customer_lat_deg,
            p.nearby_m, p.nearby_s, way_factor / p.pace AS s_per_m, d.promised_to
        FROM orders o
        JOIN assignment a ON a.order_id = o.order_id AND a.assignment_no = o.assignment_no
            AND a.ended_at IS NULL AND upper_inf(a.visible)
        JOIN driver_state s ON s.driver_id = a.driver_id AND s.fix_at >= a.assigned_at
        JOIN policy p ON p.policy_id = o.policy_id
        LEFT JOIN order_detail d ON d.order_id = o.order_id
        CROSS JOIN LATERAL (SELECT ground_distance_m(
            s.lon_deg, s.lat_deg, a.customer_lon_deg, a.customer_lat_deg)) AS g (metres)
        WHERE o.ended_at IS NULL AND o.state IN ('picked_up', 'arriving', 'at_customer')
            AND (
                (g.metres <= greatest(p.nearby_m, p.nearby_s * p.pace / way_factor)
                    AND NOT EXISTS (SELECT FROM order_notice n WHERE n.order_id = o.order_id
                        AND n.kind = 'nearby' AND n.assignment_no = o.assignment_no))
                OR (s.fix_at + make_interval(secs => g.metres * way_factor / p.pace)
                    > d.promised_to
                    AND NOT EXISTS (SELECT FROM order_notice n WHERE n.order_id = o.order_id
                        AND n.kind = 'late'))
            )
        LIMIT 20 * at_most  -- some may stay: their customers do not see the courier there
    ),
    seen AS MATERIALIZED (
        SELECT c.*, v AS view FROM candidate c
        CROSS JOIN LATERAL customer_view__of(c.order_id, c.assignment_no) v
    ),
    placed AS MATERIALIZED (
        SELECT c.*, p.fix_at, ground_distance_m(
            p.lon_deg, p.lat_deg, c.customer_lon_deg, c.customer_lat_deg) AS metres
        FROM seen c CROSS JOIN LATERAL customer_view__position(c.view, later) p
        WHERE p.fix_at > at - interval '5 min'
    )
    SELECT o.order_id, o.assignment_no, o.kind, o.promised_to FROM overdue o
    UNION ALL
    SELECT p.order_id, p.assignment_no, 'late'::notice_kind, at FROM placed p
    WHERE p.fix_at + make_interval(secs => p.metres * p.s_per_m) > p.promised_to
        AND at <= p.promised_to
    UNION ALL
    SELECT p.order_id, p.assignment_no, 'nearby'::notice_kind, p.fix_at FROM placed p
    WHERE p.metres <= p.nearby_m OR p.metres * p.s_per_m <= p.nearby_s;
END
$$;

-- Writes a notice, unless it was written, the order has ended, or the courier is another one or has
-- another stop first by now. Skips an order that a command or a batch of fixes holds.
CREATE FUNCTION order_notice__add(
    of_order_id uuid, of_assignment_no int, of_kind notice_kind, since timestamptz
)
RETURNS bool LANGUAGE plpgsql
AS $$
DECLARE
    o orders;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended(of_order_id::text, 1)) THEN
        RETURN false;
    END IF;
    SELECT * INTO o FROM orders k WHERE k.order_id = of_order_id AND k.ended_at IS NULL
        FOR NO KEY UPDATE SKIP LOCKED;
    IF NOT FOUND OR (of_kind = 'nearby' AND NOT EXISTS (
        SELECT FROM assignment a WHERE a.order_id = of_order_id
            AND a.assignment_no = of_assignment_no AND o.assignment_no = of_assignment_no
            AND a.ended_at IS NULL AND upper_inf(a.visible)
    )) OR EXISTS (
        SELECT FROM order_notice n WHERE n.order_id = of_order_id AND n.kind = of_kind
            AND (of_kind = 'late' OR n.assignment_no = of_assignment_no)
    ) THEN
        RETURN false;
    END IF;
    UPDATE orders k SET order_seq = k.order_seq + 1 WHERE k.order_id = of_order_id;
    INSERT INTO order_notice (order_id, order_seq, kind, assignment_no, state, occurred_at)
    VALUES (of_order_id, o.order_seq + 1, of_kind, o.assignment_no, o.state, since);
    RETURN true;
END
$$;

-- Decides which orders are late and which couriers are nearby. Returns the number of notices.
CREATE FUNCTION order_notice__decide_v1(at_most int)
RETURNS int LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
DECLARE
    due record;
    written_count int := 0;
BEGIN
    FOR due IN SELECT * FROM order_notice__due(at_most) LOOP
        written_count := written_count + order_notice__add(
            due.order_id, due.assignment_no, due.kind, due.occurred_at)::int;
    END LOOP;
    RETURN written_count;
END
$$;

-- What is wrong now.
CREATE FUNCTION alert__causes()
RETURNS TABLE (kind alert_kind, order_id uuid, driver_id text, webhook_id uuid)
LANGUAGE sql STABLE
AS $$
    SELECT 'late'::alert_kind, o.order_id, a.driver_id, NULL::uuid
    FROM orders o
    JOIN order_notice n ON n.order_id = o.order_id AND n.kind = 'late'
    LEFT JOIN assignment a ON a.order_id = o.order_id AND a.assignment_no = o.assignment_no
        AND a.ended_at IS NULL
    WHERE o.ended_at IS NULL
    UNION ALL
    SELECT 'lost', a.order_id, a.driver_id, NULL
    FROM assignment a
    JOIN driver_state s ON s.driver_id = a.driver_id
    CROSS JOIN limits l
    WHERE a.ended_at IS NULL
        AND greatest(s.received_at, a.assigned_at)
            < clock_timestamp() - make_interval(secs => l.lost_alert_s)
    UNION ALL
    SELECT 'unassigned', o.order_id, NULL, NULL
    FROM orders o
    LEFT JOIN order_detail d ON d.order_id = o.order_id
    CROSS JOIN limits l
    WHERE o.ended_at IS NULL AND o.state = 'confirmed'
        AND o.state_at < clock_timestamp() - make_interval(secs => l.unassigned_alert_s)
        -- an order for later is not looked for yet
        AND coalesce(d.scheduled_for, '-infinity') < clock_timestamp() + interval '1 hour'
    UNION ALL
    SELECT 'over_quota', NULL, q.driver_id, NULL FROM driver_quota q
    UNION ALL
    SELECT 'webhook_off', NULL, NULL, w.webhook_id FROM webhook w
    WHERE w.off_reason IN ('failing', 'gone')
$$;

-- Raises alerts, and resolves those whose cause has ended. Returns how many of both. One process at
-- a time.
CREATE FUNCTION alert__update_v1()
RETURNS int LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
DECLARE
    changed_count int;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('alert__update', 3)) THEN
        RETURN 0;
    END IF;
    WITH cause AS MATERIALIZED (SELECT * FROM alert__causes()),
    raised AS (
        INSERT INTO alert (kind, order_id, driver_id, webhook_id)
        SELECT c.kind, c.order_id, c.driver_id, c.webhook_id FROM cause c
        ON CONFLICT DO NOTHING
        RETURNING 1
    ),
    resolved AS (
        UPDATE alert a SET resolved_at = clock_timestamp()
        WHERE a.resolved_at IS NULL AND NOT EXISTS (
            SELECT FROM cause c
            WHERE (c.kind, coalesce(c.order_id::text, ''), coalesce(c.driver_id, ''),
                    coalesce(c.webhook_id::text, ''))
                = (a.kind, coalesce(a.order_id::text, ''), coalesce(a.driver_id, ''),
                    coalesce(a.webhook_id::text, ''))
        )
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM raised) + (SELECT count(*) FROM resolved) INTO changed_count;
    RETURN changed_count;
END
$$;

-- Repeating it keeps the first name. Raises DS070 for an unknown alert.
CREATE FUNCTION alert__acknowledge_v1(of_alert_id int8, by_who text)
RETURNS SETOF alert LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
DECLARE
    acknowledged alert;
BEGIN
    SELECT * INTO acknowledged FROM alert a WHERE a.alert_id = of_alert_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no alert %', of_alert_id USING ERRCODE = 'DS070';
    ELSIF acknowledged.acknowledged_at IS NULL THEN
        UPDATE alert a SET acknowledged_at = clock_timestamp(), acknowledged_by = by_who
            WHERE a.alert_id = of_alert_id RETURNING * INTO acknowledged;
        PERFORM record_audit_v1(by_who, 'alert.acknowledge', of_alert_id::text,
            jsonb_build_object('kind', acknowledged.kind));
    END IF;
    RETURN NEXT acknowledged;
END
$$;

-- Deletes up to at_most rows of a kind that are past their retention. For driver_events, and for
-- retention__expire_v1.
CREATE FUNCTION retention__expire_records(of_kind text, at_most int, as_of timestamptz)
RETURNS int8 LANGUAGE plpgsql
AS $$
DECLARE
    before CONSTANT timestamptz := retention__before(of_kind, as_of);
    expired_count int8;
BEGIN
    IF of_kind = 'deliveries' THEN
        DELETE FROM webhook_delivery d WHERE d.delivery_id = ANY (ARRAY(
            SELECT k.delivery_id FROM webhook_delivery k WHERE k.ended_at < before LIMIT at_most
        ));
    ELSE
        DELETE FROM alert a WHERE a.alert_id = ANY (ARRAY(
            SELECT k.alert_id FROM alert k WHERE k.resolved_at < before LIMIT at_most
        ));
    END IF;
    GET DIAGNOSTICS expired_count = ROW_COUNT;
    RETURN expired_count;
END
$$;
