-- Offers of orders to drivers. Parameters are psycopg's %(name)s.


-- offer_order --
SELECT order_id, driver_id, offered_at, expires_at, ended_at, outcome::text
FROM offer_order_as_staff_v1(%(order_id)s, %(driver_id)s::text, %(name)s,
    %(idempotency_key)s::text)
WHERE commit__confirm_v1()

-- read_offers --
SELECT order_id, driver_id, offered_at, expires_at, ended_at, outcome::text
FROM order_offer
WHERE order_id = %(order_id)s
ORDER BY order_offer_id

-- read_unassigned --
SELECT u.order_id, u.since, (
    SELECT count(DISTINCT f.driver_id) FROM order_offer f WHERE f.order_id = u.order_id
)::int AS offered_count
FROM unassigned_order u
ORDER BY u.since, u.order_id
LIMIT %(limit)s

-- advance_offers --
SELECT order_offer__advance_v1(%(at_most)s)

-- accept_own_offer --
SELECT order_id, state::text, assignment_no, order_seq, driver_id
FROM driver_accept_offer_v1(%(token_sha256)s, %(order_id)s, %(idempotency_key)s::text)
WHERE commit__confirm_v1()

-- decline_own_offer --
SELECT order_id, driver_id, offered_at, expires_at, ended_at, outcome::text
FROM driver_decline_offer_v1(%(token_sha256)s, %(order_id)s, %(idempotency_key)s::text)
WHERE commit__confirm_v1()
