-- The link of a failed order leads to its retry. Web push goes by the notice `nearby`.

SET LOCAL search_path = doorstep, public;

-- What only the customer of an order reads, as JSON: the address, the note for the courier, and
-- whom to call. The courier's number is shown while the courier may be seen and the order's contact
-- rule lets the courier reach the customer, too.
CREATE OR REPLACE FUNCTION customer_page_v1(of_token_sha256 bytea, of_order_id uuid)
RETURNS text LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    PERFORM customer_links__require(of_token_sha256, of_order_id);
    RETURN (
        SELECT json_build_object(
            'customer_name', o.customer_name, 'address', d.address, 'door_note', d.door_note,
            'items', d.items, 'promised_from', d.promised_from, 'promised_to', d.promised_to,
            'contact_rule', coalesce(d.contact_rule, 'none'),
            'courier_phone', CASE WHEN d.contact_rule <> 'none' THEN (
                SELECT r.phone FROM assignment a JOIN driver r ON r.driver_id = a.driver_id
                WHERE a.order_id = o.order_id AND a.assignment_no = o.assignment_no
                    AND upper_inf(a.visible)
            ) END,
            'restaurant_phone', p.phone,
            'may_change', order_state__is_before_pick_up(o.state),
            'has_retry', EXISTS (SELECT FROM order_retry t WHERE t.retry_of = o.order_id),
            'shared_at', (
                SELECT max(s.created_at) FROM share_link s
                WHERE s.owner_sha256 = of_token_sha256 AND s.revoked_at IS NULL
            ))
        FROM orders o
        JOIN restaurant p ON p.restaurant_id = o.restaurant_id
        LEFT JOIN order_detail d ON d.order_id = o.order_id
        WHERE o.order_id = of_order_id
    );
END
$$;

-- Leads the customer of a failed order to the order that tries it again, and makes `new_token` a
-- token of it. A repeat changes nothing. Returns null without a retry, and once a link of it was
-- revoked: then only a new link from staff leads there. Raises DS015 for an invalid link.
CREATE FUNCTION customer_retry_v1(
    of_token_sha256 bytea, of_order_id uuid, new_token_sha256 bytea
)
RETURNS uuid LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
DECLARE
    new_id uuid;
BEGIN
    PERFORM customer_links__require(of_token_sha256, of_order_id);
    SELECT r.order_id INTO new_id FROM order_retry r WHERE r.retry_of = of_order_id;
    IF new_id IS NULL OR EXISTS (
        SELECT FROM access_token t WHERE t.order_id = new_id AND t.revoked_at IS NOT NULL
    ) THEN
        RETURN NULL;
    END IF;
    INSERT INTO access_token (token_sha256, role, order_id)
    VALUES (new_token_sha256, 'customer', new_id)
    ON CONFLICT DO NOTHING;
    RETURN new_id;
END
$$;

-- Takes the notifications that are due, each once: nearby, by its notice and while the customer may
-- see the courier, and delivered within the last ten minutes. Subscriptions of orders that have
-- ended are removed. `of_orders` null: of all orders.
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

REVOKE EXECUTE ON FUNCTION customer_retry_v1 FROM PUBLIC;
GRANT EXECUTE ON FUNCTION customer_retry_v1 TO customer;

-- Staff read the early estimate, too.
GRANT SELECT (ready_at) ON order_detail TO tracking_api;
