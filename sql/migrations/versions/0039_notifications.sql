-- Notifications by web push are sent once, and lost by no crash; by SMS through webhooks. Requests
-- of offers compare whether they named the driver.

SET LOCAL search_path = doorstep, public;
SET LOCAL check_function_bodies = off;  -- functions may refer to objects that are created later

ALTER TABLE push_subscription
    ADD COLUMN delivered_at timestamptz, ADD COLUMN due_at timestamptz,
    ADD COLUMN sending_until timestamptz, ADD COLUMN attempts int NOT NULL DEFAULT 0;
ALTER TABLE webhook ADD COLUMN with_contact bool NOT NULL DEFAULT false;
ALTER TABLE webhook_delivery ADD COLUMN with_contact bool NOT NULL DEFAULT false;
ALTER TABLE order_offer ADD COLUMN is_driver_named bool;

-- What to send to a subscription now: nearby, by its notice and while the customer may see the
-- courier; delivered, within ten minutes, and again within an hour if the attempt has not ended.
-- Returns over for one without further notifications, null while there is nothing to do.
CREATE FUNCTION push_subscription__next(
    p push_subscription, o orders, is_revoked bool, at timestamptz
)
RETURNS text LANGUAGE plpgsql STABLE
AS $$
DECLARE
    -- three attempts, and two whose processes died
    is_repeatable CONSTANT bool := coalesce(p.due_at <= at AND p.attempts < 5, false);
BEGIN
    IF p.sending_until > at THEN
        RETURN NULL;
    ELSIF is_revoked THEN
        RETURN 'over';
    ELSIF o.ended_at IS NULL THEN
        RETURN CASE WHEN (p.nearby_at IS NULL OR is_repeatable)
            AND EXISTS (SELECT FROM order_notice n WHERE n.order_id = o.order_id
                AND n.kind = 'nearby' AND n.assignment_no = o.assignment_no)
            AND EXISTS (SELECT FROM assignment a WHERE a.order_id = o.order_id
                AND a.assignment_no = o.assignment_no AND upper_inf(a.visible))
            THEN 'nearby' END;
    ELSIF o.state <> 'delivered' THEN
        RETURN 'over';
    ELSIF p.delivered_at IS NULL THEN
        RETURN CASE WHEN o.ended_at > at - interval '10 min' THEN 'delivered' ELSE 'over' END;
    ELSIF p.due_at > at THEN
        RETURN NULL;
    END IF;
    RETURN CASE WHEN is_repeatable AND o.ended_at > at - interval '1 hour' THEN 'delivered'
        ELSE 'over' END;
END
$$;

