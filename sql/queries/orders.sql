-- What tracking_api reads of orders. Parameters are psycopg's %(name)s.


-- read_order --
SELECT order_id, state::text, assignment_no, driver_id, order_seq, restaurant_id, lon_deg, lat_deg,
    customer_name, policy_id, created_at, assigned_at, ended_at,
    details || jsonb_build_object('assignments', (
        SELECT coalesce(jsonb_agg(jsonb_build_object(
            'driver_id', a.driver_id, 'assigned_at', a.assigned_at, 'ended_at', a.ended_at,
            'ended_by', a.ended_by) ORDER BY a.assignment_no), '[]')
        FROM assignment a WHERE a.order_id = o.order_id
    ))
FROM order_with_details o
WHERE order_id = %(order_id)s
