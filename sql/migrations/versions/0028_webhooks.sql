-- Notices of orders (late, nearby), alerts, and webhooks with their queue.

SET LOCAL search_path = doorstep, public;
SET LOCAL check_function_bodies = off;  -- functions may refer to objects that are created later

DO $do$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'webhooks') THEN
        CREATE ROLE webhooks NOLOGIN;
    END IF;
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO webhooks', current_database());
END
$do$;
GRANT USAGE ON SCHEMA doorstep TO webhooks;

-- What the job for notices decides of an order; 57_notices.sql has the rules.
CREATE TYPE notice_kind AS ENUM ('late', 'nearby');

CREATE TYPE alert_kind AS ENUM (
    'late',         -- an open order with the notice
    'lost',         -- the driver of an open order is silent for limits.lost_alert_s
    'unassigned',   -- confirmed for limits.unassigned_alert_s
    'over_quota',   -- a driver has parked fixes
    'webhook_off'   -- a webhook that kept failing, or answered 410, was switched off
);

CREATE TYPE webhook_off_reason AS ENUM ('admin', 'failing', 'gone');

CREATE TYPE delivery_outcome AS ENUM (
    'delivered',  -- pending -> delivered: an answer of 2xx
    'failed'      -- pending -> failed: no such answer for a day
);

ALTER TABLE policy
    ADD COLUMN nearby_m float8 DEFAULT 300 CHECK (nearby_m BETWEEN 1 AND 10000),
    ADD COLUMN nearby_s float8 DEFAULT 120 CHECK (nearby_s BETWEEN 1 AND 3600);
ALTER TABLE limits
    ADD COLUMN lost_alert_s float8 NOT NULL DEFAULT 300,
    ADD COLUMN unassigned_alert_s float8 NOT NULL DEFAULT 300;

-- What happened to an order besides a change of state. It takes a number of the order's sequence,
-- and is published like an event. Decided by the job in 57_notices.sql.
CREATE TABLE order_notice (
    order_id uuid NOT NULL REFERENCES orders,
    order_seq int NOT NULL,
    kind notice_kind NOT NULL,
    assignment_no int NOT NULL,
    state order_state NOT NULL,  -- visible at the time
    occurred_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (order_id, order_seq)
);
-- An order is late once, and a courier is nearby once in an assignment.
CREATE UNIQUE INDEX order_notice_once
ON order_notice (order_id, kind, (CASE kind WHEN 'nearby' THEN assignment_no ELSE 0 END));

-- An address of another system that is sent events of orders.
CREATE TABLE webhook (
    webhook_id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    url text NOT NULL CHECK (url ~ '^https?://[^\s]+$' AND length(url) <= 2000),
    description text NOT NULL DEFAULT '' CHECK (length(description) <= 200),
    events text[] CHECK (cardinality(events) > 0),  -- null: all
    secret text NOT NULL CHECK (secret ~ '^whsec_[A-Za-z0-9+/]{32,88}={0,2}$'),
    old_secret text,  -- signs, too, until the instant
    old_secret_until timestamptz,
    is_on bool NOT NULL DEFAULT true,
    off_reason webhook_off_reason,
    off_at timestamptz,
    failing_since timestamptz,  -- null after a success
    last_success_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by text NOT NULL,
    CHECK (is_on = (off_at IS NULL)),
    CHECK ((off_at IS NULL) = (off_reason IS NULL)),
    CHECK ((old_secret IS NULL) = (old_secret_until IS NULL))
);

-- The queue, and the log: an event of an order for a webhook. What it says is read from the order.
CREATE TABLE webhook_delivery (
    delivery_id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    webhook_id uuid NOT NULL REFERENCES webhook ON DELETE CASCADE,
    order_id uuid NOT NULL REFERENCES orders,
    order_seq int NOT NULL,
    event_type text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- infinity while an earlier event of the order is pending for this webhook
    due_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    sending_until timestamptz,  -- an attempt is under way; later, its process has died
    attempts int NOT NULL DEFAULT 0,
    first_attempt_at timestamptz,
    last_attempt_at timestamptz,
    last_status int,  -- of HTTP; null without an answer
    last_error text,
    ended_at timestamptz,
    outcome delivery_outcome,
    is_sent_again bool NOT NULL DEFAULT false,  -- by an admin: outside the order's sequence
    UNIQUE (webhook_id, order_id, order_seq),
    CHECK ((ended_at IS NULL) = (outcome IS NULL))
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.1);
CREATE INDEX webhook_delivery_due ON webhook_delivery (webhook_id, due_at) WHERE ended_at IS NULL;
CREATE INDEX webhook_delivery_sending ON webhook_delivery (webhook_id)
WHERE sending_until IS NOT NULL;
CREATE INDEX webhook_delivery_page ON webhook_delivery (webhook_id, delivery_id);
CREATE INDEX webhook_delivery_order ON webhook_delivery (order_id);
CREATE INDEX webhook_delivery_ended ON webhook_delivery (ended_at) WHERE ended_at IS NOT NULL;

