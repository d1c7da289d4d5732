-- A day's report. Parameters are psycopg's %(name)s.


-- read_day --
SELECT time_zone, from_at, to_at, read_at FROM report_day_v1(%(city)s, %(date)s)

-- read_restaurants --
SELECT restaurant_id, restaurant_name, orders, open, delivered, cancelled, failed, promised, early,
    in_window, late, late_p50_s, late_max_s, open_late, stage_orders, stage_p50_s, stage_p90_s
FROM report_restaurants_v1(%(city)s, %(from_at)s, %(to_at)s)

-- read_reasons --
SELECT restaurant_id, state, by_actor, reason, orders
FROM report_reasons_v1(%(city)s, %(from_at)s, %(to_at)s)

-- read_drivers --
SELECT driver_id, name, assignments, delivered, failed, cancelled, given_up
FROM report_drivers_v1(%(city)s, %(from_at)s, %(to_at)s, %(limit)s)
