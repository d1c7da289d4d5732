-- What a driver's device published as a source is erased with the driver; no change without a name.

SET LOCAL search_path = doorstep, public;

-- Writes all of incoming_point. Returns the rows with another outcome than "written": `duplicate`,
-- `conflict` (another value for a stored instant: the first stays), `too_many_series`. Nothing is
-- stored of a driver whose data were erased.
CREATE OR REPLACE FUNCTION series__record_v1()
RETURNS TABLE (n int4, outcome text)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    -- A source may have 1,000 series. In ASCII, '0' follows '/'.
    INSERT INTO series (name, unit)
    SELECT name, series__unit(split_part(name, '/', 2))
    FROM (
        SELECT f.name, f.source_id,
            row_number() OVER (PARTITION BY f.source_id ORDER BY f.first_n) AS nth
        FROM (
            SELECT i.name, split_part(i.name, '/', 1) AS source_id, min(i.n) AS first_n
            FROM pg_temp.incoming_point i
            WHERE NOT EXISTS (SELECT FROM series s WHERE s.name = i.name)
            GROUP BY i.name
        ) f
        WHERE NOT EXISTS (SELECT FROM device_credential c
            WHERE c.device_id = f.source_id AND c.forgotten_at IS NOT NULL)
    ) candidate
    WHERE nth + (
        SELECT count(*) FROM series s
        WHERE s.name >= candidate.source_id || '/' AND s.name < candidate.source_id || '0'
    ) <= 1000
    ON CONFLICT DO NOTHING;

    RETURN QUERY SELECT i.n, 'too_many_series' FROM pg_temp.incoming_point i
        WHERE NOT EXISTS (SELECT FROM series s WHERE s.name = i.name)
            AND NOT EXISTS (SELECT FROM device_credential c
                WHERE c.device_id = split_part(i.name, '/', 1) AND c.forgotten_at IS NOT NULL);

    RETURN QUERY
        WITH numbered AS MATERIALIZED (
            SELECT i.n, s.series_no, i.at, i.value
            FROM pg_temp.incoming_point i JOIN series s USING (name)
        ),
        firsts AS MATERIALIZED (
            SELECT DISTINCT ON (series_no, at) n, series_no, at, value
            FROM numbered ORDER BY series_no, at, n
        ),
        written AS (
            INSERT INTO series_point (series_no, at, value)
            SELECT series_no, at, value FROM firsts ORDER BY series_no, at
            ON CONFLICT DO NOTHING
        )
        -- p is the row before this statement, if any
        SELECT m.n,
            CASE WHEN coalesce(p.value, f.value) = m.value THEN 'duplicate' ELSE 'conflict' END
        FROM numbered m
        JOIN firsts f USING (series_no, at)
        LEFT JOIN series_point p USING (series_no, at)
        WHERE p.series_no IS NOT NULL OR f.n <> m.n;

    WITH newest AS (
        SELECT s.series_no, max(i.at) AS at
        FROM pg_temp.incoming_point i JOIN series s USING (name) GROUP BY s.series_no
    )
    UPDATE series s SET last_at = p.at, last_value = p.value
    FROM newest JOIN series_point p USING (series_no, at)
    WHERE s.series_no = newest.series_no AND (s.last_at IS NULL OR s.last_at < p.at);
END
$$;

-- Without a name only the owner's own steps are not recorded: a service that gives none is named by
-- its role.
CREATE OR REPLACE FUNCTION record_audit_v1(by_who text, did_action text, to_subject text, with_detail jsonb)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER  -- in SQL it would be planned again for each call
SET search_path = doorstep, public, pg_temp
AS $$
BEGIN
    IF by_who IS NOT NULL OR session_user IN (
        'driver_events', 'driver_api', 'tracking_api', 'customer', 'broker_sync')
    THEN
        INSERT INTO audit (who, action, subject, detail)
        VALUES (coalesce(by_who, 'role:' || session_user), did_action, to_subject, with_detail);
    END IF;
END
$$;

-- The maker of an order is forgotten with its key.
CREATE OR REPLACE FUNCTION orders__forget(of_orders uuid[], at timestamptz)
RETURNS int8 LANGUAGE plpgsql AS $$
DECLARE
    forgotten_count int8;
