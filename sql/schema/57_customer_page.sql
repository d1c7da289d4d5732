-- The customer's own page besides tracking, and links to share. What the role `customer` may
-- execute raises DS015 for an invalid link, as in 52_customers.sql.

-- Raises DS015 unless the customer's own token leads to the order. A share's token does not.
CREATE FUNCTION customer_links__require(of_token_sha256 bytea, of_order_id uuid)
RETURNS void LANGUAGE plpgsql STABLE
AS $$
BEGIN
    PERFORM FROM customer_links__good(ARRAY[of_token_sha256], ARRAY[of_order_id]);
    IF NOT FOUND THEN
        RAISE EXCEPTION 'this link does not lead to an order' USING ERRCODE = 'DS015';
    END IF;
END
$$;

-- Whether an order is not picked up yet, so that its customer may still change it.
CREATE FUNCTION order_state__is_before_pick_up(of_state order_state)
RETURNS bool LANGUAGE sql IMMUTABLE
RETURN of_state IN ('created', 'confirmed', 'assigned', 'at_restaurant');

-- What only the customer of an order reads, as JSON: the address, the note for the courier, and
-- whom to call. The courier's number is shown while the courier may be seen and the order's contact
-- rule lets the courier reach the customer, too.
CREATE FUNCTION customer_page_v1(of_token_sha256 bytea, of_order_id uuid)
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

-- Changes the note for the courier, or clears it. The note that the order was made with is kept, so
-- that its creator can repeat the request. Raises DS001 after pick-up.
CREATE FUNCTION customer_note_v1(of_token_sha256 bytea, of_order_id uuid, new_note text)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
DECLARE
    o orders;
BEGIN
    PERFORM customer_links__require(of_token_sha256, of_order_id);
    PERFORM pg_advisory_xact_lock(hashtextextended(of_order_id::text, 1));  -- as commands do
    SELECT * INTO STRICT o FROM orders t WHERE t.order_id = of_order_id;
    IF NOT order_state__is_before_pick_up(o.state) THEN
        RAISE EXCEPTION 'the door note cannot be changed after pick-up' USING ERRCODE = 'DS001',
            DETAIL = json_build_object('subject_id', of_order_id, 'command', 'door_note',
                'current_state', o.state, 'allowed', '[]'::json)::text;
    END IF;
    INSERT INTO order_detail AS t (order_id, created_by, door_note, door_note_set_at, search)
    VALUES (of_order_id, o.created_by, new_note, clock_timestamp(), '')
    ON CONFLICT (order_id) DO UPDATE
        SET ordered_door_note = CASE WHEN t.door_note_set_at IS NULL THEN t.door_note
                ELSE t.ordered_door_note END,
            door_note = EXCLUDED.door_note, door_note_set_at = EXCLUDED.door_note_set_at;
    UPDATE order_detail t SET search = to_tsvector('simple', concat_ws(' ', o.customer_name,
        t.external_id, t.customer_phone, regexp_replace(t.customer_phone, '\D', '', 'g'),
        t.address, t.door_note, t.items))
    WHERE t.order_id = of_order_id;
END
$$;

-- Makes a link to share; an earlier one of this customer's token ends, and is deleted.
CREATE FUNCTION customer_share_v1(
    of_token_sha256 bytea, of_order_id uuid, new_token_sha256 bytea
)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
BEGIN
    PERFORM customer_unshare_v1(of_token_sha256, of_order_id);
    INSERT INTO share_link (token_sha256, order_id, owner_sha256)
    VALUES (new_token_sha256, of_order_id, of_token_sha256);
END
$$;

-- Withdraws the link that a customer shares, if there is one.
CREATE FUNCTION customer_unshare_v1(of_token_sha256 bytea, of_order_id uuid)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
BEGIN
    PERFORM customer_links__require(of_token_sha256, of_order_id);
    -- one at a time, so that no second link stays open
    PERFORM FROM access_token t WHERE t.token_sha256 = of_token_sha256 FOR NO KEY UPDATE;
    DELETE FROM share_link s WHERE s.owner_sha256 = of_token_sha256;
END
$$;

-- Keeps a browser's push subscription until the order ends: five of a token, the oldest is dropped.
CREATE FUNCTION customer_subscribe_v1(
    of_token_sha256 bytea, of_order_id uuid, new_endpoint text, new_p256dh text, new_auth text,
    new_language text
)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
BEGIN
    PERFORM customer_links__require(of_token_sha256, of_order_id);
    PERFORM FROM access_token t WHERE t.token_sha256 = of_token_sha256 FOR NO KEY UPDATE;
    INSERT INTO push_subscription (owner_sha256, endpoint, order_id, p256dh, auth, language)
    SELECT of_token_sha256, new_endpoint, of_order_id, new_p256dh, new_auth, new_language
    FROM orders o WHERE o.order_id = of_order_id AND o.ended_at IS NULL
    ON CONFLICT (owner_sha256, endpoint) DO UPDATE
        SET p256dh = new_p256dh, auth = new_auth, language = new_language;
    DELETE FROM push_subscription p WHERE p.owner_sha256 = of_token_sha256 AND p.endpoint IN (
        SELECT q.endpoint FROM push_subscription q WHERE q.owner_sha256 = of_token_sha256
        ORDER BY q.created_at DESC, q.endpoint OFFSET 5
    );
END
$$;

