-- What driver_api runs for a driver, by the token. Parameters are psycopg's %(name)s.


-- read_own_driver --
SELECT driver_id, duty::text, driver_state::text, order_id, current_order, offers,
    driver_ends_v1(%(token_sha256)s),
    driver_read_stops_v1(%(token_sha256)s)
FROM driver_read_v2(%(token_sha256)s)

-- change_duty --
SELECT driver_id, duty::text, state::text, order_id
FROM driver_change_duty_v1(%(token_sha256)s, %(command)s, %(idempotency_key)s::text)
WHERE commit__confirm_v1()

-- command_own_order --
SELECT order_id, state::text, assignment_no, order_seq, driver_id
FROM driver_command_order_v1(%(token_sha256)s, %(order_id)s, %(command)s,
    %(idempotency_key)s::text)
WHERE commit__confirm_v1()

-- open_driver_session --
SELECT driver_id, name, expires_at
FROM open_driver_session_v1(%(token_sha256)s, %(session_sha256)s, %(lifetime_s)s)

-- close_driver_session --
SELECT close_driver_session_v1(%(session_sha256)s)
WHERE commit__confirm_v1()

-- deliver_own_order --
SELECT order_id, state::text, assignment_no, order_seq, driver_id, pin_refusal, tries_left,
    retry_after_s
FROM driver_deliver_order_v1(%(token_sha256)s, %(order_id)s, %(pin)s::text, %(note)s::text,
    %(idempotency_key)s::text)
WHERE commit__confirm_v1()

-- fail_own_order --
SELECT order_id, state::text, assignment_no, order_seq, driver_id
FROM driver_fail_order_v2(%(token_sha256)s, %(order_id)s, %(reason)s, %(note)s::text,
    %(next_step)s::text, %(idempotency_key)s::text)
WHERE commit__confirm_v1()

-- store_own_photo --
SELECT driver_store_photo_v1(%(token_sha256)s, %(order_id)s, %(media_type)s, %(content)s::bytea)
WHERE commit__confirm_v1()

-- end_own_return --
SELECT order_id, driver_id, started_at, ended_at
FROM driver_end_return_v1(%(token_sha256)s, %(order_id)s)
WHERE commit__confirm_v1()

-- read_own_name --
SELECT driver_ends_v1(%(token_sha256)s) ->> 'name'