-- What needs a person. Raised and resolved by the job in 57_notices.sql.
CREATE TABLE alert (
    alert_id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind alert_kind NOT NULL,
    order_id uuid REFERENCES orders,
    driver_id text COLLATE "C" REFERENCES driver ON DELETE CASCADE,
    webhook_id uuid REFERENCES webhook ON DELETE CASCADE,
    raised_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    resolved_at timestamptz,
    acknowledged_at timestamptz,
    acknowledged_by text,
    CHECK ((acknowledged_at IS NULL) = (acknowledged_by IS NULL))
);
CREATE UNIQUE INDEX alert_open ON alert (kind, order_id, driver_id, webhook_id) NULLS NOT DISTINCT
WHERE resolved_at IS NULL;
CREATE INDEX alert_driver ON alert (driver_id);
CREATE INDEX alert_webhook ON alert (webhook_id);
CREATE INDEX alert_resolved ON alert (resolved_at) WHERE resolved_at IS NOT NULL;

INSERT INTO retention (kind, days, least_days) VALUES
    ('deliveries', 30, 2),  -- of webhooks, that ended
    ('alerts', 90, 7);      -- that are resolved

-- Orders that are due a notice, by the database's clock.
-- late: the promised window has passed; or the courier carries the order, and would arrive after it
--   by a straight line, stretched, at a courier's usual speed (as tracking_api's estimate).
-- nearby: the courier carries the order and is within the policy's radius or minutes of the door.
-- Both use the position that the customer may see, and none while another stop comes first.
CREATE FUNCTION order_notice__due(at_most int)
RETURNS TABLE (order_id uuid, assignment_no int, kind notice_kind, occurred_at timestamptz)
LANGUAGE plpgsql STABLE
AS $$
#variable_conflict use_column
DECLARE
    at CONSTANT timestamptz := clock_timestamp();
    later CONSTANT timestamptz := at + interval '1 hour';
    way_factor CONSTANT float8 := 1.5 / 4.5;  -- street over straight, and m/s: seconds per metre
BEGIN
    RETURN QUERY
    WITH overdue AS MATERIALIZED (
        SELECT o.order_id, o.assignment_no, 'late'::notice_kind AS kind, d.promised_to
        FROM orders o JOIN order_detail d ON d.order_id = o.order_id
        WHERE o.ended_at IS NULL AND d.promised_to < at AND NOT EXISTS (
            SELECT FROM order_notice n WHERE n.order_id = o.order_id AND n.kind = 'late'
        )
        LIMIT at_most
    ),
    -- by the newest position, whether it may be shown or not: a look-up each, of many orders
    candidate AS MATERIALIZED (
        SELECT o.order_id, o.assignment_no, a.customer_lon_deg, a.customer_lat_deg,
            p.nearby_m, p.nearby_s, way_factor / p.pace AS s_per_m, d.promised_to
        FROM orders o
        JOIN assignment a ON a.order_id = o.order_id AND a.assignment_no = o.assignment_no
            AND a.ended_at IS NULL AND upper_inf(a.visible)
        JOIN driver_state s ON s.driver_id = a.driver_id AND s.fix_at >= a.assigned_at
        JOIN policy p ON p.policy_id = o.policy_id
        LEFT JOIN order_detail d ON d.order_id = o.order_id
        CROSS JOIN LATERAL (SELECT ground_distance_m(
            s.lon_deg, s.lat_deg, a.customer_lon_deg, a.customer_lat_deg)) AS g (metres)
        WHERE o.ended_at IS NULL AND o.state IN ('picked_up', 'arriving', 'at_customer')
            AND (
                (g.metres <= greatest(p.nearby_m, p.nearby_s * p.pace / way_factor)
                    AND NOT EXISTS (SELECT FROM order_notice n WHERE n.order_id = o.order_id
                        AND n.kind = 'nearby' AND n.assignment_no = o.assignment_no))
                OR (s.fix_at + make_interval(secs => g.metres * way_factor / p.pace)
                    > d.promised_to
                    AND NOT EXISTS (SELECT FROM order_notice n WHERE n.order_id = o.order_id
                        AND n.kind = 'late'))
            )
        LIMIT 20 * at_most  -- some may stay: their customers do not see the courier there
    ),
    seen AS MATERIALIZED (
        SELECT c.*, v AS view FROM candidate c
        CROSS JOIN LATERAL customer_view__of(c.order_id, c.assignment_no) v
    ),
    placed AS MATERIALIZED (
        SELECT c.*, p.fix_at, ground_distance_m(
            p.lon_deg, p.lat_deg, c.customer_lon_deg, c.customer_lat_deg) AS metres
        FROM seen c CROSS JOIN LATERAL customer_view__position(c.view, later) p
        WHERE p.fix_at > at - interval '5 min'
    )
    SELECT o.order_id, o.assignment_no, o.kind, o.promised_to FROM overdue o
    UNION ALL
    SELECT p.order_id, p.assignment_no, 'late'::notice_kind, at FROM placed p
    WHERE p.fix_at + make_interval(secs => p.metres * p.s_per_m) > p.promised_to
        AND at <= p.promised_to
    UNION ALL
    SELECT p.order_id, p.assignment_no, 'nearby'::notice_kind, p.fix_at FROM placed p
    WHERE p.metres <= p.nearby_m OR p.metres * p.s_per_m <= p.nearby_s;
