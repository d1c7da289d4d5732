-- Kafka offsets, the outbox, tokens, registration, and partitions of the history.

CREATE FUNCTION open_offsets_v1(of_cluster_id text, of_topic_id text, of_partitions int[])
RETURNS TABLE (partition int, next_offset int8)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    INSERT INTO kafka_offset (cluster_id, topic_id, partition, next_offset)
    SELECT of_cluster_id, of_topic_id, p, 0 FROM unnest(of_partitions) p
    ON CONFLICT DO NOTHING;
    RETURN QUERY SELECT partition, next_offset FROM kafka_offset
        WHERE cluster_id = of_cluster_id AND topic_id = of_topic_id
            AND partition = ANY (of_partitions);
END
$$;

-- Advances every partition from its from_offset to its to_offset. If another consumer has advanced
-- one, advances none and raises DS009.
CREATE FUNCTION advance_offsets_v1(
    of_cluster_id text, of_topic_id text, of_partitions int[], from_offsets int8[],
    to_offsets int8[]
)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
DECLARE
    advanced_count int;
BEGIN
    UPDATE kafka_offset k SET next_offset = m.to_offset, advanced_at = clock_timestamp()
    FROM unnest(of_partitions, from_offsets, to_offsets) AS m (partition, from_offset, to_offset)
    WHERE k.cluster_id = of_cluster_id AND k.topic_id = of_topic_id
        AND k.partition = m.partition AND k.next_offset = m.from_offset;
    GET DIAGNOSTICS advanced_count = ROW_COUNT;
    IF advanced_count <> cardinality(of_partitions) THEN
        RAISE EXCEPTION 'another consumer has moved an offset' USING ERRCODE = 'DS009';
    END IF;
END
$$;

CREATE FUNCTION add_dead_letters_v1(
    payloads bytea[], driver_ids text[], reasons text[], sources text[], topics text[],
    details text[], received_at_mss int8[]
)
RETURNS void LANGUAGE sql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    INSERT INTO outbox (topic, key, payload, headers)
    SELECT 'dead-letter', convert_to(driver_id, 'UTF8'), payload,
        jsonb_build_array(
            jsonb_build_array('reason', reason), jsonb_build_array('source', source),
            jsonb_build_array('topic', topic),
            jsonb_build_array('driver_id', coalesce(driver_id, '')),
            jsonb_build_array('detail', detail),
            jsonb_build_array('received_at_ms', received_at_ms::text))
    FROM unnest(payloads, driver_ids, reasons, sources, topics, details, received_at_mss)
        AS letter (payload, driver_id, reason, source, topic, detail, received_at_ms)
$$;

-- Returns the oldest records to one publisher at a time: while its transaction is open, other
-- callers get no rows. So records are published in order.
CREATE FUNCTION take_outbox_v1(at_most int)
RETURNS TABLE (outbox_id int8, topic text, key bytea, payload bytea, headers jsonb)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    IF pg_try_advisory_xact_lock(hashtextextended('doorstep.outbox', 0)) THEN
        RETURN QUERY SELECT outbox_id, topic, key, payload, headers FROM outbox
            ORDER BY outbox_id LIMIT at_most;
    END IF;
END
$$;

CREATE FUNCTION delete_outbox_v1(ids int8[])
RETURNS void LANGUAGE sql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    DELETE FROM outbox WHERE outbox_id = ANY (ids)
$$;

CREATE FUNCTION revoke_customer_tokens_v1(of_order_id uuid)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
BEGIN
    PERFORM FROM orders WHERE order_id = of_order_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no order %', of_order_id USING ERRCODE = 'DS002';
    END IF;
    UPDATE access_token SET revoked_at = clock_timestamp()
        WHERE order_id = of_order_id AND revoked_at IS NULL;
END
$$;

CREATE FUNCTION replace_customer_token_v1(of_order_id uuid, new_token_sha256 bytea)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
BEGIN
    PERFORM revoke_customer_tokens_v1(of_order_id);
    INSERT INTO access_token (token_sha256, role, order_id)
    VALUES (new_token_sha256, 'customer', of_order_id);
END
$$;

-- Creates a policy. What `values` omits is copied from policy 1.
CREATE FUNCTION create_policy_v1("values" jsonb)
RETURNS int LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
DECLARE
    created policy;
BEGIN
    SELECT * INTO STRICT created FROM policy WHERE policy_id = 1;
    created := jsonb_populate_record(created, "values" - 'policy_id' - 'created_at');
    created.policy_id := nextval(pg_get_serial_sequence('doorstep.policy', 'policy_id'));
    created.created_at := now();
    INSERT INTO policy SELECT created.*;
    RETURN created.policy_id;
END
$$;

