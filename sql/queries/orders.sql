-- What tracking_api reads of orders. Parameters are psycopg's %(name)s.


-- read_order --
SELECT order_id, state::text, assignment_no, driver_id, order_seq, restaurant_id, lon_deg, lat_deg,
    customer_name, policy_id, created_at, assigned_at, ended_at,
    details || order_ends_v1(order_id) || jsonb_build_object('assignments', (
        SELECT coalesce(jsonb_agg(jsonb_build_object(
            'driver_id', a.driver_id, 'assigned_at', a.assigned_at, 'ended_at', a.ended_at,
            'ended_by', a.ended_by) ORDER BY a.assignment_no), '[]')
        FROM assignment a WHERE a.order_id = o.order_id
    ))
FROM order_with_details o
WHERE order_id = %(order_id)s

-- end_order --
SELECT order_id, state::text, assignment_no, driver_id, order_seq, restaurant_id, lon_deg, lat_deg,
    customer_name, policy_id, created_at, assigned_at, ended_at
FROM end_order_as_staff_v1(%(order_id)s, %(command)s, %(name)s, %(note)s::text,
    %(idempotency_key)s::text)
WHERE commit__confirm_v1()

-- fail_order --
SELECT order_id, state::text, assignment_no, driver_id, order_seq, restaurant_id, lon_deg, lat_deg,
    customer_name, policy_id, created_at, assigned_at, ended_at, retry_order_id, is_new,
    retry_promised_from, retry_promised_to
FROM fail_order_as_staff_v3(%(order_id)s, %(name)s, %(reason)s, %(note)s::text,
    %(next_step)s::text, %(token_sha256)s, %(idempotency_key)s::text)
WHERE commit__confirm_v1()

-- read_photo --
SELECT media_type, content FROM order_photo_v1(%(order_id)s)

-- end_return --
SELECT order_id, driver_id, started_at, ended_at FROM end_return_as_staff_v1(%(order_id)s, %(name)s)
WHERE commit__confirm_v1()

-- read_open_returns --
SELECT r.order_id, r.driver_id, r.started_at, r.restaurant_id, r.restaurant_name,
    coalesce(s.state::text, 'off_duty')
FROM open_returns_v1(%(limit)s) r
LEFT JOIN LATERAL (
    SELECT t.state FROM driver_state t WHERE t.driver_id = r.driver_id OFFSET 0
) s ON true
ORDER BY r.started_at, r.order_id
