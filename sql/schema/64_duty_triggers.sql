-- When drivers were off duty: the instants of commands are in order, and driver_state.kept_from
-- follows them. A removed driver stays off duty.

CREATE FUNCTION driver_command__refuse_removed()
RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.command <> 'off_duty' AND EXISTS (SELECT FROM device_credential c
        WHERE c.device_id = NEW.driver_id AND c.removed_at IS NOT NULL)
    THEN
        RAISE EXCEPTION 'the driver % is retired', NEW.driver_id USING ERRCODE = 'DS040';
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER _100_refuse_removed BEFORE INSERT ON driver_command
FOR EACH ROW EXECUTE FUNCTION driver_command__refuse_removed();

CREATE FUNCTION driver_command__keep_order()
RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.commanded_at := greatest(NEW.commanded_at, (  -- the clock may be set back
        SELECT max(c.commanded_at) FROM driver_command c WHERE c.driver_id = NEW.driver_id
    ));
    RETURN NEW;
END
$$;

CREATE TRIGGER _100_keep_order BEFORE INSERT ON driver_command
FOR EACH ROW EXECUTE FUNCTION driver_command__keep_order();

CREATE FUNCTION driver_command__derive_kept_from()
RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE driver_state SET
        kept_from = CASE WHEN NEW.command = 'off_duty' THEN 'infinity' ELSE NEW.commanded_at END
    WHERE driver_id = NEW.driver_id AND (NEW.command = 'off_duty' OR kept_from = 'infinity');
    RETURN NULL;
END
$$;

CREATE TRIGGER _500_derive_kept_from AFTER INSERT ON driver_command
FOR EACH ROW EXECUTE FUNCTION driver_command__derive_kept_from();

CREATE FUNCTION driver_command__derive_phone_mode()
RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE phone_credential
    SET wanted_mode = driver_duty__phone_mode(NEW.command::text::driver_duty)
    WHERE driver_id = NEW.driver_id;
    RETURN NULL;
END
$$;

CREATE TRIGGER _510_derive_phone_mode AFTER INSERT ON driver_command
FOR EACH ROW EXECUTE FUNCTION driver_command__derive_phone_mode();
