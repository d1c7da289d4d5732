-- What dispatchers read to decide. Parameters are psycopg's %(name)s.


-- read_order_couriers --
SELECT clock_timestamp(), c.driver_id, c.name, c.vehicle, c.distance_m, c.battery, c.open_orders,
    c.is_current, c.pickup_lon_deg, c.pickup_lat_deg, c.city,
    c.lon_deg, c.lat_deg, c.fix_at, c.received_at, c.speed_mps,
    EXISTS (
        SELECT FROM order_return r WHERE r.driver_id = c.driver_id AND r.ended_at IS NULL OFFSET 0
    )
FROM order_couriers_v1(%(order_id)s, %(limit)s) c

-- read_order_timeline --
SELECT occurred_at, recorded_at, kind, what, actor, who, driver_id, reason, note
FROM order_timeline_v1(%(order_id)s)

-- read_driver_states --
SELECT driver_id, round(extract(epoch FROM entered_at) * 1000)::int8, state
FROM driver_states_v1(%(driver_ids)s::text[], %(from_at)s, %(to_at)s)

-- find_restaurants --
SELECT restaurant_id, name, address, lon_deg, lat_deg
FROM restaurant
WHERE NOT is_ad_hoc AND retired_at IS NULL AND strpos(lower(name), lower(%(text)s::text)) > 0
    AND (%(city)s::text IS NULL OR city = %(city)s)
ORDER BY strpos(lower(name), lower(%(text)s::text)), length(name), name, restaurant_id
LIMIT %(limit)s
