-- The job that makes offers stays bounded with thousands of unassigned orders, and a restaurant is
-- refused if its coordinates are swapped.

SET LOCAL search_path = doorstep, public;

-- A courier with room for another order, and the newest position.
CREATE TYPE courier_place AS (driver_id text COLLATE "C", lon_deg float8, lat_deg float8);

-- Drivers with the detour that an order is for each, the least first.
CREATE FUNCTION driver_stops__rank(o orders, r restaurant, of_drivers text[])
RETURNS TABLE (driver_id text, detour_m float8)
LANGUAGE plpgsql
AS $$
BEGIN
    RETURN QUERY
        SELECT k, p.detour_m FROM unnest(of_drivers) k
        CROSS JOIN LATERAL driver_stops__place(
            k, (r.lon_deg, r.lat_deg, o.lon_deg, o.lat_deg, false)::driver_stop, NULL) p
        ORDER BY p.detour_m, k;
END
$$;

DROP FUNCTION driver_stops__candidates(orders);

-- Drivers near a restaurant who have an order and room for another, with their detours: of the
-- nearest 20 that are not excluded, the least detour first.
CREATE FUNCTION driver_stops__candidates(o orders, excluded text[] DEFAULT '{}')
RETURNS TABLE (driver_id text, detour_m float8)
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    at_most CONSTANT int := 20;
    l limits;
    r restaurant;
    reach int;  -- in cells of 0.01 degrees each way
    nearest text[];
BEGIN
    SELECT * INTO STRICT l FROM limits;
    SELECT * INTO STRICT r FROM restaurant k WHERE k.restaurant_id = o.restaurant_id;
    FOREACH reach IN ARRAY ARRAY[1, 4, 16, 64] LOOP
        nearest := ARRAY(
            SELECT d.driver_id
            FROM generate_series(greatest(floor(r.lat_deg * 100)::int - reach + 9000, 0),
                floor(r.lat_deg * 100)::int + reach + 9000) AS s (cell_row)
            CROSS JOIN LATERAL (
                SELECT c.driver_id FROM driver_cell c
                WHERE c.cell BETWEEN s.cell_row * 36000
                        + greatest(floor(r.lon_deg * 100)::int - reach + 18000, 0)
                    AND s.cell_row * 36000
                        + least(floor(r.lon_deg * 100)::int + reach + 18000, 35999)
                OFFSET 0
            ) c
            CROSS JOIN LATERAL (
                SELECT k.* FROM driver_state k
                WHERE k.driver_id = c.driver_id AND k.order_id IS NOT NULL
                    AND k.duty = 'on_duty'
                    AND k.fix_at > clock_timestamp() - make_interval(secs => l.nearest_max_age_s)
                OFFSET 0
            ) d
            CROSS JOIN LATERAL (
                SELECT ground_distance_m(d.lon_deg, d.lat_deg, r.lon_deg, r.lat_deg)
            ) AS m (distance_m)
            -- as driver_stops__has_room, which costs ten times as much in a loop
            CROSS JOIN LATERAL (
                SELECT count(*) AS open_orders, bool_or(a.order_id = o.order_id) AS has_this
                FROM assignment a WHERE a.driver_id = d.driver_id AND a.ended_at IS NULL
            ) AS b
            WHERE m.distance_m <= l.nearest_max_m AND d.driver_id <> ALL (excluded)
                AND b.open_orders < l.max_open_orders AND b.has_this IS NOT TRUE
            ORDER BY m.distance_m, d.driver_id
            LIMIT at_most
        );
        EXIT WHEN cardinality(nearest) = at_most;
    END LOOP;
    RETURN QUERY SELECT * FROM driver_stops__rank(o, r, nearest);
END
$$;

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

DROP FUNCTION order_offer__next_driver(orders);

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

DROP FUNCTION order_offer__continue(uuid);

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
CREATE OR REPLACE FUNCTION order_offer__advance_v1(at_most int)
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

-- Raises DS051 for a restaurant that lies in a service area only with its coordinates swapped.
CREATE FUNCTION restaurant__check_place(r restaurant)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF service_area__is_swapped(r.lon_deg, r.lat_deg) THEN
        RAISE EXCEPTION 'the restaurant is in no service area, but in one with its longitude and '
            'latitude swapped' USING ERRCODE = 'DS051';
    END IF;
END
$$;

-- Creates a restaurant, a place where orders are picked up. Returns its id. Raises DS051.
CREATE OR REPLACE FUNCTION create_restaurant_v1("values" jsonb, by_who text)
RETURNS int LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
DECLARE
    wanted CONSTANT restaurant := jsonb_populate_record(NULL::restaurant, "values");
    created_id int;
BEGIN
    PERFORM restaurant__check_place(wanted);
    LOOP  -- until an id that was not given by hand
        INSERT INTO restaurant (name, lon_deg, lat_deg, address, phone, opening_hours,
            preparation_s, changed_at)
        VALUES (wanted.name, wanted.lon_deg, wanted.lat_deg, wanted.address, wanted.phone,
            wanted.opening_hours, wanted.preparation_s, clock_timestamp())
        ON CONFLICT DO NOTHING RETURNING restaurant_id INTO created_id;
        EXIT WHEN FOUND;
    END LOOP;
    PERFORM administration__record_audit(
        by_who, 'restaurant.create', created_id::text, "values");
    RETURN created_id;
END
$$;

-- Raises DS004 for an unknown restaurant, DS040 for a retired one, DS051 for a new place whose
-- coordinates are swapped. Open orders keep the place that they were assigned with.
CREATE OR REPLACE FUNCTION change_restaurant_v1(of_restaurant_id int, "values" jsonb, by_who text)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
DECLARE
    changed restaurant;
BEGIN
    SELECT * INTO changed FROM restaurant r
        WHERE r.restaurant_id = of_restaurant_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no restaurant %', of_restaurant_id USING ERRCODE = 'DS004';
    ELSIF changed.retired_at IS NOT NULL THEN
        RAISE EXCEPTION 'the restaurant % is retired', of_restaurant_id USING ERRCODE = 'DS040';
    END IF;
    changed := jsonb_populate_record(changed, "values");
    IF "values" ?| ARRAY['lon_deg', 'lat_deg'] THEN
        PERFORM restaurant__check_place(changed);
    END IF;
    UPDATE restaurant r SET name = changed.name, lon_deg = changed.lon_deg,
        lat_deg = changed.lat_deg, address = changed.address, phone = changed.phone,
        opening_hours = changed.opening_hours, preparation_s = changed.preparation_s,
        changed_at = clock_timestamp(),
        city = CASE WHEN (r.lon_deg, r.lat_deg) = (changed.lon_deg, changed.lat_deg) THEN r.city END
    WHERE r.restaurant_id = of_restaurant_id;
    PERFORM administration__record_audit(
        by_who, 'restaurant.change', of_restaurant_id::text, "values");
END
$$;

REVOKE EXECUTE ON FUNCTION
    driver_stops__candidates, driver_stops__rank, order_offer__couriers_with_room,
    order_offer__nearest_of, order_offer__next_driver, order_offer__continue, order_offer__due,
    restaurant__check_place
FROM PUBLIC;
