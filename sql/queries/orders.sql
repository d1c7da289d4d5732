-- What tracking_api reads of orders. Parameters are psycopg's %(name)s.


-- read_order --
SELECT order_id, state::text, assignment_no, driver_id, order_seq, restaurant_id, lon_deg, lat_deg,
    customer_name, policy_id, created_at, assigned_at, ended_at
FROM order_now
WHERE order_id = %(order_id)s