END
$$;

-- Writes a notice, unless it was written, the order has ended, or the courier is another one or has
-- another stop first by now. Skips an order that a command or a batch of fixes holds.
CREATE FUNCTION order_notice__add(
    of_order_id uuid, of_assignment_no int, of_kind notice_kind, since timestamptz
)
RETURNS bool LANGUAGE plpgsql
AS $$
DECLARE
    o orders;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended(of_order_id::text, 1)) THEN
        RETURN false;
    END IF;
    SELECT * INTO o FROM orders k WHERE k.order_id = of_order_id AND k.ended_at IS NULL
        FOR NO KEY UPDATE SKIP LOCKED;
    IF NOT FOUND OR (of_kind = 'nearby' AND NOT EXISTS (
        SELECT FROM assignment a WHERE a.order_id = of_order_id
            AND a.assignment_no = of_assignment_no AND o.assignment_no = of_assignment_no
            AND a.ended_at IS NULL AND upper_inf(a.visible)
    )) OR EXISTS (
        SELECT FROM order_notice n WHERE n.order_id = of_order_id AND n.kind = of_kind
            AND (of_kind = 'late' OR n.assignment_no = of_assignment_no)
    ) THEN
        RETURN false;
    END IF;
    UPDATE orders k SET order_seq = k.order_seq + 1 WHERE k.order_id = of_order_id;
    INSERT INTO order_notice (order_id, order_seq, kind, assignment_no, state, occurred_at)
    VALUES (of_order_id, o.order_seq + 1, of_kind, o.assignment_no, o.state, since);
    RETURN true;
END
$$;

-- Decides which orders are late and which couriers are nearby. Returns the number of notices.
CREATE FUNCTION order_notice__decide_v1(at_most int)
RETURNS int LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
DECLARE
    due record;
    written_count int := 0;
BEGIN
    FOR due IN SELECT * FROM order_notice__due(at_most) LOOP
        written_count := written_count + order_notice__add(
            due.order_id, due.assignment_no, due.kind, due.occurred_at)::int;
    END LOOP;
    RETURN written_count;
END
$$;

-- What is wrong now.
CREATE FUNCTION alert__causes()
RETURNS TABLE (kind alert_kind, order_id uuid, driver_id text, webhook_id uuid)
LANGUAGE sql STABLE
AS $$
    SELECT 'late'::alert_kind, o.order_id, a.driver_id, NULL::uuid
    FROM orders o
    JOIN order_notice n ON n.order_id = o.order_id AND n.kind = 'late'
    LEFT JOIN assignment a ON a.order_id = o.order_id AND a.assignment_no = o.assignment_no
        AND a.ended_at IS NULL
    WHERE o.ended_at IS NULL
    UNION ALL
    SELECT 'lost', a.order_id, a.driver_id, NULL
    FROM assignment a
    JOIN driver_state s ON s.driver_id = a.driver_id
    CROSS JOIN limits l
    WHERE a.ended_at IS NULL
        AND greatest(s.received_at, a.assigned_at)
            < clock_timestamp() - make_interval(secs => l.lost_alert_s)
    UNION ALL
    SELECT 'unassigned', o.order_id, NULL, NULL
    FROM orders o
    LEFT JOIN order_detail d ON d.order_id = o.order_id
    CROSS JOIN limits l
    WHERE o.ended_at IS NULL AND o.state = 'confirmed'
        AND o.state_at < clock_timestamp() - make_interval(secs => l.unassigned_alert_s)
        -- an order for later is not looked for yet
        AND coalesce(d.scheduled_for, '-infinity') < clock_timestamp() + interval '1 hour'
    UNION ALL
    SELECT 'over_quota', NULL, q.driver_id, NULL FROM driver_quota q
    UNION ALL
    SELECT 'webhook_off', NULL, NULL, w.webhook_id FROM webhook w
    WHERE w.off_reason IN ('failing', 'gone')
