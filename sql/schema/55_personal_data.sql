-- How long personal data are kept, and erasing them: docs/how-to/personal-data.md.

-- Returns the instant before which data of a kind are past their retention.
CREATE FUNCTION retention__before(of_kind text, as_of timestamptz)
RETURNS timestamptz LANGUAGE sql STABLE
RETURN as_of - make_interval(days => (SELECT r.days FROM retention r WHERE r.kind = of_kind));

-- Sets for how many days a kind is kept. `history` is limits.history_days.
CREATE FUNCTION retention__set_v1(of_kind text, new_days int, by_who text)
RETURNS void LANGUAGE plpgsql
SET search_path = doorstep, public, pg_temp
AS $$
BEGIN
    UPDATE retention SET days = new_days WHERE kind = of_kind;
    UPDATE limits SET history_days = new_days WHERE of_kind = 'history';
    PERFORM record_audit_v1(by_who, 'retention.set', of_kind, jsonb_build_object('days', new_days));
END
$$;

CREATE FUNCTION retention__keep_off_duty_v1(keep bool, by_who text)
RETURNS void LANGUAGE plpgsql
SET search_path = doorstep, public, pg_temp
AS $$
BEGIN
    UPDATE limits SET keep_off_duty_positions = keep;
    PERFORM record_audit_v1(by_who, 'retention.set', 'off-duty', jsonb_build_object('keep', keep));
END
$$;

-- Makes orders anonymous: the destination becomes the restaurant's place, and links end. Evidence
-- and states stay. Returns the number of orders that were not anonymous.
CREATE FUNCTION orders__forget(of_orders uuid[], at timestamptz)
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
    UPDATE order_command c SET idempotency_key = NULL, note = NULL,
        actor_id = CASE WHEN c.actor = 'customer' THEN 'forgotten' ELSE c.actor_id END
    WHERE c.order_id = ANY (of_orders);
    UPDATE order_offer f SET offer_key = NULL, decline_key = NULL
    WHERE f.order_id = ANY (of_orders);
    DELETE FROM order_detail d WHERE d.order_id = ANY (of_orders);
    DELETE FROM order_pin p WHERE p.order_id = ANY (of_orders);
    DELETE FROM order_pin_try t WHERE t.order_id = ANY (of_orders);
    DELETE FROM order_photo p WHERE p.order_id = ANY (of_orders);
    -- A pickup place may be a person's home. The assignments keep its position, for the evidence.
    UPDATE restaurant r SET name = 'forgotten', address = NULL, phone = NULL
    WHERE r.is_ad_hoc AND r.restaurant_id = ANY (ARRAY(
        SELECT o.restaurant_id FROM orders o WHERE o.order_id = ANY (of_orders)
    ));
    DELETE FROM access_token t WHERE t.order_id = ANY (of_orders);
    DELETE FROM order_watch w WHERE w.order_id = ANY (of_orders);
    RETURN forgotten_count;
END
$$;

-- Replaces the people who carried and commanded orders by `forgotten`: all of them, or one driver.
-- The orders have ended. Returns the number of assignments.
CREATE FUNCTION orders__forget_people(of_orders uuid[], of_driver_id text)
RETURNS int8 LANGUAGE plpgsql AS $$
DECLARE
    a assignment;
    forgotten_count int8 := 0;
BEGIN
    INSERT INTO driver (driver_id, name) VALUES ('forgotten', 'forgotten') ON CONFLICT DO NOTHING;
    FOR a IN
        SELECT * FROM assignment t WHERE t.order_id = ANY (of_orders)
            AND t.driver_id = coalesce(of_driver_id, t.driver_id) AND t.driver_id <> 'forgotten'
        ORDER BY t.order_id, t.assignment_no
    LOOP
        WHILE EXISTS (SELECT FROM assignment t
            WHERE t.driver_id = 'forgotten' AND t.assigned_at = a.assigned_at)
        LOOP  -- two windows that began in one microsecond
            a.assigned_at := a.assigned_at - interval '1 microsecond';
        END LOOP;
        UPDATE assignment t SET driver_id = 'forgotten', assigned_at = a.assigned_at
            WHERE t.order_id = a.order_id AND t.assignment_no = a.assignment_no;
        forgotten_count := forgotten_count + 1;
    END LOOP;
    UPDATE order_event e SET driver_id = 'forgotten'
        WHERE e.order_id = ANY (of_orders) AND e.driver_id = coalesce(of_driver_id, e.driver_id);
    UPDATE order_command c SET
        actor_id = CASE WHEN c.actor_id = coalesce(of_driver_id, c.actor_id)
            THEN 'forgotten' ELSE c.actor_id END,
        driver_id = CASE WHEN c.driver_id = coalesce(of_driver_id, c.driver_id)
            THEN 'forgotten' ELSE c.driver_id END
    WHERE c.order_id = ANY (of_orders);
    UPDATE order_pin p SET given_by = 'forgotten'
        WHERE p.order_id = ANY (of_orders) AND p.given_by = coalesce(of_driver_id, p.given_by);
    DELETE FROM order_pin_try t
        WHERE t.order_id = ANY (of_orders) AND t.driver_id = coalesce(of_driver_id, t.driver_id);
    UPDATE order_photo p SET driver_id = 'forgotten'
        WHERE p.order_id = ANY (of_orders) AND p.driver_id = coalesce(of_driver_id, p.driver_id);
    UPDATE order_return r SET driver_id = 'forgotten',
        ended_at = coalesce(r.ended_at, greatest(r.started_at, clock_timestamp())),
        ended_by = 'forgotten', ended_role = coalesce(r.ended_role, 'driver')
    WHERE r.order_id = ANY (of_orders) AND r.driver_id = coalesce(of_driver_id, r.driver_id);
    IF of_driver_id IS NULL THEN  -- forget_driver_v1 deletes one driver's
        DELETE FROM order_offer f WHERE f.order_id = ANY (of_orders);
    END IF;
    RETURN forgotten_count;