-- A driver who was revoked or removed gets no token, and a token that was revoked stays revoked.
-- Random secrets stay too: what is registered here derives from the fleet key.
CREATE FUNCTION register_drivers_v1(driver_ids text[], names text[], token_sha256s bytea[])
RETURNS void LANGUAGE plpgsql
SET search_path = doorstep, public, pg_temp
AS $$
BEGIN
    INSERT INTO driver (driver_id, name) SELECT * FROM unnest(driver_ids, names)
    ON CONFLICT (driver_id) DO UPDATE SET name = EXCLUDED.name
        -- an id in place of a name does not replace one
        WHERE driver.name <> EXCLUDED.name AND EXCLUDED.name <> driver.driver_id;
    INSERT INTO driver_state (driver_id) SELECT unnest(driver_ids)
    ON CONFLICT DO NOTHING;
    PERFORM add_devices_v2('driver', driver_ids, NULL);
    UPDATE access_token t SET revoked_at = clock_timestamp()
    FROM unnest(driver_ids, token_sha256s) AS n (driver_id, token_sha256)
    JOIN device_credential d ON d.device_id = n.driver_id AND d.mqtt_hash IS NULL
    WHERE t.driver_id = n.driver_id AND t.revoked_at IS NULL AND t.token_sha256 <> n.token_sha256
        AND NOT (t.is_session AND EXISTS (  -- opened with the token that is registered again
            SELECT FROM access_token p
            WHERE p.token_sha256 = n.token_sha256 AND p.revoked_at IS NULL
        ));
    INSERT INTO access_token (token_sha256, role, driver_id)
    SELECT n.token_sha256, 'driver', n.driver_id
    FROM unnest(driver_ids, token_sha256s) AS n (driver_id, token_sha256)
    JOIN device_credential d ON d.device_id = n.driver_id
    WHERE n.token_sha256 IS NOT NULL AND d.kind = 'driver' AND d.revoked_at IS NULL
        AND d.mqtt_hash IS NULL
    ON CONFLICT (token_sha256) DO NOTHING;
END
$$;

CREATE FUNCTION register_restaurants_v1(
    restaurant_ids int[], names text[], lon_degs float8[], lat_degs float8[]
)
RETURNS void LANGUAGE sql
SET search_path = doorstep, public, pg_temp
AS $$
    INSERT INTO restaurant (restaurant_id, name, lon_deg, lat_deg)
    SELECT * FROM unnest(restaurant_ids, names, lon_degs, lat_degs)
    ON CONFLICT (restaurant_id) DO UPDATE
        SET name = EXCLUDED.name, lon_deg = EXCLUDED.lon_deg, lat_deg = EXCLUDED.lat_deg
        WHERE restaurant.changed_at IS NULL
$$;

CREATE FUNCTION register_service_area_v1(
    of_name text, west float8, south float8, east float8, north float8
)
RETURNS void LANGUAGE sql
SET search_path = doorstep, public, pg_temp
AS $$
    INSERT INTO service_area (name, west, south, east, north)
    VALUES (of_name, west, south, east, north)
    ON CONFLICT (name) DO UPDATE SET west = EXCLUDED.west, south = EXCLUDED.south,
        east = EXCLUDED.east, north = EXCLUDED.north
        WHERE service_area.changed_at IS NULL
$$;

-- Adds or replaces a city and the restaurants of its files. Returns false, and changes nothing, if
-- these files or newer ones are registered: what staff have changed since stays. Restaurants from
-- 1,000,000,000 on come from files; one that is missing now goes, unless an order refers to it.
CREATE FUNCTION register_city_v1(
    of_name text, west float8, south float8, east float8, north float8, of_time_zone text,
    files_made_at timestamptz,
    restaurant_ids int[], names text[], lon_degs float8[], lat_degs float8[]
)
RETURNS bool LANGUAGE plpgsql
SET search_path = doorstep, public, pg_temp
AS $$
BEGIN
    INSERT INTO service_area AS a (name, west, south, east, north, time_zone, made_at)
    VALUES (of_name, west, south, east, north, of_time_zone, files_made_at)
    ON CONFLICT (name) DO UPDATE SET (west, south, east, north, time_zone, made_at) = (
        SELECT c.*, EXCLUDED.made_at FROM (
            SELECT EXCLUDED.west, EXCLUDED.south, EXCLUDED.east, EXCLUDED.north, EXCLUDED.time_zone
            WHERE a.changed_at IS NULL
            UNION ALL SELECT a.west, a.south, a.east, a.north, a.time_zone
            WHERE a.changed_at IS NOT NULL
        ) c
    )
    WHERE a.made_at IS NULL OR a.made_at < EXCLUDED.made_at;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO restaurant AS r (restaurant_id, name, lon_deg, lat_deg, city)
    SELECT n.restaurant_id, n.name, n.lon_deg, n.lat_deg, of_name
    FROM unnest(restaurant_ids, names, lon_degs, lat_degs)
        AS n (restaurant_id, name, lon_deg, lat_deg)
    ON CONFLICT (restaurant_id) DO UPDATE SET name = EXCLUDED.name,
        lon_deg = EXCLUDED.lon_deg, lat_deg = EXCLUDED.lat_deg, city = EXCLUDED.city
    WHERE r.changed_at IS NULL AND (r.city IS NULL OR r.city = of_name);  -- never another city's
    DELETE FROM restaurant r
    WHERE r.city = of_name AND r.restaurant_id >= 1000000000 AND r.changed_at IS NULL
        AND r.restaurant_id <> ALL (restaurant_ids)
        AND NOT EXISTS (SELECT FROM orders o WHERE o.restaurant_id = r.restaurant_id);
    RETURN true;
