-- Drivers who have orders and room for another are found beside available ones: by the search for
-- the nearest, and by offers once no available driver is left.

SET LOCAL search_path = doorstep, public;

-- Returns available drivers with a recent position, nearest first; `with_orders` also those on duty
-- who have orders and room for another. Searches a block of cells around the place, and enlarges it
-- until it holds enough drivers. A driver counts only if no nearer one can be outside the block.
-- The first block is the place's cell, because a cell may hold thousands.
CREATE FUNCTION nearest_drivers_v2(
    from_lon_deg float8, from_lat_deg float8, at_most int, with_orders bool
)
RETURNS TABLE (
    driver_id text, distance_m float8, fix_at timestamptz, lon_deg float8, lat_deg float8,
    open_orders int
)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_memoize = off  -- no driver is in two cells
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    -- Cells of 0.01 degrees from the grid lines nearest to the place to each edge of the block.
    -- -1 is the place's cell alone, 0 that and the cell across its nearest edge.
    reach int;
    south int;  -- the first row of the block, and its last one; then its columns
    north int;
    west int;
    east int;
    rows_deg float8;  -- from the place to the nearer edge of the block, north or south
    columns_deg float8;  -- east or west
    first_columns int[];  -- of the block: two ranges where it crosses 180 degrees
    last_columns int[];
    safe_m float8;
    l limits;
    recent_at timestamptz;
    nearest driver_distance[];
BEGIN
    SELECT * INTO STRICT l FROM limits;
    recent_at := clock_timestamp() - make_interval(secs => l.nearest_max_age_s);
    FOREACH reach IN ARRAY ARRAY[-1, 0, 1, 3, 9, 27, 81] LOOP
        IF reach = -1 THEN
            south := floor(from_lat_deg * 100);
            north := south;
            west := floor(from_lon_deg * 100);
            east := west;
        ELSIF reach = 0 THEN
            IF rows_deg < columns_deg * cosd(from_lat_deg) THEN
                south := least(south, round(from_lat_deg * 100) - 1);
                north := greatest(north, round(from_lat_deg * 100));
            ELSE
                west := least(west, round(from_lon_deg * 100) - 1);
                east := greatest(east, round(from_lon_deg * 100));
            END IF;
        ELSE
            south := round(from_lat_deg * 100) - reach;
            north := south + 2 * reach - 1;
            west := round(from_lon_deg * 100) - reach;
            east := west + 2 * reach - 1;
        END IF;
        rows_deg := least(from_lat_deg - south / 100.0, (north + 1) / 100.0 - from_lat_deg);
        columns_deg := least(from_lon_deg - west / 100.0, (east + 1) / 100.0 - from_lon_deg);
        first_columns := ARRAY[greatest(west + 18000, 0)];
        last_columns := ARRAY[least(east + 18000, 35999)];
        IF west + 18000 < 0 THEN
            first_columns := first_columns || west + 54000;
            last_columns := last_columns || 35999;
        ELSIF east + 18000 > 35999 THEN
            first_columns := first_columns || 0;
            last_columns := last_columns || east - 18000;
        END IF;
        -- a degree of longitude is shortest at the block's edge nearest to a pole
        safe_m := 111195 * least(rows_deg,
            columns_deg * cosd(least(abs(from_lat_deg) + rows_deg, 89)));
        nearest := ARRAY(
            SELECT (d.driver_id, m.distance_m)::driver_distance
            FROM generate_series(south + 9000, north + 9000) AS r (cell_row)
            CROSS JOIN unnest(first_columns, last_columns) AS k (first_column, last_column)
            -- OFFSET 0 keeps the order of the look-ups, whatever the planner expects of a block
            CROSS JOIN LATERAL (
                SELECT c.driver_id FROM driver_cell c
                WHERE c.cell BETWEEN r.cell_row * 36000 + k.first_column
                    AND r.cell_row * 36000 + k.last_column
                OFFSET 0
            ) c
            CROSS JOIN LATERAL (
                SELECT s.driver_id, s.lon_deg, s.lat_deg FROM driver_state s
                WHERE s.driver_id = c.driver_id
                    AND (s.state = 'available'
                        OR with_orders AND s.order_id IS NOT NULL AND s.duty = 'on_duty')
                    AND s.lat_deg BETWEEN from_lat_deg - safe_m / 111195
                        AND from_lat_deg + safe_m / 111195  -- excludes many cheaply
                    AND s.fix_at > recent_at
                OFFSET 0
            ) d
            CROSS JOIN LATERAL (
                SELECT ground_distance_m(d.lon_deg, d.lat_deg, from_lon_deg, from_lat_deg)
            ) AS m (distance_m)
            WHERE m.distance_m <= least(safe_m, l.nearest_max_m)
                AND (NOT with_orders
                    OR cardinality(driver_stops__of(d.driver_id)) < l.max_open_orders)
            ORDER BY m.distance_m, d.driver_id
            LIMIT at_most
        );
        EXIT WHEN cardinality(nearest) >= at_most OR safe_m >= l.nearest_max_m;
    END LOOP;
    RETURN QUERY
        SELECT d.driver_id, f.distance_m, d.fix_at, d.lon_deg, d.lat_deg,
            CASE WHEN d.order_id IS NULL THEN 0
                ELSE cardinality(driver_stops__of(d.driver_id)) END
        FROM unnest(nearest) f JOIN driver_state d ON d.driver_id = f.driver_id
        ORDER BY f.distance_m, d.driver_id;
