-- Notices are published like events (900); both are queued for webhooks (910).

CREATE FUNCTION order_notice__announce()
RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO outbox (topic, key, payload)
    SELECT 'tracking-updates', convert_to(n.order_id::text, 'UTF8'),
        convert_to(json_build_object(
            'order_id', n.order_id, 'order_seq', n.order_seq, 'assignment_no', n.assignment_no,
            'state', n.state, 'notice', n.kind, 'source', o.state_source,
            'driver_id', a.driver_id, 'occurred_at', instant_text(n.occurred_at),
            'recorded_at', instant_text(n.recorded_at)
        )::text, 'UTF8')
    FROM new_notices n
    JOIN orders o ON o.order_id = n.order_id
    LEFT JOIN assignment a ON a.order_id = n.order_id AND a.assignment_no = n.assignment_no
    ORDER BY n.order_id, n.order_seq;
    PERFORM webhook_delivery__queue(n.order_id, n.order_seq, 'order.' || n.kind)
    FROM new_notices n;
    RETURN NULL;
END
$$;

CREATE TRIGGER _900_announce AFTER INSERT ON order_notice REFERENCING NEW TABLE AS new_notices
FOR EACH STATEMENT EXECUTE FUNCTION order_notice__announce();

CREATE FUNCTION order_event__queue_webhooks()
RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM webhook w WHERE w.is_on) THEN
        PERFORM webhook_delivery__queue(e.order_id, e.order_seq, 'order.' || e.state)
        FROM (SELECT * FROM new_events ORDER BY order_id, order_seq) e;
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER _910_queue_webhooks AFTER INSERT ON order_event REFERENCING NEW TABLE AS new_events
FOR EACH STATEMENT EXECUTE FUNCTION order_event__queue_webhooks();

-- What was erased of an order must not be sent, and its log goes too.
CREATE FUNCTION orders__forget_deliveries()
RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM webhook_delivery d WHERE d.order_id = NEW.order_id;
    RETURN NULL;
END
$$;

CREATE TRIGGER _920_forget_deliveries AFTER UPDATE OF forgotten_at ON orders
FOR EACH ROW WHEN (NEW.forgotten_at IS NOT NULL)
EXECUTE FUNCTION orders__forget_deliveries();
