-- Webhooks: what admins set, and the queue of the service `webhooks`. An order's events reach a
-- webhook in their order: an event is due when the one before it has ended.

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

-- Whether an event is to reach its customer by SMS or the like: there is a phone number, and no
-- subscription to web push. Decided with the event, since the push ends the subscription.
CREATE FUNCTION webhook_delivery__needs_contact(of_order_id uuid, of_type text)
RETURNS bool LANGUAGE sql STABLE
AS $$
    SELECT of_type IN ('order.nearby', 'order.delivered', 'order.failed')
        AND EXISTS (SELECT FROM order_detail d
            WHERE d.order_id = of_order_id AND d.customer_phone IS NOT NULL)
        AND NOT EXISTS (SELECT FROM push_subscription p
            JOIN access_token t ON t.token_sha256 = p.owner_sha256
            WHERE p.order_id = of_order_id AND t.revoked_at IS NULL)
$$;

-- Queues an event of an order for each webhook that is on and wants it.
CREATE FUNCTION webhook_delivery__queue(of_order_id uuid, of_order_seq int, of_type text)
RETURNS void LANGUAGE plpgsql
AS $$
DECLARE
    w webhook;
BEGIN
    FOR w IN
        SELECT * FROM webhook k
        WHERE k.is_on AND (k.events IS NULL OR of_type = ANY (k.events)) ORDER BY k.webhook_id
    LOOP
        -- The lock excludes that the last of them ends unseen.
        PERFORM FROM webhook_delivery d
            WHERE d.webhook_id = w.webhook_id AND d.order_id = of_order_id AND d.ended_at IS NULL
                AND NOT d.is_sent_again
            ORDER BY d.order_seq FOR UPDATE;
        INSERT INTO webhook_delivery (webhook_id, order_id, order_seq, event_type, due_at,
            with_contact)
        VALUES (w.webhook_id, of_order_id, of_order_seq, of_type,
            CASE WHEN FOUND THEN 'infinity' ELSE clock_timestamp() END,
            w.with_contact AND webhook_delivery__needs_contact(of_order_id, of_type));
    END LOOP;
END
$$;

-- Gives out due deliveries, of each webhook at most `at_most_each` at a time, and one while it
-- fails. An attempt that is not reported within lease_s is made again. With the customer's phone
-- number only if the webhook may have it, and while the news is fresh; it is stored nowhere else.
CREATE FUNCTION webhook_delivery__claim_v2(at_most_each int, lease_s float8)
RETURNS TABLE (
    delivery_id int8, webhook_id uuid, url text, secrets text[], message_id text, body text,
    attempt int, first_attempt_at timestamptz, event_type text, phone text, language text
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
            SELECT d.delivery_id, d.order_id, d.event_type, d.created_at, d.with_contact
            FROM webhook_delivery d
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
        FROM due LEFT JOIN LATERAL (
            SELECT t.customer_phone, t.customer_language FROM order_detail t
            WHERE t.order_id = due.order_id AND due.with_contact AND w.with_contact
                AND due.created_at > at - CASE due.event_type WHEN 'order.nearby'
                    THEN interval '5 min' ELSE interval '1 hour' END
        ) AS c (phone, language) ON true
        WHERE d.delivery_id = due.delivery_id
        RETURNING d.delivery_id, w.webhook_id, w.url,
            array_remove(ARRAY[w.secret,
                CASE WHEN w.old_secret_until > at THEN w.old_secret END], NULL),
            'msg_' || replace(d.order_id::text, '-', '') || '_' || d.order_seq,
            webhook_delivery__body(d.order_id, d.order_seq, d.event_type),
            d.attempts, d.first_attempt_at, d.event_type, c.phone, c.language;
    END LOOP;
END
$$;

-- As webhook_delivery__claim_v2, without customers.
CREATE FUNCTION webhook_delivery__claim_v1(at_most_each int, lease_s float8)
RETURNS TABLE (
    delivery_id int8, webhook_id uuid, url text, secrets text[], message_id text, body text,
    attempt int, first_attempt_at timestamptz
)
LANGUAGE sql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    SELECT c.delivery_id, c.webhook_id, c.url, c.secrets, c.message_id, c.body, c.attempt,
        c.first_attempt_at
    FROM webhook_delivery__claim_v2(at_most_each, lease_s) c
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

-- Adds a webhook; `allow_contact` allows it the customers' phone numbers. Raises DS072 beyond 100
-- webhooks.
CREATE FUNCTION create_webhook_v2(
    to_url text, with_description text, of_events text[], allow_contact bool, with_secret text,
    by_who text
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
    INSERT INTO webhook (url, description, events, with_contact, secret, created_by)
    VALUES (to_url, coalesce(with_description, ''), of_events, allow_contact, with_secret, by_who)
    RETURNING webhook_id INTO created_id;
    PERFORM record_audit_v1(by_who, 'webhook.create', created_id::text,
        CASE WHEN allow_contact THEN jsonb_build_object('with_contact', true) END);
    RETURN created_id;
END
$$;

-- As create_webhook_v2, without customers.
CREATE FUNCTION create_webhook_v1(
    to_url text, with_description text, of_events text[], with_secret text, by_who text
)
RETURNS uuid LANGUAGE sql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    SELECT create_webhook_v2(to_url, with_description, of_events, false, with_secret, by_who)
$$;

-- Sets url, description, events (null: all), with_contact or is_on. A new url alone takes
-- with_contact back: it was allowed to the old one. Pending deliveries of one that is switched on
-- begin anew, due now. Raises DS071 for an unknown webhook.
CREATE FUNCTION change_webhook_v1(of_webhook_id uuid, "values" jsonb, by_who text)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
DECLARE
    w webhook;
    had_contact bool;
BEGIN
    IF "values" -> 'is_on' = 'true' THEN
        -- Before the webhook, as reports lock them. An attempt under way becomes a stale one.
        UPDATE webhook_delivery d SET attempts = 0, first_attempt_at = NULL,
            due_at = CASE WHEN d.sending_until > clock_timestamp() THEN d.due_at
                ELSE least(d.due_at, clock_timestamp()) END
        FROM webhook k
        WHERE k.webhook_id = of_webhook_id AND NOT k.is_on AND d.webhook_id = k.webhook_id
            AND d.ended_at IS NULL AND d.attempts > 0;
    END IF;
    SELECT * INTO w FROM webhook k WHERE k.webhook_id = of_webhook_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no webhook %', of_webhook_id USING ERRCODE = 'DS071';
    END IF;
    had_contact := w.with_contact;
    w.with_contact := w.with_contact AND w.url = coalesce("values" ->> 'url', w.url);
    w := jsonb_populate_record(w, "values");
    UPDATE webhook k SET url = w.url, description = w.description, events = w.events,
        with_contact = w.with_contact, is_on = w.is_on,
        off_at = CASE WHEN NOT w.is_on THEN coalesce(k.off_at, clock_timestamp()) END,
        off_reason = CASE WHEN NOT w.is_on THEN coalesce(k.off_reason, 'admin') END,
        failing_since = CASE WHEN k.is_on = w.is_on THEN k.failing_since END
    WHERE k.webhook_id = of_webhook_id;
    PERFORM administration__record_audit(
        by_who, 'webhook.change', of_webhook_id::text, "values");
    IF w.with_contact <> had_contact OR "values" ? 'with_contact' THEN
        PERFORM record_audit_v1(by_who, 'webhook.contact', of_webhook_id::text,
            jsonb_build_object('with_contact', w.with_contact));
    END IF;
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