$$;

-- Raises alerts, and resolves those whose cause has ended. Returns how many of both. One process at
-- a time.
CREATE FUNCTION alert__update_v1()
RETURNS int LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
DECLARE
    changed_count int;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('alert__update', 3)) THEN
        RETURN 0;
    END IF;
    WITH cause AS MATERIALIZED (SELECT * FROM alert__causes()),
    raised AS (
        INSERT INTO alert (kind, order_id, driver_id, webhook_id)
        SELECT c.kind, c.order_id, c.driver_id, c.webhook_id FROM cause c
        ON CONFLICT DO NOTHING
        RETURNING 1
    ),
    resolved AS (
        UPDATE alert a SET resolved_at = clock_timestamp()
        WHERE a.resolved_at IS NULL AND NOT EXISTS (
            SELECT FROM cause c
            WHERE (c.kind, coalesce(c.order_id::text, ''), coalesce(c.driver_id, ''),
                    coalesce(c.webhook_id::text, ''))
                = (a.kind, coalesce(a.order_id::text, ''), coalesce(a.driver_id, ''),
                    coalesce(a.webhook_id::text, ''))
        )
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM raised) + (SELECT count(*) FROM resolved) INTO changed_count;
    RETURN changed_count;
END
$$;

-- Repeating it keeps the first name. Raises DS070 for an unknown alert.
CREATE FUNCTION alert__acknowledge_v1(of_alert_id int8, by_who text)
RETURNS SETOF alert LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
DECLARE
    acknowledged alert;
BEGIN
    SELECT * INTO acknowledged FROM alert a WHERE a.alert_id = of_alert_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no alert %', of_alert_id USING ERRCODE = 'DS070';
    ELSIF acknowledged.acknowledged_at IS NULL THEN
        UPDATE alert a SET acknowledged_at = clock_timestamp(), acknowledged_by = by_who
            WHERE a.alert_id = of_alert_id RETURNING * INTO acknowledged;
        PERFORM record_audit_v1(by_who, 'alert.acknowledge', of_alert_id::text,
            jsonb_build_object('kind', acknowledged.kind));
    END IF;
    RETURN NEXT acknowledged;
END
$$;

-- Deletes up to at_most rows of a kind that are past their retention. For driver_events, and for
-- retention__expire_v1.
CREATE FUNCTION retention__expire_records(of_kind text, at_most int, as_of timestamptz)
RETURNS int8 LANGUAGE plpgsql
AS $$
DECLARE
    before CONSTANT timestamptz := retention__before(of_kind, as_of);
    expired_count int8;
BEGIN
    IF of_kind = 'deliveries' THEN
        DELETE FROM webhook_delivery d WHERE d.delivery_id = ANY (ARRAY(
            SELECT k.delivery_id FROM webhook_delivery k WHERE k.ended_at < before LIMIT at_most
        ));
    ELSE
        DELETE FROM alert a WHERE a.alert_id = ANY (ARRAY(
            SELECT k.alert_id FROM alert k WHERE k.resolved_at < before LIMIT at_most
        ));
    END IF;
    GET DIAGNOSTICS expired_count = ROW_COUNT;
    RETURN expired_count;
END
$$;

-- What a delivery says: what staff may see of the order, and no position.
CREATE FUNCTION webhook_delivery__body(of_order_id uuid, of_order_seq int, of_type text)
RETURNS text LANGUAGE sql STABLE
AS $$
    SELECT json_build_object(
        'type', of_type,
        'timestamp', instant_text(e.occurred_at),
        'data', json_build_object(
            'order_id', of_order_id, 'external_id', d.external_id, 'order_seq', of_order_seq,
            'state', e.state, 'at', instant_text(e.occurred_at),
            -- why it failed, or what staff wrote of a cancellation
            'reason', CASE WHEN e.state IN ('failed', 'cancelled') THEN (
                SELECT CASE c.command WHEN 'fail' THEN c.failure_reason::text ELSE c.note END
                FROM order_command c
                WHERE c.order_id = of_order_id AND c.command IN ('fail', 'cancel') LIMIT 1
            ) END
        )
    )::text
    FROM (
        SELECT v.state, v.occurred_at FROM order_event v
        WHERE v.order_id = of_order_id AND v.order_seq = of_order_seq
        UNION ALL
        SELECT n.state, n.occurred_at FROM order_notice n
        WHERE n.order_id = of_order_id AND n.order_seq = of_order_seq
    ) e
    LEFT JOIN order_detail d ON d.order_id = of_order_id