END
$$;

-- Returns available drivers with a recent position, nearest first.
CREATE OR REPLACE FUNCTION nearest_drivers_v1(from_lon_deg float8, from_lat_deg float8, at_most int)
RETURNS TABLE (
    driver_id text, distance_m float8, fix_at timestamptz, lon_deg float8, lat_deg float8
)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
BEGIN
    RETURN QUERY
        SELECT n.driver_id, n.distance_m, n.fix_at, n.lon_deg, n.lat_deg
        FROM nearest_drivers_v2(from_lon_deg, from_lat_deg, at_most, false) n;
END
$$;

-- The driver to offer an order to, or null: the nearest available one, or of those with room for
-- another order the one with the least detour. No one who was offered it, or has had it.
CREATE OR REPLACE FUNCTION order_offer__next_driver(o orders)
RETURNS text LANGUAGE plpgsql
AS $$
DECLARE
    found_id text;
    at_most int;
BEGIN
    -- The few nearest are found in a small box; the others count only if none of these is left.
    FOREACH at_most IN ARRAY ARRAY[5, 100] LOOP
        SELECT n.driver_id INTO found_id FROM restaurant r
            CROSS JOIN LATERAL nearest_drivers_v1(r.lon_deg, r.lat_deg, at_most) n
            WHERE r.restaurant_id = o.restaurant_id
                AND NOT EXISTS (SELECT FROM order_offer f
                    WHERE f.order_id = o.order_id AND f.driver_id = n.driver_id)
                AND NOT EXISTS (SELECT FROM assignment a
                    WHERE a.order_id = o.order_id AND a.driver_id = n.driver_id)
            ORDER BY n.distance_m, n.driver_id LIMIT 1;
        EXIT WHEN FOUND;
    END LOOP;
    IF found_id IS NULL THEN
        SELECT c.driver_id INTO found_id FROM driver_stops__candidates(o) c
            WHERE NOT EXISTS (SELECT FROM order_offer f
                    WHERE f.order_id = o.order_id AND f.driver_id = c.driver_id)
                AND NOT EXISTS (SELECT FROM assignment a
                    WHERE a.order_id = o.order_id AND a.driver_id = c.driver_id)
            ORDER BY c.detour_m, c.driver_id LIMIT 1;
    END IF;
    RETURN found_id;
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
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(of_order_id::text, 1));
    SELECT * INTO o FROM orders k WHERE k.order_id = of_order_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no order %', of_order_id USING ERRCODE = 'DS002';
    END IF;
    SELECT * INTO offer FROM order_offer f WHERE f.order_id = of_order_id
        AND f.offered_by = by_name AND f.offer_key = with_idempotency_key;
    IF FOUND THEN
        IF offer.driver_id <> to_driver_id THEN
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
    RETURN NEXT order_offer__open(o, to_driver_id, by_name, with_idempotency_key);
END
$$;

REVOKE EXECUTE ON FUNCTION nearest_drivers_v2 FROM PUBLIC;
GRANT EXECUTE ON FUNCTION nearest_drivers_v2 TO tracking_api;
