-- Webhooks: the queue, and what admins set. Alerts. Parameters are psycopg's %(name)s.


-- claim_deliveries --
SELECT delivery_id, webhook_id, url, secrets, message_id, body, attempt, first_attempt_at,
    event_type, phone, language
FROM webhook_delivery__claim_v2(%(at_most_each)s::int, %(lease_s)s::float8)

-- report_delivery --
SELECT webhook_delivery__report_v1(%(delivery_id)s::int8, %(attempt)s::int, %(status)s::int,
    %(error)s::text, %(retry_in_s)s::float8)

-- read_webhook_backlog --
SELECT pending, oldest_s FROM webhook_delivery__backlog_v1()

-- decide_notices --
SELECT order_notice__decide_v1(%(at_most)s)

-- update_alerts --
SELECT alert__update_v1()

-- read_alerts --
SELECT alert_id, kind::text, order_id, driver_id, webhook_id, raised_at, resolved_at,
    acknowledged_at, acknowledged_by
FROM alert
WHERE (NOT %(open)s OR resolved_at IS NULL)
    AND (%(before)s::int8 IS NULL OR alert_id < %(before)s)
ORDER BY alert_id DESC
LIMIT %(limit)s

-- acknowledge_alert --
SELECT alert_id, kind::text, order_id, driver_id, webhook_id, raised_at, resolved_at,
    acknowledged_at, acknowledged_by
FROM alert__acknowledge_v1(%(alert_id)s::int8, %(who)s)
WHERE commit__confirm_v1()

-- read_webhooks --
SELECT w.webhook_id, w.url, w.description, w.events, w.is_on, w.off_reason::text, w.off_at,
    w.failing_since, w.last_success_at, w.created_at, w.created_by, w.with_contact, (
        SELECT count(*) FROM webhook_delivery d
        WHERE d.webhook_id = w.webhook_id AND d.ended_at IS NULL
    )::int AS pending
FROM webhook w
WHERE %(webhook_id)s::uuid IS NULL OR w.webhook_id = %(webhook_id)s
ORDER BY w.created_at, w.webhook_id

-- create_webhook --
SELECT create_webhook_v2(%(url)s, %(description)s, %(events)s::text[], %(with_contact)s,
    %(secret)s, %(who)s)

-- change_webhook --
SELECT change_webhook_v1(%(webhook_id)s, %(values)s::jsonb, %(who)s)
WHERE commit__confirm_v1()

-- rotate_webhook --
SELECT rotate_webhook_v1(%(webhook_id)s, %(secret)s, %(who)s)
WHERE commit__confirm_v1()

-- delete_webhook --
SELECT delete_webhook_v1(%(webhook_id)s, %(who)s)
WHERE commit__confirm_v1()

-- read_deliveries --
SELECT delivery_id, order_id, order_seq, event_type, created_at, attempts, last_attempt_at,
    last_status, last_error, CASE WHEN ended_at IS NULL AND due_at <> 'infinity' THEN due_at END
        AS due_at,
    ended_at, coalesce(outcome::text, 'pending') AS outcome
FROM webhook_delivery
WHERE webhook_id = %(webhook_id)s
    AND (%(outcome)s::text IS NULL OR coalesce(outcome::text, 'pending') = %(outcome)s)
    AND (%(before)s::int8 IS NULL OR delivery_id < %(before)s)
ORDER BY delivery_id DESC
LIMIT %(limit)s

-- send_webhook_again --
SELECT send_webhook_again_v1(%(webhook_id)s, %(delivery_id)s::int8, %(who)s)
WHERE commit__confirm_v1()
