-- What visibility follows from: the commands open and close ranges, and copies of fixes tell of
-- clocks.

-- 500: assigning opens a range, and the end of the assignment closes it. Whoever sets `visible`
-- along with `ended_at` has closed it already.
CREATE FUNCTION assignment__derive_visible()
RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        NEW.visible := tstzmultirange(tstzrange(NEW.assigned_at, NEW.ended_at));
    ELSE
        NEW.visible := NEW.visible * tstzmultirange(tstzrange(NULL, NEW.ended_at));
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER _500_derive_visible BEFORE INSERT OR UPDATE OF ended_at ON assignment
FOR EACH ROW EXECUTE FUNCTION assignment__derive_visible();

-- 900: a new hour of a driver's clocks ends what no rule looks at: an assignment looks back for 24
-- hours, and its customer's link ends limits.customer_token_s after it. A row each, for these are few.
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
