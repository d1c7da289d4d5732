-- The sampling policy of each device: pinned by staff, or chosen by demand. Only the newest policy
-- counts, so there is no queue. A row is undelivered until a broker has confirmed the policy.

-- How much a driver's positions are needed: without an order, with one, and with one that is
-- watched or near its customer's door.
CREATE TYPE sampling_demand AS ENUM ('idle', 'on_order', 'live');

CREATE TABLE demand_policy (
    demand sampling_demand PRIMARY KEY,
    sampling_policy jsonb NOT NULL
);
INSERT INTO demand_policy (demand, sampling_policy) VALUES
    ('idle', '{"mode": "dead_reckoning", "off_by_m": 25, "heartbeat_s": 30, "keep_every_s": 0}'),
    ('on_order', '{"mode": "all", "batch_s": 16}'),  -- five fixes of 4 s in a message
    ('live', '{"mode": "all"}');

-- Open orders that are looked at, by a stream or by GET. tracking_api extends each row.
CREATE TABLE order_watch (
    order_id uuid PRIMARY KEY REFERENCES orders ON DELETE CASCADE,
    watched_until timestamptz NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE driver_sampling (
    driver_id text COLLATE "C" PRIMARY KEY REFERENCES driver,
    sampling_policy jsonb NOT NULL,
    version int8 NOT NULL DEFAULT 1,  -- increases with each change
    is_delivered bool NOT NULL DEFAULT false,  -- the driver's broker retains it for the device
    set_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    demand sampling_demand  -- that chose the policy; null: staff pinned it
);
CREATE INDEX driver_sampling_busy ON driver_sampling (driver_id)
    WHERE demand IN ('on_order', 'live');
CREATE INDEX driver_sampling_undelivered ON driver_sampling (driver_id) WHERE NOT is_delivered;

CREATE FUNCTION driver_sampling__set_v1(of_driver_id text, new_policy jsonb)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
BEGIN
    PERFORM FROM driver WHERE driver_id = of_driver_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no driver %', of_driver_id USING ERRCODE = 'DS003';
    END IF;
    INSERT INTO driver_sampling (driver_id, sampling_policy) VALUES (of_driver_id, new_policy)
    ON CONFLICT (driver_id) DO UPDATE SET sampling_policy = EXCLUDED.sampling_policy,
        version = driver_sampling.version + 1, is_delivered = false, set_at = clock_timestamp(),
        demand = NULL;
END
$$;

-- Returns a device to the policy of its demand. A driver without a pinned policy stays as they are.
CREATE FUNCTION driver_sampling__unpin_v1(of_driver_id text)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
BEGIN
    PERFORM FROM driver WHERE driver_id = of_driver_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no driver %', of_driver_id USING ERRCODE = 'DS003';
    END IF;
    UPDATE driver_sampling s SET sampling_policy = p.sampling_policy, demand = 'idle',
        version = s.version + 1, is_delivered = false, set_at = clock_timestamp()
    FROM demand_policy p
    WHERE s.driver_id = of_driver_id AND s.demand IS NULL AND p.demand = 'idle';
END
$$;

-- Chooses the policies of all drivers whose demand has changed, and returns their number. One
-- caller at a time; another returns 0. `everybody`: also drivers that have no policy yet.
CREATE FUNCTION driver_sampling__follow_demand_v1(everybody bool)
RETURNS int LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
DECLARE
    at CONSTANT timestamptz := clock_timestamp();
    changed int;
    added int := 0;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('doorstep.follow_demand', 0)) THEN
        RETURN 0;
    END IF;
    WITH needed AS (
        SELECT a.driver_id, max(CASE
            WHEN a.arriving_at IS NOT NULL OR w.watched_until > at THEN 'live'
            ELSE 'on_order'
        END::sampling_demand) AS demand
        FROM assignment a
        LEFT JOIN order_watch w ON w.order_id = a.order_id
        WHERE a.ended_at IS NULL
        GROUP BY a.driver_id
    ),
    busy AS (
        SELECT driver_id, demand FROM driver_sampling WHERE demand IN ('on_order', 'live')
    ),
    new_demand AS (
        SELECT driver_id, coalesce(n.demand, 'idle') AS demand
        FROM needed n FULL JOIN busy b USING (driver_id)
        WHERE n.demand IS DISTINCT FROM b.demand
    )
    INSERT INTO driver_sampling (driver_id, sampling_policy, demand)
    SELECT d.driver_id, p.sampling_policy, d.demand
    FROM new_demand d JOIN demand_policy p ON p.demand = d.demand
    ORDER BY d.driver_id
    ON CONFLICT (driver_id) DO UPDATE SET sampling_policy = EXCLUDED.sampling_policy,
        demand = EXCLUDED.demand, version = driver_sampling.version + 1,
        is_delivered = false, set_at = clock_timestamp()
    WHERE driver_sampling.demand IS NOT NULL AND driver_sampling.demand <> EXCLUDED.demand;
    GET DIAGNOSTICS changed = ROW_COUNT;
    IF everybody THEN
        INSERT INTO driver_sampling (driver_id, sampling_policy, demand)
        SELECT d.driver_id, p.sampling_policy, p.demand
        FROM driver d CROSS JOIN demand_policy p
        WHERE p.demand = 'idle'
            AND NOT EXISTS (SELECT FROM driver_sampling s WHERE s.driver_id = d.driver_id)
        ON CONFLICT DO NOTHING;
        GET DIAGNOSTICS added = ROW_COUNT;
        DELETE FROM order_watch WHERE watched_until < at - interval '1 min';
    END IF;
    RETURN changed + added;
