-- What tracking_api's pool for customers runs, as the role `customer`. Parameters are psycopg's
-- %(name)s. The functions decide what is shown: docs/explanation/privacy.md.


-- find_good_links --
SELECT n FROM customer_links_v1(%(token_sha256s)s::bytea[], %(order_ids)s::uuid[])

-- read_customer_tracks --
SELECT * FROM customer_tracks_v3(%(token_sha256s)s::bytea[], %(order_ids)s::uuid[],
    %(known_order_seqs)s::int[], %(known_stamps)s::int8[], %(estimated_order_seqs)s::int[],
    %(estimated_fix_ats)s::timestamptz[])

-- read_customer_waits --
SELECT n, earliest_at, latest_at
FROM customer_waits_v1(%(token_sha256s)s::bytea[], %(order_ids)s::uuid[])

-- read_customer_polls --
SELECT n, now, order_id, order_seq, driver_id,
    fix_at, received_at, lon_deg, lat_deg, accuracy_m, speed_mps, heading_deg
FROM customer_polls_v1(%(token_sha256s)s::bytea[], %(order_ids)s::uuid[])

-- watch_as_customer --
SELECT customer_watch_v1(%(token_sha256s)s::bytea[], %(order_ids)s::uuid[]),
    share_watch_v1(%(token_sha256s)s::bytea[], %(order_ids)s::uuid[])

-- read_customer_history --
SELECT fix_at, received_at, lon_deg, lat_deg, accuracy_m, speed_mps, heading_deg, boot, seq
FROM customer_history_v1(%(token_sha256)s, %(order_id)s, %(from_at)s::timestamptz,
    %(to_at)s::timestamptz, %(limit)s::int, %(after_fix_at)s::timestamptz, %(after_boot)s::text,
    %(after_seq)s::int8)

-- cancel_as_customer --
SELECT order_id, state::text, order_seq
FROM customer_cancel_v1(%(token_sha256)s, %(order_id)s, %(idempotency_key)s::text)
WHERE commit__confirm_v1()

-- read_photo_as_customer --
SELECT media_type, content FROM customer_photo_v1(%(token_sha256)s, %(order_id)s)

-- find_shared_links --
SELECT n FROM share_links_v1(%(token_sha256s)s::bytea[], %(order_ids)s::uuid[])

-- read_shared_tracks --
SELECT * FROM share_tracks_v2(%(token_sha256s)s::bytea[], %(order_ids)s::uuid[],
    %(known_order_seqs)s::int[], %(known_stamps)s::int8[], %(estimated_order_seqs)s::int[],
    %(estimated_fix_ats)s::timestamptz[])

-- read_shared_polls --
SELECT n, now, order_id, order_seq, driver_id,
    fix_at, received_at, lon_deg, lat_deg, accuracy_m, speed_mps, heading_deg
FROM share_polls_v1(%(token_sha256s)s::bytea[], %(order_ids)s::uuid[])

-- read_shared_waits --
SELECT n, earliest_at, latest_at
FROM share_waits_v1(%(token_sha256s)s::bytea[], %(order_ids)s::uuid[])