END
$$;

-- Deletes or makes anonymous up to at_most rows of a kind that are past their retention. Returns
-- their number. Takes no lock that a batch of fixes waits for: it skips locked drivers.
CREATE FUNCTION retention__expire(of_kind text, at_most int, as_of timestamptz)
RETURNS int8 LANGUAGE plpgsql
SET enable_mergejoin = off
AS $$
DECLARE
    before CONSTANT timestamptz := retention__before(of_kind, as_of);
    expired_count int8;
    of_orders uuid[];
    of_drivers text[];
BEGIN
    IF of_kind = 'orders' THEN
        of_orders := ARRAY(
            SELECT o.order_id FROM orders o WHERE o.ended_at < before AND o.forgotten_at IS NULL
            ORDER BY o.ended_at LIMIT at_most FOR NO KEY UPDATE SKIP LOCKED
        );
        RETURN orders__forget(of_orders, as_of);
    ELSIF of_kind = 'commands' THEN
        DELETE FROM driver_command c WHERE c.ctid = ANY (ARRAY(
            SELECT k.ctid FROM driver_command k
            WHERE k.commanded_at < before AND EXISTS (  -- the last one says who was on duty then
                SELECT FROM driver_command n
                WHERE n.driver_id = k.driver_id AND n.commanded_at < before
                    AND (n.commanded_at, n.driver_command_id)
                        > (k.commanded_at, k.driver_command_id)
            )
            LIMIT at_most
        ));
        GET DIAGNOSTICS expired_count = ROW_COUNT;
        of_orders := ARRAY(
            SELECT DISTINCT f.order_id FROM (
                SELECT a.order_id FROM assignment a
                JOIN orders o ON o.order_id = a.order_id AND o.ended_at < before
                WHERE a.ended_at < before AND a.driver_id <> 'forgotten'
                ORDER BY a.ended_at LIMIT at_most
            ) f
        );
        RETURN expired_count + orders__forget_people(of_orders, NULL);
    ELSIF of_kind = 'tokens' THEN
        -- A token without expires_at that was revoked must not be registered again: staff's stay.
        DELETE FROM access_token t WHERE t.token_sha256 = ANY (ARRAY(
            SELECT k.token_sha256 FROM access_token k LEFT JOIN orders o ON o.order_id = k.order_id
            WHERE CASE k.role WHEN 'staff' THEN k.expires_at < before
                ELSE coalesce(k.revoked_at < before, false) OR coalesce(o.ended_at < before, false)
                END
            LIMIT at_most
        ));
    ELSIF of_kind = 'clocks' THEN
        DELETE FROM driver_clock c WHERE c.ctid = ANY (ARRAY(
            SELECT k.ctid FROM driver_clock k WHERE k.hour < before LIMIT at_most
        ));
    ELSIF of_kind = 'contacts' THEN
        UPDATE driver d SET name = d.driver_id, vehicle = NULL, phone = NULL
        WHERE d.driver_id = ANY (ARRAY(
            SELECT k.driver_id FROM driver k JOIN device_credential c ON c.device_id = k.driver_id
            WHERE c.removed_at < before
                AND (k.name, k.vehicle, k.phone) IS DISTINCT FROM (k.driver_id, NULL, NULL)
            LIMIT at_most
        ));
    ELSIF of_kind = 'photos' THEN
        DELETE FROM order_photo p WHERE p.order_id = ANY (ARRAY(
            SELECT k.order_id FROM order_photo k WHERE k.stored_at < before
            ORDER BY k.stored_at LIMIT at_most
        ));
    ELSIF of_kind = 'audit' THEN
        DELETE FROM audit c WHERE c.audit_id = ANY (ARRAY(
            SELECT k.audit_id FROM audit k WHERE k.at < before ORDER BY k.at LIMIT at_most
        ));
    ELSIF of_kind = 'positions' THEN
        -- the newest position of a driver is kept as long as the history
        of_drivers := ARRAY(
            SELECT d.driver_id FROM driver_state d
            WHERE d.fix_at < as_of - make_interval(days => (SELECT l.history_days FROM limits l))
            LIMIT at_most FOR NO KEY UPDATE SKIP LOCKED
        );
        PERFORM driver_state__forget_position(of_drivers);
        RETURN cardinality(of_drivers);
    ELSE
        RAISE EXCEPTION 'there is no kind %', of_kind USING ERRCODE = '22023';
    END IF;
    GET DIAGNOSTICS expired_count = ROW_COUNT;
    RETURN expired_count;