END
$$;

-- Removes a city, and those restaurants of its files that no order refers to. Returns the number of
-- open orders in it: with any, nothing is removed.
CREATE FUNCTION remove_city_v1(of_name text)
RETURNS int LANGUAGE plpgsql
SET search_path = doorstep, public, pg_temp
AS $$
DECLARE
    open_count CONSTANT int := (
        SELECT count(*) FROM orders o JOIN restaurant r ON r.restaurant_id = o.restaurant_id
        WHERE r.city = of_name AND o.ended_at IS NULL
    );
BEGIN
    IF open_count > 0 THEN
        RETURN open_count;
    END IF;
    DELETE FROM restaurant r
    WHERE r.city = of_name AND r.restaurant_id >= 1000000000
        AND NOT EXISTS (SELECT FROM orders o WHERE o.restaurant_id = r.restaurant_id);
    DELETE FROM service_area WHERE name = of_name;
    RETURN 0;
END
$$;

-- A restaurant that is given no city belongs to the smallest one around it.
CREATE FUNCTION restaurant__find_city()
RETURNS trigger LANGUAGE plpgsql
SET search_path = doorstep, public, pg_temp
AS $$
BEGIN
    NEW.city := (
        SELECT a.name FROM service_area a
        WHERE a.retired_at IS NULL
            AND is_in_box(NEW.lon_deg, NEW.lat_deg, a.west, a.south, a.east, a.north)
        ORDER BY (a.north - a.south) * (a.east - a.west + CASE WHEN a.west > a.east THEN 360
            ELSE 0 END), a.name
        LIMIT 1
    );
    RETURN NEW;
END
$$;
CREATE TRIGGER _500_find_city BEFORE INSERT OR UPDATE OF lon_deg, lat_deg ON restaurant
FOR EACH ROW WHEN (NEW.city IS NULL) EXECUTE FUNCTION restaurant__find_city();

-- A new or larger area takes the restaurants in it that have no city.
CREATE FUNCTION service_area__take_restaurants()
RETURNS trigger LANGUAGE plpgsql
SET search_path = doorstep, public, pg_temp
AS $$
BEGIN
    UPDATE restaurant r SET city = NEW.name
    WHERE r.city IS NULL AND is_in_box(
        r.lon_deg, r.lat_deg, NEW.west, NEW.south, NEW.east, NEW.north
    );
    RETURN NULL;
END
$$;
CREATE TRIGGER _500_take_restaurants AFTER INSERT OR UPDATE ON service_area
FOR EACH ROW WHEN (NEW.retired_at IS NULL) EXECUTE FUNCTION service_area__take_restaurants();

-- Registers the launcher's own token, as an admin of this name. A token that was revoked stays
-- revoked; a new one replaces the older ones.
CREATE FUNCTION register_staff_token_v1(new_token_sha256 bytea, of_name text)
RETURNS void LANGUAGE plpgsql
SET search_path = doorstep, public, pg_temp
AS $$
BEGIN
    IF EXISTS (SELECT FROM access_token WHERE token_sha256 = new_token_sha256) THEN
        RETURN;
    END IF;
    INSERT INTO staff (name, role) VALUES (of_name, 'admin')
    ON CONFLICT (name) DO UPDATE SET revoked_at = NULL, rotated_at = clock_timestamp();
    UPDATE access_token SET revoked_at = clock_timestamp()
        WHERE role = 'staff' AND name = of_name AND revoked_at IS NULL;
    INSERT INTO access_token (token_sha256, role, name) VALUES (new_token_sha256, 'staff', of_name);
END
$$;

-- Creates the missing daily partitions from first_day to last_day. Moves fixes of those days out of
-- the default partition. Returns the number of partitions created.
CREATE FUNCTION fix_history__ensure_partitions_v1(first_day date, last_day date)
RETURNS int LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    day date;
    part text;
    created_count int := 0;
BEGIN
    IF last_day - first_day > 400 THEN
        RAISE EXCEPTION 'that is more than 400 days' USING ERRCODE = '22023';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('doorstep.partitions', 0));
    FOR day IN SELECT first_day + n FROM generate_series(0, last_day - first_day) n LOOP
        part := 'fix_history_' || to_char(day, 'YYYYMMDD');
        CONTINUE WHEN to_regclass('doorstep.' || part) IS NOT NULL;
        EXECUTE format('CREATE TABLE %I (LIKE fix_history INCLUDING ALL)', part);
        EXECUTE format('WITH moved AS (DELETE FROM fix_history_default '
            'WHERE fix_at >= %L AND fix_at < %L RETURNING *) INSERT INTO %I SELECT * FROM moved',
            day::timestamptz, (day + 1)::timestamptz, part);
        EXECUTE format('ALTER TABLE fix_history ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
            part, day::timestamptz, (day + 1)::timestamptz);
        created_count := created_count + 1;
    END LOOP;
    RETURN created_count;
END
$$;
