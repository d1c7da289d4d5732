-- Offering orders to drivers, who accept or decline. Each function holds the advisory lock for
-- commands on the order. Accepting is the command `assign` of the driver, with its locks.

-- Couriers with room for another order: those without an order, and those with one. Null instead of
-- more than 500, since a search near an order then soon finds some. Costs one pass over the fleet.
CREATE FUNCTION order_offer__couriers_with_room(
    OUT available courier_place[], OUT with_orders courier_place[]
)
LANGUAGE plpgsql
AS $$
DECLARE
    at_most CONSTANT int := 500;
    recent_at timestamptz;
    l limits;
BEGIN
    SELECT * INTO STRICT l FROM limits;
    recent_at := clock_timestamp() - make_interval(secs => l.nearest_max_age_s);
    available := ARRAY(
        SELECT (s.driver_id, s.lon_deg, s.lat_deg)::courier_place FROM driver_state s
        WHERE s.state = 'available' AND s.fix_at > recent_at
        LIMIT at_most + 1
    );
    with_orders := ARRAY(
        SELECT (s.driver_id, s.lon_deg, s.lat_deg)::courier_place FROM driver_state s
        WHERE s.order_id IS NOT NULL AND s.duty = 'on_duty' AND s.fix_at > recent_at
            AND l.max_open_orders > (
                SELECT count(*) FROM assignment a
                WHERE a.driver_id = s.driver_id AND a.ended_at IS NULL
            )
        LIMIT at_most + 1
    );
    IF cardinality(available) > at_most THEN
        available := NULL;
    END IF;
    IF cardinality(with_orders) > at_most THEN
        with_orders := NULL;
    END IF;
END
$$;

-- Of some couriers, those nearest to a restaurant and not excluded, the nearest first.
CREATE FUNCTION order_offer__nearest_of(
    couriers courier_place[], r restaurant, excluded text[], at_most int
)
RETURNS text[] LANGUAGE plpgsql
AS $$
BEGIN
    RETURN ARRAY(
        SELECT c.driver_id FROM unnest(couriers) c
        CROSS JOIN LATERAL (
            SELECT ground_distance_m(c.lon_deg, c.lat_deg, r.lon_deg, r.lat_deg)
        ) AS m (distance_m)
        WHERE m.distance_m <= (SELECT l.nearest_max_m FROM limits l)
            AND c.driver_id <> ALL (excluded)
        ORDER BY m.distance_m, c.driver_id
        LIMIT at_most
    );
END
$$;

-- The driver to offer an order to, or null: the nearest available one, or of those with room for
-- another order the one with the least detour. No one who was offered it, or has had it. Chooses
-- from the couriers of order_offer__couriers_with_room, and searches near the restaurant instead of
-- a null.
CREATE FUNCTION order_offer__next_driver(
    o orders, available courier_place[] DEFAULT NULL, with_orders courier_place[] DEFAULT NULL
)
RETURNS text LANGUAGE plpgsql
AS $$
DECLARE
    excluded CONSTANT text[] := ARRAY(
        SELECT f.driver_id FROM order_offer f WHERE f.order_id = o.order_id
        UNION ALL
        SELECT a.driver_id FROM assignment a WHERE a.order_id = o.order_id
    );
    r restaurant;
    found_id text;
    found_count int;
    at_most int;
BEGIN
    SELECT * INTO STRICT r FROM restaurant k WHERE k.restaurant_id = o.restaurant_id;
    IF available IS NOT NULL THEN
        found_id := (order_offer__nearest_of(available, r, excluded, 1))[1];
    ELSE
        -- The few nearest are found in a small box; the others count only if none of these is left.
        FOREACH at_most IN ARRAY ARRAY[5, 100] LOOP
            SELECT count(*), (array_agg(n.driver_id ORDER BY n.distance_m, n.driver_id)
                    FILTER (WHERE n.driver_id <> ALL (excluded)))[1]
                INTO found_count, found_id
                FROM nearest_drivers_v1(r.lon_deg, r.lat_deg, at_most) n;
            EXIT WHEN found_id IS NOT NULL OR found_count < at_most;
        END LOOP;
    END IF;
    IF found_id IS NULL AND with_orders IS NOT NULL THEN
        SELECT c.driver_id INTO found_id
            FROM driver_stops__rank(o, r, order_offer__nearest_of(with_orders, r, excluded, 20)) c
            LIMIT 1;
    ELSIF found_id IS NULL THEN
        SELECT c.driver_id INTO found_id FROM driver_stops__candidates(o, excluded) c LIMIT 1;
    END IF;
    RETURN found_id;
