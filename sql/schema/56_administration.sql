-- What admins change. "values" has the fields to set, and what it omits stays. Nothing is deleted:
-- what is retired is off the lists and takes no new orders. The audit has the names of the changed
-- fields, never their values: some are personal. Drivers are added and removed by
-- change_device_v2 (54_credentials.sql).

CREATE FUNCTION administration__record_audit(
    by_who text, did_action text, to_subject text, "values" jsonb
)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM record_audit_v1(by_who, did_action, to_subject, jsonb_build_object(
        'fields', ARRAY(SELECT k FROM jsonb_object_keys("values") k ORDER BY k)));
END
$$;

-- Sets name, vehicle or phone. Raises DS003 for an unknown driver, DS040 for a removed one.
CREATE FUNCTION change_driver_v1(of_driver_id text, "values" jsonb, by_who text)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
DECLARE
    changed driver;
BEGIN
    SELECT * INTO changed FROM driver d
        WHERE d.driver_id = of_driver_id AND d.driver_id <> 'forgotten' FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no driver %', of_driver_id USING ERRCODE = 'DS003';
    END IF;
    IF EXISTS (SELECT FROM device_credential c
        WHERE c.device_id = of_driver_id AND c.removed_at IS NOT NULL)
    THEN
        RAISE EXCEPTION 'the driver % is retired', of_driver_id USING ERRCODE = 'DS040';
    END IF;
    changed := jsonb_populate_record(changed, "values");
    UPDATE driver d SET name = changed.name, vehicle = changed.vehicle, phone = changed.phone
        WHERE d.driver_id = of_driver_id;
    PERFORM administration__record_audit(by_who, 'driver.change', of_driver_id, "values");
END
$$;

-- Raises DS051 for a restaurant that lies in a service area only with its coordinates swapped.
CREATE FUNCTION restaurant__check_place(r restaurant)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF service_area__is_swapped(r.lon_deg, r.lat_deg) THEN
        RAISE EXCEPTION 'the restaurant is in no service area, but in one with its longitude and '
            'latitude swapped' USING ERRCODE = 'DS051';
    END IF;
END
$$;

-- Creates a restaurant, a place where orders are picked up. Returns its id. Raises DS051.
CREATE FUNCTION create_restaurant_v1("values" jsonb, by_who text)
RETURNS int LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
DECLARE
    wanted CONSTANT restaurant := jsonb_populate_record(NULL::restaurant, "values");
    created_id int;
BEGIN
    PERFORM restaurant__check_place(wanted);
    LOOP  -- until an id that was not given by hand
        INSERT INTO restaurant (name, lon_deg, lat_deg, address, phone, opening_hours,
            preparation_s, changed_at)
        VALUES (wanted.name, wanted.lon_deg, wanted.lat_deg, wanted.address, wanted.phone,
            wanted.opening_hours, wanted.preparation_s, clock_timestamp())
        ON CONFLICT DO NOTHING RETURNING restaurant_id INTO created_id;
        EXIT WHEN FOUND;
    END LOOP;
    PERFORM administration__record_audit(
        by_who, 'restaurant.create', created_id::text, "values");
    RETURN created_id;
END
$$;

-- Raises DS004 for an unknown restaurant, DS040 for a retired one, DS051 for a new place whose
-- coordinates are swapped. Open orders keep the place that they were assigned with.
CREATE FUNCTION change_restaurant_v1(of_restaurant_id int, "values" jsonb, by_who text)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
DECLARE
    changed restaurant;
BEGIN
    SELECT * INTO changed FROM restaurant r
        WHERE r.restaurant_id = of_restaurant_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no restaurant %', of_restaurant_id USING ERRCODE = 'DS004';
    ELSIF changed.retired_at IS NOT NULL THEN
        RAISE EXCEPTION 'the restaurant % is retired', of_restaurant_id USING ERRCODE = 'DS040';
    END IF;
    changed := jsonb_populate_record(changed, "values");
    IF "values" ?| ARRAY['lon_deg', 'lat_deg'] THEN
        PERFORM restaurant__check_place(changed);
    END IF;
    UPDATE restaurant r SET name = changed.name, lon_deg = changed.lon_deg,
        lat_deg = changed.lat_deg, address = changed.address, phone = changed.phone,
        opening_hours = changed.opening_hours, preparation_s = changed.preparation_s,
        changed_at = clock_timestamp(),
        city = CASE WHEN (r.lon_deg, r.lat_deg) = (changed.lon_deg, changed.lat_deg) THEN r.city END
    WHERE r.restaurant_id = of_restaurant_id;
    PERFORM administration__record_audit(
        by_who, 'restaurant.change', of_restaurant_id::text, "values");
END
$$;

-- Raises DS004 for an unknown restaurant. Repeating it changes nothing.
CREATE FUNCTION retire_restaurant_v1(of_restaurant_id int, by_who text)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
DECLARE
    now CONSTANT timestamptz := clock_timestamp();
    retired restaurant;
BEGIN
    UPDATE restaurant r SET retired_at = coalesce(r.retired_at, now), changed_at = now
        WHERE r.restaurant_id = of_restaurant_id RETURNING * INTO retired;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no restaurant %', of_restaurant_id USING ERRCODE = 'DS004';
    ELSIF retired.retired_at = now THEN
        PERFORM record_audit_v1(by_who, 'restaurant.retire', of_restaurant_id::text, NULL);
    END IF;
END
$$;

-- Creates a service area, or brings a retired one of this name back with new values. Raises DS041
-- for a name that is taken.
CREATE FUNCTION create_service_area_v1("values" jsonb, by_who text)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
DECLARE
    created service_area := jsonb_populate_record(NULL::service_area, "values");
