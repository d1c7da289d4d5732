-- The duty and state of drivers. Drivers' own functions are in 55_drivers.sql.

-- Derives the state from the duty and the order of the next stop. Writes only changed rows.
CREATE FUNCTION driver_state__derive(of_drivers text[])
RETURNS void LANGUAGE plpgsql  -- in SQL it would be planned again for each call
SET enable_hashjoin = off  -- every join is a look-up by key
SET enable_mergejoin = off
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    UPDATE driver_state d SET state = s.state, order_id = s.order_id
    FROM (
        SELECT k.driver_id, o.order_id,
            CASE
                WHEN o.state = 'assigned' THEN 'to_restaurant'
                WHEN o.state = 'at_restaurant' THEN 'at_restaurant'
                WHEN o.state IN ('picked_up', 'arriving') THEN 'to_customer'
                WHEN o.state = 'at_customer' THEN 'at_customer'
                WHEN k.duty = 'on_duty' THEN 'available'
                ELSE k.duty::text
            END::driver_status AS state
        FROM driver_state k
        LEFT JOIN assignment a ON a.driver_id = k.driver_id AND a.ended_at IS NULL
            AND a.stop_no = 1
        LEFT JOIN orders o ON o.order_id = a.order_id
        WHERE k.driver_id = ANY (of_drivers)
    ) s
    WHERE d.driver_id = s.driver_id
        AND (d.state, d.order_id) IS DISTINCT FROM (s.state, s.order_id);
END
$$;

CREATE FUNCTION apply_driver_command_v1(
    of_driver_id text, command_name text, by_actor text, with_idempotency_key text
)
RETURNS TABLE (driver_id text, duty driver_duty, state driver_status, order_id uuid)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    verb CONSTANT driver_verb := command_name;
    d driver_state;
    repeated driver_verb;
    target driver_status;
BEGIN
    SELECT * INTO d FROM driver_state WHERE driver_id = of_driver_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no driver %', of_driver_id USING ERRCODE = 'DS003';
    END IF;
    SELECT command INTO repeated FROM driver_command
        WHERE driver_id = of_driver_id AND actor = by_actor::actor
            AND idempotency_key = with_idempotency_key;
    IF repeated <> verb THEN
        RAISE EXCEPTION 'this key was used for %', repeated USING ERRCODE = 'DS008';
    END IF;
    -- A repeated command or key changes nothing.
    IF repeated IS NULL AND d.duty::text <> verb::text THEN
        SELECT to_state INTO target FROM driver_transition
            WHERE from_state = d.state AND command = verb;
        IF NOT FOUND THEN
            RAISE EXCEPTION '% is not possible from %', command_name, d.state USING
                ERRCODE = 'DS001',
                DETAIL = jsonb_build_object(
                    'subject_id', of_driver_id, 'command', command_name, 'current_state', d.state,
                    'allowed', ARRAY(SELECT command FROM driver_transition
                        WHERE from_state = d.state ORDER BY command)
                );
        END IF;
        INSERT INTO driver_command (driver_id, command, actor, from_state, to_state,
            idempotency_key)
        VALUES (of_driver_id, verb, by_actor::actor, d.state, target, with_idempotency_key);
        UPDATE driver_state SET duty = verb::text::driver_duty WHERE driver_id = of_driver_id;
        PERFORM driver_state__derive(ARRAY[of_driver_id]);
    END IF;
    RETURN QUERY SELECT driver_id, duty, state, order_id FROM driver_state
        WHERE driver_id = of_driver_id;
END
$$;