END
$$;

CREATE FUNCTION order_offer__open(o orders, to_driver_id text, by_name text, with_key text)
RETURNS order_offer LANGUAGE plpgsql
AS $$
DECLARE
    at CONSTANT timestamptz := clock_timestamp();
    opened order_offer;
BEGIN
    INSERT INTO order_offer (order_id, driver_id, offered_at, expires_at, offered_by, offer_key)
    SELECT o.order_id, to_driver_id, at, at + make_interval(secs => p.offer_s), by_name, with_key
    FROM policy p WHERE p.policy_id = o.policy_id
    RETURNING * INTO opened;
    DELETE FROM unassigned_order u WHERE u.order_id = o.order_id;
    RETURN opened;
END
$$;

-- Ends the open offer of an order that leaves the state `confirmed`.
CREATE FUNCTION order_offer__end_with_state(of_order_id uuid, by_actor actor, at timestamptz)
RETURNS void LANGUAGE plpgsql
AS $$
BEGIN
    UPDATE order_offer f SET ended_at = greatest(at, f.offered_at), outcome = CASE
            WHEN by_actor = 'driver' THEN 'accepted'
            WHEN f.expires_at <= at THEN 'expired'
            ELSE 'withdrawn'
        END::offer_outcome
        WHERE f.order_id = of_order_id AND f.ended_at IS NULL;
    DELETE FROM unassigned_order u WHERE u.order_id = of_order_id;
END
$$;

-- Offers a confirmed order without an open offer to the next driver, if its policy says so. Lists
-- it as unassigned if there is no next one. The couriers: as for order_offer__next_driver.
CREATE FUNCTION order_offer__continue(
    of_order_id uuid, available courier_place[] DEFAULT NULL,
    with_orders courier_place[] DEFAULT NULL
)
RETURNS void LANGUAGE plpgsql
AS $$
DECLARE
    o orders;
    next_driver_id text;
    at CONSTANT timestamptz := clock_timestamp();
BEGIN
    SELECT * INTO o FROM orders k WHERE k.order_id = of_order_id AND k.state = 'confirmed';
    IF NOT FOUND OR EXISTS (
        SELECT FROM order_offer f WHERE f.order_id = of_order_id AND f.ended_at IS NULL
    ) THEN
        RETURN;
    END IF;
    IF (SELECT p.auto_offer FROM policy p WHERE p.policy_id = o.policy_id) THEN
        next_driver_id := order_offer__next_driver(o, available, with_orders);
    END IF;
    IF next_driver_id IS NULL THEN
        INSERT INTO unassigned_order (order_id, since, checked_at) VALUES (of_order_id, at, at)
        ON CONFLICT (order_id) DO UPDATE SET checked_at = at;
    ELSE
        PERFORM order_offer__open(o, next_driver_id, NULL, NULL);
    END IF;
END
$$;

-- Returns the newest offer of an order to a driver. Raises DS002 if there is none, DS030 if it is
-- not open.
CREATE FUNCTION order_offer__of_driver(of_order_id uuid, to_driver_id text)
RETURNS order_offer LANGUAGE plpgsql
AS $$
DECLARE
    newest order_offer;
BEGIN
    SELECT * INTO newest FROM order_offer f
        WHERE f.order_id = of_order_id AND f.driver_id = to_driver_id
        ORDER BY f.order_offer_id DESC LIMIT 1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'driver % has no offer of order %', to_driver_id, of_order_id
            USING ERRCODE = 'DS002';
    ELSIF newest.ended_at IS NULL AND newest.expires_at > clock_timestamp() THEN
        RETURN newest;
    END IF;
    RAISE EXCEPTION USING ERRCODE = 'DS030', MESSAGE = CASE newest.outcome
        WHEN 'accepted' THEN 'you have accepted this offer already'
        WHEN 'declined' THEN 'you have declined this offer'
        WHEN 'withdrawn' THEN 'this offer was withdrawn'
        ELSE 'this offer has expired'
    END;