BEGIN
    INSERT INTO service_area AS a (name, west, south, east, north, time_zone, changed_at)
    VALUES (created.name, created.west, created.south, created.east, created.north,
        coalesce(created.time_zone, 'UTC'), clock_timestamp())
    ON CONFLICT (name) DO UPDATE SET west = EXCLUDED.west, south = EXCLUDED.south,
        east = EXCLUDED.east, north = EXCLUDED.north, time_zone = EXCLUDED.time_zone,
        changed_at = EXCLUDED.changed_at, retired_at = NULL
    WHERE a.retired_at IS NOT NULL;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the name % is taken', created.name USING ERRCODE = 'DS041';
    END IF;
    PERFORM administration__record_audit(by_who, 'service_area.create', created.name, "values");
END
$$;

-- Raises DS043 for an unknown area, DS040 for a retired one.
CREATE FUNCTION change_service_area_v1(of_name text, "values" jsonb, by_who text)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
DECLARE
    changed service_area;
BEGIN
    SELECT * INTO changed FROM service_area a WHERE a.name = of_name FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no service area %', of_name USING ERRCODE = 'DS043';
    ELSIF changed.retired_at IS NOT NULL THEN
        RAISE EXCEPTION 'the service area % is retired', of_name USING ERRCODE = 'DS040';
    END IF;
    changed := jsonb_populate_record(changed, "values");
    UPDATE service_area a SET west = changed.west, south = changed.south, east = changed.east,
        north = changed.north, time_zone = changed.time_zone, changed_at = clock_timestamp()
    WHERE a.name = of_name;
    PERFORM administration__record_audit(by_who, 'service_area.change', of_name, "values");
END
$$;

-- Raises DS043 for an unknown area. Repeating it changes nothing.
CREATE FUNCTION retire_service_area_v1(of_name text, by_who text)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
DECLARE
    now CONSTANT timestamptz := clock_timestamp();
    retired service_area;
BEGIN
    UPDATE service_area a SET retired_at = coalesce(a.retired_at, now), changed_at = now
        WHERE a.name = of_name RETURNING * INTO retired;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no service area %', of_name USING ERRCODE = 'DS043';
    ELSIF retired.retired_at = now THEN
        PERFORM record_audit_v1(by_who, 'service_area.retire', of_name, NULL);
    END IF;
END
$$;

-- Changes a policy: creates one with other values, retires this one, and is the default in its
-- place. Returns the new id. Raises DS005 for an unknown policy, DS040 for a retired one.
CREATE FUNCTION replace_policy_v1(of_policy_id int, "values" jsonb, by_who text)
RETURNS int LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
DECLARE
    was_default CONSTANT bool := policy__lock(of_policy_id);
    created policy;
BEGIN
    SELECT * INTO created FROM policy p WHERE p.policy_id = of_policy_id;
    created := jsonb_populate_record(created, "values");
    created.policy_id := nextval(pg_get_serial_sequence('doorstep.policy', 'policy_id'));
    created.created_at := clock_timestamp();
    INSERT INTO policy SELECT created.*;
    IF was_default THEN
        UPDATE policy_status s SET is_default = false, retired_at = clock_timestamp()
            WHERE s.policy_id = of_policy_id;
        INSERT INTO policy_status (policy_id, is_default) VALUES (created.policy_id, true);
    ELSE
        INSERT INTO policy_status VALUES (of_policy_id, false, clock_timestamp());
    END IF;
    PERFORM record_audit_v1(by_who, 'policy.replace', of_policy_id::text, jsonb_build_object(
        'policy_id', created.policy_id, 'values', "values"));
    RETURN created.policy_id;
END
$$;

-- Locks the status of all policies, so that there is one default at any time. Returns whether this
-- one is it. Raises DS005 for an unknown policy, DS040 for a retired one.
CREATE FUNCTION policy__lock(of_policy_id int)
RETURNS bool LANGUAGE plpgsql AS $$
DECLARE
    status policy_status;
BEGIN
    LOCK TABLE policy_status IN SHARE ROW EXCLUSIVE MODE;
    SELECT * INTO status FROM policy_status s WHERE s.policy_id = of_policy_id;
    IF NOT FOUND AND NOT EXISTS (SELECT FROM policy p WHERE p.policy_id = of_policy_id) THEN
        RAISE EXCEPTION 'there is no policy %', of_policy_id USING ERRCODE = 'DS005';
    ELSIF status.retired_at IS NOT NULL THEN
        RAISE EXCEPTION 'the policy % is retired', of_policy_id USING ERRCODE = 'DS040';
    END IF;
    RETURN coalesce(status.is_default, false);
END
$$;

-- Raises DS005 for an unknown policy, DS042 for the default, DS040 for a retired one.
CREATE FUNCTION retire_policy_v1(of_policy_id int, by_who text)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
BEGIN
    IF policy__lock(of_policy_id) THEN
        RAISE EXCEPTION 'policy % is the default: choose another default first', of_policy_id
            USING ERRCODE = 'DS042';
    END IF;
    INSERT INTO policy_status VALUES (of_policy_id, false, clock_timestamp());
    PERFORM record_audit_v1(by_who, 'policy.retire', of_policy_id::text, NULL);
END
$$;

-- Makes a policy the one of new orders that name none. Raises DS005, DS040.
CREATE FUNCTION set_default_policy_v1(of_policy_id int, by_who text)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
BEGIN
    IF NOT policy__lock(of_policy_id) THEN
        DELETE FROM policy_status s WHERE s.is_default;
        INSERT INTO policy_status (policy_id, is_default) VALUES (of_policy_id, true);
        PERFORM record_audit_v1(by_who, 'policy.set_default', of_policy_id::text, NULL);
    END IF;
END
$$;
