-- An order's details are read without a call for its PIN, and for notices only if it has some.

SET LOCAL search_path = doorstep, public;
SET LOCAL check_function_bodies = off;  -- functions may refer to objects that are created later

-- What an answer holds of an order besides the position, as a JSON array in the order of
-- tracking_api's OrderDetails. Depends on the order's events alone, but for instants of events:
-- late fixes may move evidence to an earlier one.
CREATE OR REPLACE FUNCTION customer_order__details(of_order_id uuid)
RETURNS text LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    RETURN (
        SELECT json_build_array(o.state, o.assignment_no, o.order_seq, r.name, r.lon_deg, r.lat_deg,
            o.lon_deg, o.lat_deg, p.dwell_min_s, p.pace, a.assigned_at, (
                SELECT coalesce(json_agg(json_build_array(e.order_seq, e.state, e.source,
                    coalesce(g.occurred_at, e.occurred_at), e.assignment_no) ORDER BY e.order_seq
                ), '[]')
                FROM order_event e
                LEFT JOIN evidence g ON g.order_id = e.order_id
                    AND g.assignment_no = e.assignment_no AND g.state = e.state
                    AND g.source = e.source
                WHERE e.order_id = o.order_id
            ), r.city, CASE WHEN o.ended_at IS NULL THEN json_build_object('pin', (
                SELECT n.pin FROM order_pin n WHERE n.order_id = o.order_id
            )) ELSE customer_order__ends(o.order_id, true)::json END,
            json_build_object('created_at', o.created_at, 'preparation_s', r.preparation_s,
                'ready_at', d.ready_at, 'scheduled_for', d.scheduled_for),
            -- most orders have none, and a call costs as much as the rest
            CASE WHEN EXISTS (SELECT FROM order_notice n WHERE n.order_id = o.order_id)
                THEN order_notice__read_v1(o.order_id, o.assignment_no) END)
        FROM orders o
        JOIN restaurant r ON r.restaurant_id = o.restaurant_id
        JOIN policy p ON p.policy_id = o.policy_id
        LEFT JOIN order_detail d ON d.order_id = o.order_id
        LEFT JOIN assignment a ON a.order_id = o.order_id AND a.assignment_no = o.assignment_no
            AND upper_inf(a.visible)
        WHERE o.order_id = of_order_id
    );
END
$$;
