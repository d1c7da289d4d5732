-- What admins set, and read to set it. Parameters are psycopg's %(name)s. A list has the rows of
-- `keys` if that is given, else those after a key.


-- list_drivers --
SELECT d.driver_id, d.name, d.vehicle, d.phone, d.created_at, c.removed_at AS retired_at
FROM driver d
LEFT JOIN device_credential c ON c.device_id = d.driver_id
WHERE d.driver_id <> 'forgotten' AND (%(retired)s OR c.removed_at IS NULL)
    AND CASE WHEN %(keys)s::text[] IS NULL THEN d.driver_id > coalesce(%(after)s, '')
        ELSE d.driver_id = ANY (%(keys)s) END
ORDER BY d.driver_id
LIMIT %(limit)s

-- list_restaurants --
SELECT restaurant_id, name, address, lon_deg, lat_deg, phone, opening_hours, preparation_s,
    city, retired_at
FROM restaurant
WHERE NOT is_ad_hoc AND (%(retired)s OR retired_at IS NULL)
    AND CASE WHEN %(keys)s::int[] IS NULL
        THEN %(after)s::int IS NULL OR restaurant_id > %(after)s
        ELSE restaurant_id = ANY (%(keys)s) END
ORDER BY restaurant_id
LIMIT %(limit)s

-- list_areas --
SELECT name, west, south, east, north, time_zone, retired_at
FROM service_area
WHERE (%(retired)s OR retired_at IS NULL)
    AND CASE WHEN %(keys)s::text[] IS NULL THEN name > coalesce(%(after)s, '')
        ELSE name = ANY (%(keys)s) END
ORDER BY name
LIMIT %(limit)s

-- list_policies --
SELECT p.policy_id, p.name, p.enter_radius_m, p.dwell_min_s, p.dwell_max_s, p.dwell_spread_m,
    p.dwell_max_mps, p.leave_radius_m, p.leave_min_s, p.leave_max_s, p.arriving_radius_m,
    p.arriving_min_s, p.worst_accuracy_m, p.report_every_s, p.pace, p.offer_s, p.auto_offer,
    p.nearby_m, p.nearby_s, p.created_at,
    coalesce(s.is_default, false) AS is_default, s.retired_at
FROM policy p
LEFT JOIN policy_status s ON s.policy_id = p.policy_id
WHERE (%(retired)s OR s.retired_at IS NULL)
    AND CASE WHEN %(keys)s::int[] IS NULL
        THEN %(after)s::int IS NULL OR p.policy_id > %(after)s
        ELSE p.policy_id = ANY (%(keys)s) END
ORDER BY p.policy_id
LIMIT %(limit)s

-- change_driver --
SELECT change_driver_v1(%(key)s, %(values)s, %(who)s)
WHERE commit__confirm_v1()

-- create_restaurant --
SELECT create_restaurant_v1(%(values)s, %(who)s)

-- change_restaurant --
SELECT change_restaurant_v1(%(key)s, %(values)s, %(who)s)
WHERE commit__confirm_v1()

-- retire_restaurant --
SELECT retire_restaurant_v1(%(key)s, %(who)s)
WHERE commit__confirm_v1()

-- create_area --
SELECT create_service_area_v1(%(values)s, %(who)s)

-- change_area --
SELECT change_service_area_v1(%(key)s, %(values)s, %(who)s)
WHERE commit__confirm_v1()

-- retire_area --
SELECT retire_service_area_v1(%(key)s, %(who)s)
WHERE commit__confirm_v1()

-- change_policy --
SELECT replace_policy_v1(%(key)s, %(values)s, %(who)s)

-- retire_policy --
SELECT retire_policy_v1(%(key)s, %(who)s)
WHERE commit__confirm_v1()

-- set_default_policy --
SELECT set_default_policy_v1(%(key)s, %(who)s)
WHERE commit__confirm_v1()
