-- The guards of the state machines (100), derived data (500) and announcements (900). Orders change
-- rarely, so guards are row triggers.

CREATE FUNCTION order_command__guard()
RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM orders o
        JOIN order_transition t ON t.from_state = o.state
        WHERE o.order_id = NEW.order_id AND t.from_state = NEW.from_state
            AND t.to_state = NEW.to_state AND t.via = 'command'
            AND t.command = NEW.command AND t.actor = NEW.actor
    ) THEN
        PERFORM orders__raise_illegal_transition(
            NEW.order_id, NEW.command::text, o.state, NEW.actor
        ) FROM orders o WHERE o.order_id = NEW.order_id;
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER _100_guard_transition BEFORE INSERT ON order_command
FOR EACH ROW EXECUTE FUNCTION order_command__guard();

CREATE FUNCTION orders__guard()
RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state <> 'created' OR NEW.assignment_no <> 0 OR NEW.order_seq <> 1 THEN
            PERFORM orders__raise_illegal_transition(NEW.order_id, 'insert', NEW.state, NULL);
        END IF;
        RETURN NEW;
    END IF;
    IF (NEW.state, NEW.assignment_no) = (OLD.state, OLD.assignment_no) THEN
        RETURN NEW;
    END IF;
    -- Only forward, by a legal transition, and by at most one assignment.
    IF (NEW.assignment_no, NEW.state) < (OLD.assignment_no, OLD.state)
        OR NEW.assignment_no > OLD.assignment_no + 1
        OR NOT EXISTS (
            SELECT FROM order_transition t
            WHERE t.from_state = OLD.state AND t.to_state = NEW.state
                AND (NEW.assignment_no = OLD.assignment_no
                    OR t.command IN ('assign', 'decline', 'reassign'))
        )
    THEN
        PERFORM orders__raise_illegal_transition(
            NEW.order_id, 'update to ' || NEW.state, OLD.state, NULL
        );
    END IF;
    NEW.order_seq := OLD.order_seq + 1;
    RETURN NEW;
END
$$;

CREATE TRIGGER _100_guard_transition BEFORE INSERT OR UPDATE OF state, assignment_no ON orders
FOR EACH ROW EXECUTE FUNCTION orders__guard();

CREATE FUNCTION policy__guard()
RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'policies are immutable: orders pin them' USING ERRCODE = 'DS013';
END
$$;

CREATE TRIGGER _100_guard_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON policy
FOR EACH STATEMENT EXECUTE FUNCTION policy__guard();

-- 500: write an event for each change of (assignment_no, state).
CREATE FUNCTION orders__derive_events()
RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO order_event (order_id, order_seq, assignment_no, state, source, occurred_at)
        SELECT order_id, order_seq, assignment_no, state, state_source, state_at FROM new_orders;
        RETURN NULL;
    END IF;
    INSERT INTO order_event (order_id, order_seq, assignment_no, state, source, driver_id,
        occurred_at)
    SELECT n.order_id, n.order_seq, n.assignment_no, n.state, n.state_source, a.driver_id,
        n.state_at
    FROM new_orders n
    JOIN old_orders o ON o.order_id = n.order_id AND o.order_seq < n.order_seq
        AND (o.assignment_no, o.state) <> (n.assignment_no, n.state)  -- others are notices
    LEFT JOIN assignment a ON a.order_id = n.order_id AND a.assignment_no = n.assignment_no;
    RETURN NULL;
END
$$;

CREATE TRIGGER _500_derive_events
AFTER INSERT ON orders REFERENCING NEW TABLE AS new_orders
FOR EACH STATEMENT EXECUTE FUNCTION orders__derive_events();

CREATE TRIGGER _501_derive_events
AFTER UPDATE ON orders REFERENCING NEW TABLE AS new_orders OLD TABLE AS old_orders
FOR EACH STATEMENT EXECUTE FUNCTION orders__derive_events();

-- 510: update the drivers of orders whose state changed, including the driver whose assignment has
-- just ended. A notice or an earlier instant changes no driver.
CREATE FUNCTION orders__derive_driver_state()
RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    affected_drivers text[];
BEGIN
    SELECT array_agg(DISTINCT a.driver_id) INTO affected_drivers
    FROM new_orders n
    JOIN assignment a ON a.order_id = n.order_id AND a.assignment_no >= n.assignment_no - 1
    WHERE ((n.order_id, n.assignment_no, n.state)
        IN (SELECT order_id, assignment_no, state FROM old_orders)) IS NOT TRUE;  -- never a join
    IF affected_drivers IS NOT NULL THEN
        PERFORM driver_state__derive(affected_drivers);
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER _510_derive_driver_state
AFTER UPDATE ON orders REFERENCING NEW TABLE AS new_orders OLD TABLE AS old_orders
FOR EACH STATEMENT EXECUTE FUNCTION orders__derive_driver_state();

-- 900: publish every event through the outbox.
CREATE FUNCTION order_event__announce()
RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO outbox (topic, key, payload)
    SELECT 'tracking-updates', convert_to(order_id::text, 'UTF8'),
        convert_to(json_build_object(
            'order_id', order_id, 'order_seq', order_seq, 'assignment_no', assignment_no,
            'state', state, 'source', source, 'driver_id', driver_id,
            'occurred_at', instant_text(occurred_at), 'recorded_at', instant_text(recorded_at)
        )::text, 'UTF8')
    FROM new_events ORDER BY order_id, order_seq;
    RETURN NULL;
END
$$;

CREATE TRIGGER _900_announce AFTER INSERT ON order_event REFERENCING NEW TABLE AS new_events
FOR EACH STATEMENT EXECUTE FUNCTION order_event__announce();