BEGIN
    UPDATE orders o SET customer_name = NULL, idempotency_key = NULL, created_by = '',
        lon_deg = r.lon_deg, lat_deg = r.lat_deg, forgotten_at = at
    FROM restaurant r
    WHERE o.order_id = ANY (of_orders) AND o.forgotten_at IS NULL
        AND r.restaurant_id = o.restaurant_id;
    GET DIAGNOSTICS forgotten_count = ROW_COUNT;
    UPDATE assignment a SET customer_lon_deg = a.restaurant_lon_deg,
        customer_lat_deg = a.restaurant_lat_deg
    WHERE a.order_id = ANY (of_orders);
    UPDATE order_command c SET idempotency_key = NULL,
        actor_id = CASE WHEN c.actor = 'customer' THEN 'forgotten' ELSE c.actor_id END
    WHERE c.order_id = ANY (of_orders);
    DELETE FROM access_token t WHERE t.order_id = ANY (of_orders);
    DELETE FROM order_watch w WHERE w.order_id = ANY (of_orders);
    RETURN forgotten_count;
END
$$;

-- Erases a driver: what tells of them is deleted, and orders name `forgotten` instead. The id stays
-- in device_credential, so that it is never used again, and in the audit. Returns the number of
-- rows per table. Raises DS003 for an unknown driver, and DS016 if an order of theirs is open.
CREATE OR REPLACE FUNCTION forget_driver_v1(of_driver_id text, by_who text)
RETURNS TABLE (table_name text, what text, row_count int8)
LANGUAGE plpgsql
SET search_path = doorstep, public, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    open_order uuid;
    of_orders uuid[];
    name_of_table text;
    deleted_count int8;
BEGIN
    -- Compaction holds this row while it packs: a chunk that it has just written is deleted too.
    PERFORM FROM history_bounds FOR UPDATE;
    PERFORM FROM driver_state d WHERE d.driver_id = of_driver_id FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no driver %', of_driver_id USING ERRCODE = 'DS003';
    END IF;
    SELECT a.order_id INTO open_order FROM assignment a
        WHERE a.driver_id = of_driver_id AND a.ended_at IS NULL LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION '% has the open order %: reassign, cancel or fail it first', of_driver_id,
            open_order USING ERRCODE = 'DS016';
    END IF;
    PERFORM FROM change_device_v2('driver', of_driver_id, 'remove', NULL, NULL, NULL);
    UPDATE device_credential c SET forgotten_at = clock_timestamp()
        WHERE c.device_id = of_driver_id;

    of_orders := ARRAY(
        SELECT c.order_id FROM order_command c
        WHERE c.driver_id = of_driver_id OR c.actor_id = of_driver_id
        UNION SELECT a.order_id FROM assignment a WHERE a.driver_id = of_driver_id
    );
    RETURN QUERY SELECT 'assignment', 'names `forgotten`',
        orders__forget_people(of_orders, of_driver_id);
    DELETE FROM outbox o
        WHERE o.topic = 'dead-letter' AND o.key = convert_to(of_driver_id, 'UTF8');
    GET DIAGNOSTICS deleted_count = ROW_COUNT;
    RETURN QUERY SELECT 'outbox', 'deleted', deleted_count;
    FOREACH name_of_table IN ARRAY ARRAY[
        'fix_history', 'fix_chunk', 'parked_fix', 'driver_cell', 'driver_clock', 'driver_command',
        'driver_pace', 'driver_quota', 'driver_sampling', 'boot_seq_block', 'boot_seqs',
        'access_token', 'driver_state', 'driver'
    ] LOOP
        EXECUTE format('DELETE FROM %I WHERE driver_id = $1', name_of_table) USING of_driver_id;
        GET DIAGNOSTICS deleted_count = ROW_COUNT;
        RETURN QUERY SELECT name_of_table, 'deleted', deleted_count;
    END LOOP;
    -- What their device published as a source. In ASCII, '0' follows '/'.
    DELETE FROM series_point p USING series s
        WHERE s.name >= of_driver_id || '/' AND s.name < of_driver_id || '0'
            AND p.series_no = s.series_no;
    GET DIAGNOSTICS deleted_count = ROW_COUNT;
    RETURN QUERY SELECT 'series_point', 'deleted', deleted_count;
    DELETE FROM series s WHERE s.name >= of_driver_id || '/' AND s.name < of_driver_id || '0';
    GET DIAGNOSTICS deleted_count = ROW_COUNT;
    RETURN QUERY SELECT 'series', 'deleted', deleted_count;
    PERFORM record_audit_v1(by_who, 'driver.forget', of_driver_id, NULL);
END
$$;
