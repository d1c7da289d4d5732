-- What tracking_api's pool for customers runs, as the role `customer`. Parameters are psycopg's
-- %(name)s. The functions decide what is shown: docs/explanation/privacy.md.


-- find_good_links --
SELECT n FROM customer_links_v1(%(token_sha256s)s::bytea[], %(order_ids)s::uuid[])

-- read_customer_tracks --
SELECT n, now, order_id, state::text, assignment_no, order_seq,
    restaurant_name, restaurant_lon_deg, restaurant_lat_deg, destination_lon_deg,
    destination_lat_deg, dwell_min_s, pace, driver_id, assigned_at,
    fix_at, received_at, lon_deg, lat_deg, accuracy_m, speed_mps, heading_deg,
    trail_fix_at, trail_lon_deg, trail_lat_deg,
    event_order_seq, event_state, event_source, event_occurred_at, event_assignment_no
FROM customer_tracks_v1(%(token_sha256s)s::bytea[], %(order_ids)s::uuid[])

-- read_customer_polls --
SELECT n, now, order_id, order_seq, driver_id,
    fix_at, received_at, lon_deg, lat_deg, accuracy_m, speed_mps, heading_deg
FROM customer_polls_v1(%(token_sha256s)s::bytea[], %(order_ids)s::uuid[])

-- watch_as_customer --
SELECT customer_watch_v1(%(token_sha256s)s::bytea[], %(order_ids)s::uuid[])

-- read_customer_history --
SELECT fix_at, received_at, lon_deg, lat_deg, accuracy_m, speed_mps, heading_deg, boot, seq
FROM customer_history_v1(%(token_sha256)s, %(order_id)s, %(from_at)s::timestamptz,
    %(to_at)s::timestamptz, %(limit)s::int, %(after_fix_at)s::timestamptz, %(after_boot)s::text,
    %(after_seq)s::int8)

-- cancel_as_customer --
SELECT order_id, state::text, order_seq
FROM customer_cancel_v1(%(token_sha256)s, %(order_id)s, %(idempotency_key)s::text)
