-- Notifications by web push are sent once, and lost by no crash.

SET LOCAL search_path = doorstep, public;
SET LOCAL check_function_bodies = off;  -- functions may refer to objects that are created later

ALTER TABLE push_subscription
    ADD COLUMN delivered_at timestamptz, ADD COLUMN due_at timestamptz,
    ADD COLUMN sending_until timestamptz, ADD COLUMN attempts int NOT NULL DEFAULT 0;

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

REVOKE EXECUTE ON FUNCTION
    push_subscription__next, push_subscription__claim_v1, push_subscription__report_v1
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION push_subscription__claim_v1, push_subscription__report_v1
TO tracking_api;