END
$$;

-- Offers a confirmed order: to the named driver, with room for it, or to the next one. Raises DS031
-- if it has an open offer.
CREATE FUNCTION offer_order_as_staff_v1(
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

-- Accepts an open offer, which assigns the order, for a driver with room for it.
CREATE FUNCTION driver_accept_offer_v1(
    of_token_sha256 bytea, of_order_id uuid, with_idempotency_key text
)
RETURNS TABLE (
    order_id uuid, state order_state, assignment_no int, order_seq int, driver_id text
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
SET enable_hashjoin = off  -- every join is a look-up by key
SET enable_mergejoin = off
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    by_driver_id CONSTANT text := driver__of_token(of_token_sha256);
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(of_order_id::text, 1));
    IF EXISTS (SELECT FROM order_offer f WHERE f.order_id = of_order_id
        AND f.driver_id = by_driver_id AND f.decline_key = with_idempotency_key)
    THEN
        RAISE EXCEPTION 'this key declined the offer' USING ERRCODE = 'DS008';
    ELSIF NOT EXISTS (SELECT FROM order_command k WHERE k.order_id = of_order_id
        AND k.actor = 'driver' AND k.actor_id = by_driver_id
        AND k.idempotency_key = with_idempotency_key)
    THEN
        PERFORM order_offer__of_driver(of_order_id, by_driver_id);
    END IF;
    RETURN QUERY
        SELECT c.order_id, c.state, c.assignment_no, c.order_seq, c.driver_id
        FROM apply_order_command_v1(of_order_id, 'assign', 'driver', by_driver_id, by_driver_id,
            with_idempotency_key) c;
END
$$;

-- Declines an open offer. The next driver is offered the order, if its policy says so.
CREATE FUNCTION driver_decline_offer_v1(
    of_token_sha256 bytea, of_order_id uuid, with_idempotency_key text
)
RETURNS SETOF order_offer LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
SET enable_hashjoin = off  -- every join is a look-up by key
SET enable_mergejoin = off
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    by_driver_id CONSTANT text := driver__of_token(of_token_sha256);
    offer order_offer;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(of_order_id::text, 1));
    SELECT * INTO offer FROM order_offer f WHERE f.order_id = of_order_id
        AND f.driver_id = by_driver_id AND f.decline_key = with_idempotency_key;
    IF FOUND THEN
        RETURN NEXT offer;
        RETURN;
    ELSIF EXISTS (SELECT FROM order_command k WHERE k.order_id = of_order_id
        AND k.actor = 'driver' AND k.actor_id = by_driver_id
        AND k.idempotency_key = with_idempotency_key)
    THEN
        RAISE EXCEPTION 'this key was used for a command' USING ERRCODE = 'DS008';
    END IF;
    offer := order_offer__of_driver(of_order_id, by_driver_id);
    UPDATE order_offer f
        SET ended_at = greatest(clock_timestamp(), f.offered_at), outcome = 'declined',
            decline_key = with_idempotency_key
        WHERE f.order_offer_id = offer.order_offer_id
        RETURNING * INTO offer;
    PERFORM order_offer__continue(of_order_id);
    RETURN NEXT offer;
END
$$;

