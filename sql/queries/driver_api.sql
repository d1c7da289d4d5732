-- What driver_api reads. Parameters are psycopg's %(name)s.


-- read_driver_and_order --
SELECT s.driver_id, s.duty::text, s.state::text, s.order_id,
    o.order_id, o.state::text, a.assignment_no, a.assigned_at,
    r.name, r.lon_deg, r.lat_deg, o.lon_deg, o.lat_deg
FROM driver_state s
LEFT JOIN assignment a ON a.driver_id = s.driver_id AND a.ended_at IS NULL
LEFT JOIN orders o ON o.order_id = a.order_id
LEFT JOIN restaurant r ON r.restaurant_id = o.restaurant_id
WHERE s.driver_id = %(driver_id)s