-- Removes a browser's push subscription, by the hash of its endpoint.
CREATE FUNCTION customer_unsubscribe_v1(
    of_token_sha256 bytea, of_order_id uuid, endpoint_sha256 bytea
)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
BEGIN
    PERFORM customer_links__require(of_token_sha256, of_order_id);
    DELETE FROM push_subscription p
        WHERE p.owner_sha256 = of_token_sha256
            AND sha256(convert_to(p.endpoint, 'UTF8')) = endpoint_sha256;
END
$$;

-- Takes the notifications that are due, each once, for 0.4.0: a crash before the sending loses
-- them. Leaves those that push_subscription__claim_v1 has taken.
CREATE FUNCTION push_subscription__take_due_v1(of_orders uuid[])
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

-- Removes an endpoint of which the push service says that it is gone.
CREATE FUNCTION push_subscription__drop_v1(gone_endpoint text)
RETURNS void LANGUAGE sql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    DELETE FROM push_subscription p WHERE p.endpoint = gone_endpoint
$$;

-- The tokens of the customers who share: per share's token and order, null for one that is not
-- good. Whether the customer's own is good is decided where it is used.
CREATE FUNCTION share_link__owners(token_sha256s bytea[], order_ids uuid[])
RETURNS bytea[] LANGUAGE sql STABLE
AS $$
    SELECT array_agg(s.owner_sha256 ORDER BY k.n)
    FROM unnest(token_sha256s, order_ids) WITH ORDINALITY AS k (token_sha256, order_id, n)
    LEFT JOIN share_link s ON s.token_sha256 = k.token_sha256 AND s.order_id = k.order_id
        AND s.revoked_at IS NULL
$$;

-- As customer_links_v1, of shares.
CREATE FUNCTION share_links_v1(token_sha256s bytea[], order_ids uuid[])
RETURNS TABLE (n int8) LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    SELECT g.n
    FROM customer_links__good(share_link__owners(token_sha256s, order_ids), order_ids) g
$$;

-- What the details of an order tell with a share: not the PIN, the reason of the end, or whether
-- there is a photo. The places stay, for the estimate.
CREATE FUNCTION share_link__details(details text)
RETURNS text LANGUAGE sql IMMUTABLE
RETURN jsonb_set(details::jsonb, '{13}', '{}')::text;

-- As customer_tracks_v2, of shares. The service must not pass on the door either.
CREATE FUNCTION share_tracks_v1(
    token_sha256s bytea[], order_ids uuid[], known_order_seqs int[],
    estimated_order_seqs int[], estimated_fix_ats timestamptz[]
)
RETURNS TABLE (
    n int8, now timestamptz, order_seq int, driver_id text,
    fix_at timestamptz, received_at timestamptz, lon_deg float8, lat_deg float8,
    accuracy_m float8, speed_mps float8, heading_deg float8, details text, trail text
)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    SELECT t.n, t.now, t.order_seq, t.driver_id, t.fix_at, t.received_at, t.lon_deg, t.lat_deg,
        t.accuracy_m, t.speed_mps, t.heading_deg, share_link__details(t.details), t.trail
    FROM customer_tracks_v2(share_link__owners(token_sha256s, order_ids), order_ids,
        known_order_seqs, estimated_order_seqs, estimated_fix_ats) t
$$;

-- As customer_tracks_v3, of shares. The service must not pass on the door either. Details come
-- without a stamp: they are less than the customer's own, and must not be kept for them.
CREATE FUNCTION share_tracks_v2(
    token_sha256s bytea[], order_ids uuid[], known_order_seqs int[], known_stamps int8[],
    estimated_order_seqs int[], estimated_fix_ats timestamptz[]
)
RETURNS TABLE (
    n int8, now timestamptz, order_seq int, driver_id text,
    fix_at timestamptz, received_at timestamptz, lon_deg float8, lat_deg float8,
    accuracy_m float8, speed_mps float8, heading_deg float8, details text, trail text, stamp int8
)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
BEGIN
    RETURN QUERY
    SELECT t.n, t.now, t.order_seq, t.driver_id, t.fix_at, t.received_at, t.lon_deg, t.lat_deg,
        t.accuracy_m, t.speed_mps, t.heading_deg, share_link__details(t.details), t.trail,
        CASE WHEN t.details IS NULL THEN t.stamp END
    FROM customer_tracks_v3(share_link__owners(token_sha256s, order_ids), order_ids,
        known_order_seqs, known_stamps, estimated_order_seqs, estimated_fix_ats) t;
END
$$;

-- As customer_polls_v1, of shares.
CREATE FUNCTION share_polls_v1(token_sha256s bytea[], order_ids uuid[])
RETURNS TABLE (
    n int8, now timestamptz, order_id uuid, order_seq int, driver_id text,
    fix_at timestamptz, received_at timestamptz, lon_deg float8, lat_deg float8,
    accuracy_m float8, speed_mps float8, heading_deg float8
)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    SELECT * FROM customer_polls_v1(share_link__owners(token_sha256s, order_ids), order_ids)
$$;

-- As customer_watch_v1, of shares.
CREATE FUNCTION share_watch_v1(token_sha256s bytea[], order_ids uuid[])
RETURNS void LANGUAGE sql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    SELECT customer_watch_v1(share_link__owners(token_sha256s, order_ids), order_ids)
$$;

-- As customer_waits_v1, of shares.
CREATE FUNCTION share_waits_v1(token_sha256s bytea[], order_ids uuid[])
RETURNS TABLE (n int8, earliest_at timestamptz, latest_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    SELECT * FROM customer_waits_v1(share_link__owners(token_sha256s, order_ids), order_ids)
$$;
