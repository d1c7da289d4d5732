-- Derives the visible ranges of assignments, and deletes old rows of driver_clock.

-- 500: assigning opens a range, and the end of the assignment closes it.
CREATE FUNCTION assignment__derive_visible()
RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' OR NEW.assigned_at <> OLD.assigned_at THEN
        NEW.visible := tstzmultirange(tstzrange(NEW.assigned_at, NEW.ended_at));
    ELSE
        NEW.visible := NEW.visible * tstzmultirange(tstzrange(NULL, NEW.ended_at));
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER _500_derive_visible BEFORE INSERT OR UPDATE OF assigned_at, ended_at ON assignment
FOR EACH ROW EXECUTE FUNCTION assignment__derive_visible();

-- 900: a new hour of a driver's clocks deletes those that no open assignment reads: the rule looks
-- back 24 hours from the start of an assignment. A row trigger, because these rows are rare.
CREATE FUNCTION driver_clock__expire()
RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM driver_clock c
    WHERE c.driver_id = NEW.driver_id AND c.hour < NEW.hour - interval '72 hours';
    RETURN NULL;
END
$$;

CREATE TRIGGER _900_expire AFTER INSERT ON driver_clock
FOR EACH ROW EXECUTE FUNCTION driver_clock__expire();
