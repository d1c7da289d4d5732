-- The audit: append-only, and a row for each command of staff.

CREATE FUNCTION audit__refuse_change()
RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit is append-only' USING ERRCODE = 'DS024';
END
$$;

CREATE TRIGGER _100_refuse_change BEFORE UPDATE OR TRUNCATE ON audit
FOR EACH STATEMENT EXECUTE FUNCTION audit__refuse_change();

CREATE FUNCTION audit__refuse_early_delete()
RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.at >= retention__before('audit', clock_timestamp()) THEN
        RAISE EXCEPTION 'the audit is append-only' USING ERRCODE = 'DS024';
    END IF;
    RETURN OLD;
END
$$;

CREATE TRIGGER _100_refuse_early_delete BEFORE DELETE ON audit
FOR EACH ROW EXECUTE FUNCTION audit__refuse_early_delete();

CREATE FUNCTION order_command__record_audit()
RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit (at, who, action, subject, detail)
    SELECT c.commanded_at, c.actor_id, 'order.' || c.command, c.order_id,
        CASE WHEN c.driver_id IS NOT NULL THEN jsonb_build_object('driver_id', c.driver_id) END
    FROM new_order_commands c WHERE c.actor = 'staff';
    RETURN NULL;
END
$$;

CREATE TRIGGER _900_record_audit AFTER INSERT ON order_command
REFERENCING NEW TABLE AS new_order_commands
FOR EACH STATEMENT EXECUTE FUNCTION order_command__record_audit();