-- Gives out the notifications that are due, at most so many, and of one order so many at a time.
-- An attempt that is not reported within lease_s is made again. Removes subscriptions that are
-- over. `of_orders` null: of all orders.
CREATE FUNCTION push_subscription__claim_v1(
    of_orders uuid[], at_most int, at_most_of_order int, lease_s float8
)
RETURNS TABLE (
    order_id uuid, kind text, endpoint text, p256dh text, auth text, language text,
    owner_sha256 bytea, attempt int
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    at CONSTANT timestamptz := clock_timestamp();
    until CONSTANT timestamptz := at + make_interval(secs => lease_s);
BEGIN
    RETURN QUERY
    WITH due AS MATERIALIZED (
        SELECT p.owner_sha256, p.endpoint, p.order_id, p.created_at, k.kind
        FROM push_subscription p
        JOIN orders o ON o.order_id = p.order_id
        JOIN access_token t ON t.token_sha256 = p.owner_sha256
        CROSS JOIN LATERAL (
            SELECT push_subscription__next(p, o, t.revoked_at IS NOT NULL, at)
        ) AS k (kind)
        WHERE (of_orders IS NULL OR p.order_id = ANY (of_orders)) AND k.kind IS NOT NULL
        FOR UPDATE OF p SKIP LOCKED
    ), over AS (
        DELETE FROM push_subscription p USING due d
        WHERE d.kind = 'over' AND p.owner_sha256 = d.owner_sha256 AND p.endpoint = d.endpoint
    ), ranked AS (
        SELECT d.*, (
            SELECT count(*) FROM push_subscription s
            WHERE s.order_id = d.order_id AND s.sending_until > at
        ) + row_number() OVER (
            PARTITION BY d.order_id ORDER BY d.created_at, d.endpoint
        ) AS nth
        FROM due d WHERE d.kind <> 'over'
    ), chosen AS (
        SELECT r.* FROM ranked r WHERE r.nth <= at_most_of_order
        ORDER BY r.nth, r.created_at LIMIT at_most
    )
    UPDATE push_subscription p SET due_at = until, sending_until = until,
        nearby_at = CASE c.kind WHEN 'nearby' THEN coalesce(p.nearby_at, at) ELSE p.nearby_at END,
        delivered_at = CASE c.kind WHEN 'delivered' THEN coalesce(p.delivered_at, at) END,
        attempts = 1 + CASE WHEN c.kind = 'delivered' AND p.delivered_at IS NULL THEN 0
            ELSE p.attempts END
    FROM chosen c WHERE p.owner_sha256 = c.owner_sha256 AND p.endpoint = c.endpoint
    RETURNING p.order_id, c.kind, p.endpoint, p.p256dh, p.auth, p.language, p.owner_sha256,
        p.attempts;
END
$$;

-- Records the end of an attempt. retry_in_s is the pause before the next one; null: there is none,
-- the notification is sent or given up. A report of an attempt that was not the last changes
-- nothing.
CREATE FUNCTION push_subscription__report_v1(
    of_owner_sha256 bytea, of_endpoint text, of_kind text, of_attempt int, retry_in_s float8
)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
DECLARE
    is_delivered CONSTANT bool := of_kind = 'delivered';
BEGIN
    DELETE FROM push_subscription p
        WHERE p.owner_sha256 = of_owner_sha256 AND p.endpoint = of_endpoint
            AND p.attempts = of_attempt AND p.delivered_at IS NOT NULL AND is_delivered
            AND retry_in_s IS NULL;
    UPDATE push_subscription p SET sending_until = NULL,
        due_at = clock_timestamp() + make_interval(secs => retry_in_s)
        WHERE p.owner_sha256 = of_owner_sha256 AND p.endpoint = of_endpoint
            AND p.attempts = of_attempt AND (p.delivered_at IS NOT NULL) = is_delivered;
END
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

-- Takes the notifications that are due, each once, for 0.4.0: a crash before the sending loses
-- them. Leaves those that push_subscription__claim_v1 has taken.
CREATE OR REPLACE FUNCTION push_subscription__take_due_v1(of_orders uuid[])
RETURNS TABLE (
    order_id uuid, kind text, endpoint text, p256dh text, auth text, language text
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    at CONSTANT timestamptz := clock_timestamp();
BEGIN
    RETURN QUERY
    WITH over AS (
        DELETE FROM push_subscription p USING orders o, access_token t
        WHERE o.order_id = p.order_id AND t.token_sha256 = p.owner_sha256
            AND (of_orders IS NULL OR p.order_id = ANY (of_orders))
            AND (o.ended_at IS NOT NULL OR t.revoked_at IS NOT NULL)
            AND p.delivered_at IS NULL
        RETURNING p.*, o.state, o.ended_at, t.revoked_at
    )
    SELECT p.order_id, 'delivered', p.endpoint, p.p256dh, p.auth, p.language FROM over p
    WHERE p.state = 'delivered' AND p.revoked_at IS NULL AND p.ended_at > at - interval '10 min';
    RETURN QUERY
    UPDATE push_subscription p SET nearby_at = at FROM orders o
    WHERE o.order_id = p.order_id AND p.nearby_at IS NULL
        AND (of_orders IS NULL OR p.order_id = ANY (of_orders))
        AND o.ended_at IS NULL
        AND EXISTS (SELECT FROM order_notice n WHERE n.order_id = o.order_id
            AND n.kind = 'nearby' AND n.assignment_no = o.assignment_no)
        AND EXISTS (SELECT FROM assignment a WHERE a.order_id = o.order_id
            AND a.assignment_no = o.assignment_no AND upper_inf(a.visible))
    RETURNING p.order_id, 'nearby', p.endpoint, p.p256dh, p.auth, p.language;
END
$$;

-- Queues an event of an order for each webhook that is on and wants it.
CREATE OR REPLACE FUNCTION webhook_delivery__queue(of_order_id uuid, of_order_seq int, of_type text)
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

-- As webhook_delivery__claim_v2, without customers.
CREATE OR REPLACE FUNCTION webhook_delivery__claim_v1(at_most_each int, lease_s float8)
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

-- As create_webhook_v2, without customers.
CREATE OR REPLACE FUNCTION create_webhook_v1(
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
CREATE OR REPLACE FUNCTION change_webhook_v1(of_webhook_id uuid, "values" jsonb, by_who text)
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

-- Offers a confirmed order: to the named driver, with room for it, or to the next one. Raises DS031
-- if it has an open offer.
CREATE OR REPLACE FUNCTION offer_order_as_staff_v1(
    of_order_id uuid, to_driver_id text, by_name text, with_idempotency_key text
)
RETURNS SETOF order_offer LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
SET enable_hashjoin = off  -- every join is a look-up by key
SET enable_mergejoin = off
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    o orders;
    offer order_offer;
    is_free bool;
    is_named CONSTANT bool := to_driver_id IS NOT NULL;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(of_order_id::text, 1));
    SELECT * INTO o FROM orders k WHERE k.order_id = of_order_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no order %', of_order_id USING ERRCODE = 'DS002';
    END IF;
    SELECT * INTO offer FROM order_offer f WHERE f.order_id = of_order_id
        AND f.offered_by = by_name AND f.offer_key = with_idempotency_key;
    IF FOUND THEN
        IF offer.driver_id <> to_driver_id
            OR offer.is_driver_named <> (to_driver_id IS NOT NULL)
        THEN
            RAISE EXCEPTION 'this key was used for another offer' USING ERRCODE = 'DS008';
        END IF;
        RETURN NEXT offer;
        RETURN;
    END IF;
    IF o.state <> 'confirmed' THEN
        PERFORM orders__raise_illegal_transition(of_order_id, 'offer', o.state, 'staff');
    END IF;
    UPDATE order_offer f SET ended_at = f.expires_at, outcome = 'expired'
        WHERE f.order_id = of_order_id AND f.ended_at IS NULL
            AND f.expires_at <= clock_timestamp();
    SELECT * INTO offer FROM order_offer f
        WHERE f.order_id = of_order_id AND f.ended_at IS NULL;
    IF FOUND THEN
        RAISE EXCEPTION 'this order is offered to %, until %', offer.driver_id,
            instant_text(offer.expires_at) USING ERRCODE = 'DS031';
    END IF;
    IF to_driver_id IS NULL THEN
        to_driver_id := order_offer__next_driver(o);
        IF to_driver_id IS NULL THEN
            RAISE EXCEPTION 'no driver on duty has room, is near and was not offered this yet'
                USING ERRCODE = 'DS007';
        END IF;
    ELSE
        SELECT driver_stops__has_room(s.driver_id, of_order_id) INTO is_free FROM driver_state s
            WHERE s.driver_id = to_driver_id;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'there is no driver %', to_driver_id USING ERRCODE = 'DS003';
        ELSIF NOT is_free THEN
            RAISE EXCEPTION 'driver % is off duty or has no room for another order', to_driver_id
                USING ERRCODE = 'DS006';
        END IF;
    END IF;
    PERFORM record_audit_v1(by_name, 'order.offer', of_order_id::text,
        jsonb_build_object('driver_id', to_driver_id));
    offer := order_offer__open(o, to_driver_id, by_name, with_idempotency_key);
    UPDATE order_offer f SET is_driver_named = is_named
        WHERE f.order_offer_id = offer.order_offer_id
        RETURNING * INTO offer;
    RETURN NEXT offer;
END
$$;

REVOKE EXECUTE ON FUNCTION
    push_subscription__next, push_subscription__claim_v1, push_subscription__report_v1,
    webhook_delivery__needs_contact, webhook_delivery__claim_v2, create_webhook_v2
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    push_subscription__claim_v1, push_subscription__report_v1, create_webhook_v2
TO tracking_api;
GRANT EXECUTE ON FUNCTION webhook_delivery__claim_v2 TO webhooks;
GRANT SELECT (with_contact) ON webhook TO tracking_api;