END
$$;

CREATE FUNCTION driver_state__forget_position(of_drivers text[])
RETURNS void LANGUAGE sql AS $$
    DELETE FROM driver_cell c WHERE c.driver_id = ANY (of_drivers);
    SELECT driver_state__release_prefixes(of_drivers);
    UPDATE driver_state SET fix_at = NULL, received_at = NULL, lon_deg = NULL, lat_deg = NULL,
        accuracy_m = NULL, speed_mps = NULL, heading_deg = NULL, altitude_m = NULL, battery = NULL,
        boot = NULL, seq = NULL, geom = NULL, cell = NULL, settled_to = NULL
    WHERE driver_id = ANY (of_drivers)
$$;

-- For driver_events. The clock and the table `retention`, which only the owner may write, decide,
-- so that a captured service cannot expire anything early.
CREATE FUNCTION retention__expire_v1(of_kind text, at_most int)
RETURNS int8 LANGUAGE sql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    SELECT CASE WHEN of_kind IN ('deliveries', 'alerts')
        THEN retention__expire_records(of_kind, least(at_most, 10000), clock_timestamp())
        ELSE retention__expire(of_kind, least(at_most, 10000), clock_timestamp()) END
$$;

-- Erases a driver: what tells of them is deleted, and orders name `forgotten` instead. The id stays
-- in device_credential, so that it is never used again, and in the audit. Returns the number of
-- rows per table. Raises DS003 for an unknown driver, and DS016 if an order of theirs is open.
CREATE FUNCTION forget_driver_v1(of_driver_id text, by_who text)
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
        'access_token', 'invitation', 'order_offer', 'driver_state', 'driver'
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

-- Makes an order anonymous. Raises DS002 for an unknown order, DS016 for an open one, and for one
-- that ended within the last 24 hours: positions near its door are hidden from other customers for
-- so long, and late fixes are still compared with it.
CREATE FUNCTION forget_order_v1(of_order_id uuid, by_who text)
RETURNS TABLE (table_name text, what text, row_count int8)
LANGUAGE plpgsql
SET search_path = doorstep, public, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    o orders;
    free_at timestamptz;
    token_count int8;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(of_order_id::text, 1));
    SELECT * INTO o FROM orders k WHERE k.order_id = of_order_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no order %', of_order_id USING ERRCODE = 'DS002';
    END IF;
    IF o.ended_at IS NULL THEN
        RAISE EXCEPTION 'order % is open: cancel or fail it first', of_order_id
            USING ERRCODE = 'DS016';
    END IF;
    free_at := o.ended_at + interval '24 hours';
    IF free_at > clock_timestamp()
        AND EXISTS (SELECT FROM assignment a WHERE a.order_id = of_order_id)
    THEN
        RAISE EXCEPTION 'order % ended less than 24 hours ago, and its door is still hidden from '
            'other customers: repeat this after %', of_order_id, free_at USING ERRCODE = 'DS016';
    END IF;
    SELECT count(*) INTO token_count FROM access_token t WHERE t.order_id = of_order_id;
    RETURN QUERY SELECT 'orders', 'made anonymous',
        orders__forget(ARRAY[of_order_id], clock_timestamp());
    RETURN QUERY SELECT 'assignment', 'made anonymous', count(*) FROM assignment a
        WHERE a.order_id = of_order_id;
    RETURN QUERY SELECT 'access_token', 'deleted', token_count;
    PERFORM record_audit_v1(by_who, 'order.forget', of_order_id::text, NULL);
END
$$;
