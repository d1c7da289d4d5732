-- A restaurant's own orders, for its staff. Parameters are psycopg's %(name)s.


-- read_session --
SELECT name, restaurant_id, restaurant_name, city, time_zone, lon_deg, lat_deg, preparation_s
FROM restaurant_session_v1(%(token_sha256)s)

-- read_orders --
SELECT order_id, state, external_id, customer_name, items, created_at, ready_at, scheduled_for,
    promised_from, promised_to, picked_up_at, ended_at, courier_name, assigned_at, driver_id, pace,
    fix_at, lon_deg, lat_deg
FROM restaurant_orders_v1(%(token_sha256)s, %(order_id)s::uuid, %(ended_within_s)s, %(limit)s)

-- confirm --
SELECT restaurant_confirm_v1(%(token_sha256)s, %(order_id)s, %(idempotency_key)s::text)
WHERE commit__confirm_v1()

-- set_ready --
SELECT restaurant_set_ready_v1(%(token_sha256)s, %(order_id)s, %(ready_at)s)
WHERE commit__confirm_v1()
