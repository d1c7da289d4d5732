-- The customer's own page besides tracking, as the role `customer`; notifications to send, as
-- `tracking_api`. Parameters are psycopg's %(name)s.


-- read_page --
SELECT customer_page_v1(%(token_sha256)s, %(order_id)s)

-- change_note --
SELECT customer_note_v1(%(token_sha256)s, %(order_id)s, %(door_note)s::text)
WHERE commit__confirm_v1()

-- share --
SELECT customer_share_v1(%(token_sha256)s, %(order_id)s, %(share_sha256)s)
WHERE commit__confirm_v1()

-- unshare --
SELECT customer_unshare_v1(%(token_sha256)s, %(order_id)s)
WHERE commit__confirm_v1()

-- follow_retry --
SELECT customer_retry_v1(%(token_sha256)s, %(order_id)s, %(retry_sha256)s)
WHERE commit__confirm_v1()

-- subscribe --
SELECT customer_subscribe_v1(%(token_sha256)s, %(order_id)s, %(endpoint)s::text,
    %(p256dh)s::text, %(auth)s::text, %(language)s::text)
WHERE commit__confirm_v1()

-- unsubscribe --
SELECT customer_unsubscribe_v1(%(token_sha256)s, %(order_id)s, %(endpoint_sha256)s)
WHERE commit__confirm_v1()

-- claim_notifications --
SELECT order_id, kind, endpoint, p256dh, auth, language, owner_sha256, attempt
FROM push_subscription__claim_v1(%(order_ids)s::uuid[], %(at_most)s::int,
    %(at_most_of_order)s::int, %(lease_s)s::float8)

-- report_notification --
SELECT push_subscription__report_v1(%(owner_sha256)s, %(endpoint)s::text, %(kind)s::text,
    %(attempt)s::int, %(retry_in_s)s::float8)

-- drop_subscription --
SELECT push_subscription__drop_v1(%(endpoint)s::text)