-- Orders that the job is to offer now, and since when: confirmed ones without an offer, those whose
-- offer has expired or whose driver has no more room, and those for which no driver was found 10 s
-- ago.
CREATE FUNCTION order_offer__due()
RETURNS TABLE (order_id uuid, due_at timestamptz)
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    at CONSTANT timestamptz := clock_timestamp();
BEGIN
    -- OFFSET 0 makes look-ups by key of what the planner may know as empty
    RETURN QUERY
        SELECT f.order_id, f.expires_at FROM order_offer f
        WHERE f.ended_at IS NULL AND f.expires_at <= at
        UNION ALL
        SELECT f.order_id, f.offered_at FROM order_offer f
        CROSS JOIN limits l
        CROSS JOIN LATERAL (
            SELECT k.duty, k.state FROM driver_state k WHERE k.driver_id = f.driver_id OFFSET 0
        ) s
        -- as driver_stops__has_room, which costs ten times as much in a loop
        WHERE f.ended_at IS NULL AND f.expires_at > at AND (s.duty <> 'on_duty'
            OR s.state <> 'available' AND (
                SELECT count(*) >= l.max_open_orders OR bool_or(a.order_id = f.order_id)
                FROM assignment a WHERE a.driver_id = f.driver_id AND a.ended_at IS NULL
            ))
        UNION ALL
        SELECT o.order_id, o.state_at FROM orders o
        WHERE o.state = 'confirmed' AND o.ended_at IS NULL
            AND NOT EXISTS (
                SELECT FROM unassigned_order u WHERE u.order_id = o.order_id OFFSET 0)
            AND NOT EXISTS (SELECT FROM order_offer f
                WHERE f.order_id = o.order_id AND f.ended_at IS NULL OFFSET 0)
            AND (SELECT p.auto_offer FROM policy p WHERE p.policy_id = o.policy_id)
        UNION ALL
        SELECT u.order_id, u.checked_at + interval '10 s' FROM unassigned_order u
        CROSS JOIN LATERAL (
            SELECT k.policy_id FROM orders k
            WHERE k.order_id = u.order_id AND k.state = 'confirmed' AND k.ended_at IS NULL OFFSET 0
        ) o
        WHERE u.checked_at <= at - interval '10 s'
            AND NOT EXISTS (SELECT FROM order_offer f
                WHERE f.order_id = u.order_id AND f.ended_at IS NULL OFFSET 0)
            AND (SELECT p.auto_offer FROM policy p WHERE p.policy_id = o.policy_id);
END
$$;

-- Ends offers that have expired or whose driver has no more room, and makes the next ones: of the
-- orders that are due longest, at most so many, and no further one after 250 ms, since commands on
-- these orders wait for the end of the transaction. Skips an order while a command holds it. A
-- courier who meanwhile has no more room loses the offer in the next run. Returns the number of
-- orders.
CREATE FUNCTION order_offer__advance_v1(at_most int)
RETURNS int LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
SET enable_hashjoin = off  -- every join is a look-up by key
SET enable_mergejoin = off
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    few CONSTANT int := 5;  -- for more, one pass over the fleet costs less than a search each
    due_orders uuid[];
    due_order_id uuid;
    available courier_place[];
    with_orders courier_place[];
    stop_at timestamptz;
    advanced_count int := 0;
BEGIN
    due_orders := ARRAY(
        SELECT d.order_id FROM order_offer__due() d ORDER BY d.due_at, d.order_id LIMIT at_most);
    IF cardinality(due_orders) > few THEN
        SELECT c.available, c.with_orders INTO available, with_orders
            FROM order_offer__couriers_with_room() c;
    END IF;
    stop_at := clock_timestamp() + interval '250 ms';
    FOREACH due_order_id IN ARRAY due_orders LOOP
        EXIT WHEN clock_timestamp() > stop_at;
        CONTINUE WHEN NOT pg_try_advisory_xact_lock(hashtextextended(due_order_id::text, 1));
        UPDATE order_offer f SET ended_at = greatest(clock_timestamp(), f.offered_at),
            outcome = CASE WHEN f.expires_at <= clock_timestamp() THEN 'expired'
                ELSE 'withdrawn' END::offer_outcome
            WHERE f.order_id = due_order_id AND f.ended_at IS NULL
                AND (f.expires_at <= clock_timestamp()
                    OR NOT driver_stops__has_room(f.driver_id, f.order_id));
        PERFORM order_offer__continue(due_order_id, available, with_orders);
        advanced_count := advanced_count + 1;
    END LOOP;
    RETURN advanced_count;
END
$$;
