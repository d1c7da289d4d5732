-- Derives the stops and visible ranges of assignments, and deletes old rows of driver_clock.

-- 500: give a new assignment its stop, make room for it, and open its range if it is the first one;
-- end the ranges of one that ends. `doorstep.stop_no` is the stop that assign_order_as_staff_v1
-- wants.
CREATE FUNCTION assignment__derive_visible()
RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    others uuid[];
BEGIN
    IF TG_OP = 'INSERT' THEN
        NEW.stop_no := CASE WHEN NEW.ended_at IS NULL THEN 1 END;
        IF NEW.ended_at IS NULL AND EXISTS (  -- open, or the clock was set back
            SELECT FROM assignment a WHERE a.driver_id = NEW.driver_id
                AND coalesce(a.ended_at, 'infinity') > NEW.assigned_at
        ) THEN
            NEW.assigned_at := driver_stops__free_from(NEW.driver_id, NEW.assigned_at);
            NEW.stop_no := (driver_stops__place(
                NEW.driver_id, (NEW.restaurant_lon_deg, NEW.restaurant_lat_deg,
                    NEW.customer_lon_deg, NEW.customer_lat_deg, false)::driver_stop,
                nullif(current_setting('doorstep.stop_no', true), '')::int)).stop_no;
            others := driver_stops__of(NEW.driver_id);
            IF NEW.stop_no <= cardinality(others) THEN
                PERFORM driver_stops__arrange(
                    NEW.driver_id,
                    others[: NEW.stop_no - 1] || NEW.order_id || others[NEW.stop_no :],
                    NEW.assigned_at);
            END IF;
        END IF;
        IF coalesce(NEW.stop_no, 1) = 1 THEN
            NEW.visible := tstzmultirange(tstzrange(NEW.assigned_at, NEW.ended_at));
        END IF;
        RETURN NEW;
    END IF;
    IF NEW.assigned_at < OLD.assigned_at AND lower(OLD.visible) = OLD.assigned_at THEN
        NEW.visible := NEW.visible + tstzmultirange(tstzrange(NEW.assigned_at, OLD.assigned_at));
    END IF;
    NEW.visible := NEW.visible * tstzmultirange(tstzrange(NEW.assigned_at, NEW.ended_at));
    IF NEW.ended_at IS NOT NULL THEN
        NEW.stop_no := NULL;
    ELSIF OLD.ended_at IS NOT NULL THEN  -- repaired
        NEW.stop_no := cardinality(driver_stops__of(NEW.driver_id)) + 1;
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER _500_derive_visible BEFORE INSERT OR UPDATE OF assigned_at, ended_at ON assignment
FOR EACH ROW EXECUTE FUNCTION assignment__derive_visible();

-- 510: close the gap of a stop that has ended, and derive what waited for it.
CREATE FUNCTION assignment__arrange_stops()
RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM evidence_due e
        WHERE e.order_id = NEW.order_id AND e.assignment_no = NEW.assignment_no
    ) AND NOT EXISTS (
        SELECT FROM assignment a WHERE a.driver_id = NEW.driver_id AND a.ended_at IS NULL
    ) THEN
        RETURN NULL;
    END IF;
    DELETE FROM evidence_due e
        WHERE e.order_id = NEW.order_id AND e.assignment_no = NEW.assignment_no;
    IF FOUND THEN
        PERFORM evidence__derive(ARRAY[NEW.order_id], ARRAY[NEW.assignment_no], true);
    END IF;
    PERFORM driver_stops__arrange(NEW.driver_id, driver_stops__of(NEW.driver_id),
        driver_stops__free_from(NEW.driver_id, NEW.ended_at));
    RETURN NULL;
END
$$;

CREATE TRIGGER _510_arrange_stops AFTER UPDATE OF ended_at ON assignment
FOR EACH ROW WHEN (OLD.ended_at IS NULL AND NEW.ended_at IS NOT NULL)
EXECUTE FUNCTION assignment__arrange_stops();

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