END
$$;

-- Orders are watched for 60 s from now; a row is not written more than every 20 s.
CREATE FUNCTION order_watch__extend(of_order_ids uuid[])
RETURNS void LANGUAGE sql
AS $$
    INSERT INTO order_watch (order_id, watched_until)
    SELECT o.order_id, clock_timestamp() + interval '60 s'
    FROM (SELECT DISTINCT k FROM unnest(of_order_ids) k) k
    JOIN orders o ON o.order_id = k.k AND o.ended_at IS NULL
    ORDER BY o.order_id
    ON CONFLICT (order_id) DO UPDATE SET watched_until = EXCLUDED.watched_until
    WHERE order_watch.watched_until < EXCLUDED.watched_until - interval '20 s'
$$;

CREATE FUNCTION watch_orders_v1(order_ids uuid[])
RETURNS void LANGUAGE sql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    SELECT order_watch__extend(order_ids)
$$;

-- Returns the undelivered policies to one publisher at a time: two publishers could leave the older
-- of two policies as the retained one.
CREATE FUNCTION driver_sampling__take_v1(at_most int)
RETURNS TABLE (driver_id text, version int8, sampling_policy jsonb)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    IF pg_try_advisory_xact_lock(hashtextextended('doorstep.driver_sampling', 0)) THEN
        RETURN QUERY SELECT driver_id, version, sampling_policy FROM driver_sampling
            WHERE NOT is_delivered ORDER BY driver_id LIMIT at_most;
    END IF;
END
$$;

CREATE FUNCTION driver_sampling__confirm_v1(driver_ids text[], versions int8[])
RETURNS void LANGUAGE sql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    UPDATE driver_sampling s SET is_delivered = true
    FROM unnest(driver_ids, versions) AS c (driver_id, version)
    WHERE s.driver_id = c.driver_id AND s.version = c.version
$$;

-- Makes every policy undelivered again: a broker that was killed may have lost retained messages.
CREATE FUNCTION driver_sampling__mark_undelivered_v1()
RETURNS void LANGUAGE sql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    UPDATE driver_sampling SET is_delivered = false WHERE is_delivered
$$;