$$;

-- Queues an event of an order for each webhook that is on and wants it.
CREATE FUNCTION webhook_delivery__queue(of_order_id uuid, of_order_seq int, of_type text)
RETURNS void LANGUAGE plpgsql
AS $$
DECLARE
    to_webhook_id uuid;
BEGIN
    FOR to_webhook_id IN
        SELECT w.webhook_id FROM webhook w
        WHERE w.is_on AND (w.events IS NULL OR of_type = ANY (w.events)) ORDER BY w.webhook_id
    LOOP
        -- The lock excludes that the last of them ends unseen.
        PERFORM FROM webhook_delivery d
            WHERE d.webhook_id = to_webhook_id AND d.order_id = of_order_id AND d.ended_at IS NULL
                AND NOT d.is_sent_again
            ORDER BY d.order_seq FOR UPDATE;
        INSERT INTO webhook_delivery (webhook_id, order_id, order_seq, event_type, due_at)
        VALUES (to_webhook_id, of_order_id, of_order_seq, of_type,
            CASE WHEN FOUND THEN 'infinity' ELSE clock_timestamp() END);
    END LOOP;
END
$$;

-- Gives out due deliveries, of each webhook at most `at_most_each` at a time, and one while it
-- fails. An attempt that is not reported within lease_s is made again.
CREATE FUNCTION webhook_delivery__claim_v1(at_most_each int, lease_s float8)
RETURNS TABLE (
    delivery_id int8, webhook_id uuid, url text, secrets text[], message_id text, body text,
    attempt int, first_attempt_at timestamptz
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
SET enable_seqscan = off
AS $$
#variable_conflict use_column
DECLARE
    at CONSTANT timestamptz := clock_timestamp();
    until CONSTANT timestamptz := at + make_interval(secs => lease_s);
    w webhook;
BEGIN
    FOR w IN SELECT * FROM webhook k WHERE k.is_on ORDER BY k.webhook_id LOOP
        RETURN QUERY
        WITH due AS MATERIALIZED (
            SELECT d.delivery_id FROM webhook_delivery d
            WHERE d.webhook_id = w.webhook_id AND d.ended_at IS NULL AND d.due_at <= at
            ORDER BY d.due_at
            LIMIT greatest(0, CASE WHEN w.failing_since IS NULL THEN at_most_each ELSE 1 END - (
                SELECT count(*) FROM webhook_delivery s
                WHERE s.webhook_id = w.webhook_id AND s.sending_until > at))
            FOR UPDATE SKIP LOCKED
        )
        UPDATE webhook_delivery d SET due_at = until, sending_until = until,
            attempts = d.attempts + 1, last_attempt_at = at,
            first_attempt_at = coalesce(d.first_attempt_at, at)
        FROM due WHERE d.delivery_id = due.delivery_id
        RETURNING d.delivery_id, w.webhook_id, w.url,
            array_remove(ARRAY[w.secret,
                CASE WHEN w.old_secret_until > at THEN w.old_secret END], NULL),
            'msg_' || replace(d.order_id::text, '-', '') || '_' || d.order_seq,
            webhook_delivery__body(d.order_id, d.order_seq, d.event_type),
            d.attempts, d.first_attempt_at;
    END LOOP;
END
$$;

-- Makes the next event of an order due, once none before it is pending.
CREATE FUNCTION webhook_delivery__release_next(of_webhook_id uuid, of_order_id uuid)
RETURNS void LANGUAGE sql
AS $$
    UPDATE webhook_delivery d SET due_at = clock_timestamp()
    WHERE d.due_at = 'infinity' AND d.delivery_id = (
        SELECT n.delivery_id FROM webhook_delivery n
        WHERE n.webhook_id = of_webhook_id AND n.order_id = of_order_id AND n.ended_at IS NULL
            AND NOT n.is_sent_again
        ORDER BY n.order_seq LIMIT 1
    )
$$;

-- Records the end of an attempt. `status` is null without an answer. Of a failed one, retry_in_s is
-- the pause before the next, null to give up; giving up switches a webhook off that has had no
-- success since the first attempt, and so does the status 410 (gone). Returns what has become of
-- the delivery: delivered, failed, retried; or null if a later attempt decides.
CREATE FUNCTION webhook_delivery__report_v1(
    of_delivery_id int8, of_attempt int, status int, error text, retry_in_s float8
)
RETURNS text LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
DECLARE
    at CONSTANT timestamptz := clock_timestamp();
    is_delivered CONSTANT bool := coalesce(status BETWEEN 200 AND 299, false);
    is_gone CONSTANT bool := coalesce(status = 410, false);
    d webhook_delivery;
BEGIN
    UPDATE webhook_delivery k SET sending_until = NULL, last_status = status,
        last_error = left(error, 500),
        due_at = CASE WHEN is_delivered OR retry_in_s IS NULL THEN k.due_at
            ELSE at + make_interval(secs => retry_in_s) END,
        ended_at = CASE WHEN is_delivered OR retry_in_s IS NULL THEN at END,
        outcome = CASE WHEN is_delivered THEN 'delivered'
            WHEN retry_in_s IS NULL THEN 'failed' END::delivery_outcome
    WHERE k.delivery_id = of_delivery_id AND k.ended_at IS NULL
        AND (is_delivered OR k.attempts = of_attempt)
    RETURNING * INTO d;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    IF is_delivered THEN
        UPDATE webhook w SET last_success_at = at, failing_since = NULL
            WHERE w.webhook_id = d.webhook_id;
    ELSE
        UPDATE webhook w SET failing_since = coalesce(w.failing_since, at)
            WHERE w.webhook_id = d.webhook_id AND w.failing_since IS NULL;
        UPDATE webhook w SET is_on = false, off_at = at,
            off_reason = CASE WHEN is_gone THEN 'gone' ELSE 'failing' END::webhook_off_reason
        WHERE w.webhook_id = d.webhook_id AND w.is_on AND (is_gone OR (d.outcome = 'failed'
            AND coalesce(w.last_success_at, '-infinity') < d.first_attempt_at));
    END IF;
    IF d.ended_at IS NOT NULL THEN
        PERFORM webhook_delivery__release_next(d.webhook_id, d.order_id);
    END IF;
    RETURN coalesce(d.outcome::text, 'retried');
END
$$;

-- How many deliveries are pending, and for how many seconds the oldest due one has been.
CREATE FUNCTION webhook_delivery__backlog_v1()
RETURNS TABLE (pending int8, oldest_s float8) LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    SELECT count(*), coalesce(extract(epoch FROM clock_timestamp() - min(d.created_at)), 0)::float8
    FROM webhook_delivery d JOIN webhook w ON w.webhook_id = d.webhook_id
    WHERE d.ended_at IS NULL AND w.is_on
$$;

-- Adds a webhook. Raises DS072 beyond 100 of them.
CREATE FUNCTION create_webhook_v1(
    to_url text, with_description text, of_events text[], with_secret text, by_who text
)
RETURNS uuid LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
DECLARE
    created_id uuid;
BEGIN
    LOCK TABLE webhook IN SHARE ROW EXCLUSIVE MODE;
    IF (SELECT count(*) FROM webhook) >= 100 THEN
        RAISE EXCEPTION 'there are 100 webhooks already' USING ERRCODE = 'DS072';
    END IF;
    INSERT INTO webhook (url, description, events, secret, created_by)
    VALUES (to_url, coalesce(with_description, ''), of_events, with_secret, by_who)
    RETURNING webhook_id INTO created_id;
    PERFORM record_audit_v1(by_who, 'webhook.create', created_id::text, NULL);
    RETURN created_id;
END
$$;

-- Sets url, description, events (null: all) or is_on. Raises DS071 for an unknown webhook.
CREATE FUNCTION change_webhook_v1(of_webhook_id uuid, "values" jsonb, by_who text)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
DECLARE
    w webhook;
BEGIN
    SELECT * INTO w FROM webhook k WHERE k.webhook_id = of_webhook_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no webhook %', of_webhook_id USING ERRCODE = 'DS071';
    END IF;
    w := jsonb_populate_record(w, "values");
    UPDATE webhook k SET url = w.url, description = w.description, events = w.events,
        is_on = w.is_on,
        off_at = CASE WHEN NOT w.is_on THEN coalesce(k.off_at, clock_timestamp()) END,
        off_reason = CASE WHEN NOT w.is_on THEN coalesce(k.off_reason, 'admin') END,
        failing_since = CASE WHEN k.is_on = w.is_on THEN k.failing_since END
    WHERE k.webhook_id = of_webhook_id;
    PERFORM administration__record_audit(
        by_who, 'webhook.change', of_webhook_id::text, "values");
END
$$;

-- Replaces the secret. The old one signs, too, for a day. Raises DS071.
CREATE FUNCTION rotate_webhook_v1(of_webhook_id uuid, new_secret text, by_who text)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
BEGIN
    UPDATE webhook w SET secret = new_secret, old_secret = w.secret,
        old_secret_until = clock_timestamp() + interval '24 hours'
    WHERE w.webhook_id = of_webhook_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no webhook %', of_webhook_id USING ERRCODE = 'DS071';
    END IF;
    PERFORM record_audit_v1(by_who, 'webhook.rotate', of_webhook_id::text, NULL);
END
$$;

-- Deletes a webhook with its deliveries and alerts. Raises DS071.
CREATE FUNCTION delete_webhook_v1(of_webhook_id uuid, by_who text)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
BEGIN
    DELETE FROM webhook w WHERE w.webhook_id = of_webhook_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no webhook %', of_webhook_id USING ERRCODE = 'DS071';
    END IF;
    PERFORM record_audit_v1(by_who, 'webhook.delete', of_webhook_id::text, NULL);
END
$$;

-- Sends an ended delivery once more, with the same id and outside the order's sequence; a pending
-- one that is due later is due now. Raises DS073 for an unknown delivery.
CREATE FUNCTION send_webhook_again_v1(of_webhook_id uuid, of_delivery_id int8, by_who text)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
BEGIN
    UPDATE webhook_delivery d SET
        due_at = CASE WHEN d.ended_at IS NULL AND (d.due_at = 'infinity'
            OR d.sending_until IS NOT NULL) THEN d.due_at ELSE clock_timestamp() END,
        attempts = CASE WHEN d.ended_at IS NULL THEN d.attempts ELSE 0 END,
        first_attempt_at = CASE WHEN d.ended_at IS NULL THEN d.first_attempt_at END,
        is_sent_again = d.is_sent_again OR d.ended_at IS NOT NULL,
        ended_at = NULL, outcome = NULL
    WHERE d.delivery_id = of_delivery_id AND d.webhook_id = of_webhook_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no delivery %', of_delivery_id USING ERRCODE = 'DS073';
    END IF;
    PERFORM record_audit_v1(by_who, 'webhook.send', of_webhook_id::text,
        jsonb_build_object('delivery_id', of_delivery_id));
END
$$;

-- What an answer says of an order's notices, as a JSON array: each as (order_seq, kind, instant),
-- and the end of the promised window if the order is late.
CREATE FUNCTION order_notice__read_v1(of_order_id uuid, of_assignment_no int)
RETURNS json LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    SELECT CASE WHEN count(*) > 0 THEN json_build_array(
        json_agg(json_build_array(n.order_seq, n.kind, n.occurred_at) ORDER BY n.order_seq),
        CASE WHEN bool_or(n.kind = 'late')
            THEN (SELECT d.promised_to FROM order_detail d WHERE d.order_id = of_order_id) END
    ) END
    FROM order_notice n
    WHERE n.order_id = of_order_id AND (n.kind = 'late' OR n.assignment_no = of_assignment_no)
$$;

-- What an answer holds of an order besides the position, as a JSON array in the order of
-- tracking_api's OrderDetails. Depends on the order's events alone, but for instants of events:
-- late fixes may move evidence to an earlier one.
CREATE OR REPLACE FUNCTION customer_order__details(of_order_id uuid)
RETURNS text LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    RETURN (
        SELECT json_build_array(o.state, o.assignment_no, o.order_seq, r.name, r.lon_deg, r.lat_deg,
            o.lon_deg, o.lat_deg, p.dwell_min_s, p.pace, a.assigned_at, (
                SELECT coalesce(json_agg(json_build_array(e.order_seq, e.state, e.source,
                    coalesce(g.occurred_at, e.occurred_at), e.assignment_no) ORDER BY e.order_seq
                ), '[]')
                FROM order_event e
                LEFT JOIN evidence g ON g.order_id = e.order_id
                    AND g.assignment_no = e.assignment_no AND g.state = e.state
                    AND g.source = e.source
                WHERE e.order_id = o.order_id
            ), r.city, customer_order__ends(o.order_id, o.ended_at IS NOT NULL),
            json_build_object('created_at', o.created_at, 'preparation_s', r.preparation_s,
                'ready_at', d.ready_at, 'scheduled_for', d.scheduled_for),
            order_notice__read_v1(o.order_id, o.assignment_no))
        FROM orders o
        JOIN restaurant r ON r.restaurant_id = o.restaurant_id
        JOIN policy p ON p.policy_id = o.policy_id
        LEFT JOIN order_detail d ON d.order_id = o.order_id
        LEFT JOIN assignment a ON a.order_id = o.order_id AND a.assignment_no = o.assignment_no
            AND upper_inf(a.visible)
        WHERE o.order_id = of_order_id
    );
END
$$;

-- 500: write an event for each change of (assignment_no, state).
CREATE OR REPLACE FUNCTION orders__derive_events()
RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO order_event (order_id, order_seq, assignment_no, state, source, occurred_at)
        SELECT order_id, order_seq, assignment_no, state, state_source, state_at FROM new_orders;
        RETURN NULL;
    END IF;
    INSERT INTO order_event (order_id, order_seq, assignment_no, state, source, driver_id,
        occurred_at)
    SELECT n.order_id, n.order_seq, n.assignment_no, n.state, n.state_source, a.driver_id,
        n.state_at
    FROM new_orders n
    JOIN old_orders o ON o.order_id = n.order_id AND o.order_seq < n.order_seq
        AND (o.assignment_no, o.state) <> (n.assignment_no, n.state)  -- others are notices
    LEFT JOIN assignment a ON a.order_id = n.order_id AND a.assignment_no = n.assignment_no;
    RETURN NULL;
END
$$;

-- For driver_events. The clock and the table `retention`, which only the owner may write, decide,
-- so that a captured service cannot expire anything early.
CREATE OR REPLACE FUNCTION retention__expire_v1(of_kind text, at_most int)
RETURNS int8 LANGUAGE sql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    SELECT CASE WHEN of_kind IN ('deliveries', 'alerts')
        THEN retention__expire_records(of_kind, least(at_most, 10000), clock_timestamp())
        ELSE retention__expire(of_kind, least(at_most, 10000), clock_timestamp()) END
$$;

CREATE FUNCTION order_notice__announce()
RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO outbox (topic, key, payload)
    SELECT 'tracking-updates', convert_to(n.order_id::text, 'UTF8'),
        convert_to(json_build_object(
            'order_id', n.order_id, 'order_seq', n.order_seq, 'assignment_no', n.assignment_no,
            'state', n.state, 'notice', n.kind, 'source', o.state_source,
            'driver_id', a.driver_id, 'occurred_at', instant_text(n.occurred_at),
            'recorded_at', instant_text(n.recorded_at)
        )::text, 'UTF8')
    FROM new_notices n
    JOIN orders o ON o.order_id = n.order_id
    LEFT JOIN assignment a ON a.order_id = n.order_id AND a.assignment_no = n.assignment_no
    ORDER BY n.order_id, n.order_seq;
    PERFORM webhook_delivery__queue(n.order_id, n.order_seq, 'order.' || n.kind)
    FROM new_notices n;
    RETURN NULL;
END
$$;

CREATE TRIGGER _900_announce AFTER INSERT ON order_notice REFERENCING NEW TABLE AS new_notices
FOR EACH STATEMENT EXECUTE FUNCTION order_notice__announce();

CREATE FUNCTION order_event__queue_webhooks()
RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM webhook w WHERE w.is_on) THEN
        PERFORM webhook_delivery__queue(e.order_id, e.order_seq, 'order.' || e.state)
        FROM (SELECT * FROM new_events ORDER BY order_id, order_seq) e;
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER _910_queue_webhooks AFTER INSERT ON order_event REFERENCING NEW TABLE AS new_events
FOR EACH STATEMENT EXECUTE FUNCTION order_event__queue_webhooks();

