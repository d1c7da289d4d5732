-- What tracking_api reads of orders and policies. Parameters are psycopg's %(name)s.


-- read_order --
SELECT order_id, state::text, assignment_no, driver_id, order_seq, restaurant_id, lon_deg, lat_deg,
    customer_name, policy_id, created_at, assigned_at, ended_at, details
FROM order_with_details
WHERE order_id = %(order_id)s

-- read_policies --
SELECT policy_id, name, enter_radius_m, dwell_min_s, dwell_max_s, dwell_spread_m, dwell_max_mps,
    leave_radius_m, leave_min_s, leave_max_s, arriving_radius_m, arriving_min_s, worst_accuracy_m,
    report_every_s, pace, offer_s, auto_offer, created_at
FROM policy
ORDER BY policy_id