-- What was erased of an order must not be sent, and its log goes too.
CREATE FUNCTION orders__forget_deliveries()
RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM webhook_delivery d WHERE d.order_id = NEW.order_id;
    RETURN NULL;
END
$$;

CREATE TRIGGER _920_forget_deliveries AFTER UPDATE OF forgotten_at ON orders
FOR EACH ROW WHEN (NEW.forgotten_at IS NOT NULL)
EXECUTE FUNCTION orders__forget_deliveries();

REVOKE EXECUTE ON FUNCTION
    alert__acknowledge_v1,
    alert__causes,
    alert__update_v1,
    change_webhook_v1,
    create_webhook_v1,
    delete_webhook_v1,
    order_event__queue_webhooks,
    order_notice__add,
    order_notice__announce,
    order_notice__decide_v1,
    order_notice__due,
    order_notice__read_v1,
    orders__forget_deliveries,
    retention__expire_records,
    rotate_webhook_v1,
    send_webhook_again_v1,
    webhook_delivery__backlog_v1,
    webhook_delivery__body,
    webhook_delivery__claim_v1,
    webhook_delivery__queue,
    webhook_delivery__release_next,
    webhook_delivery__report_v1
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    webhook_delivery__claim_v1, webhook_delivery__report_v1, webhook_delivery__backlog_v1
TO webhooks;
GRANT EXECUTE ON FUNCTION order_notice__decide_v1, alert__update_v1 TO driver_events;
GRANT EXECUTE ON FUNCTION
    alert__acknowledge_v1, create_webhook_v1, change_webhook_v1, rotate_webhook_v1,
    delete_webhook_v1, send_webhook_again_v1, order_notice__read_v1
TO tracking_api;
GRANT SELECT ON alert, order_notice, webhook_delivery TO tracking_api;
GRANT SELECT (
    webhook_id, url, description, events, is_on, off_reason, off_at, failing_since,
    last_success_at, created_at, created_by
) ON webhook TO tracking_api;
