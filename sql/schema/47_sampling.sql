-- How each driver's device is to report, as the staff has set it: the newest setting is what
-- counts, so there is no queue. A row waits until a broker has confirmed it.

CREATE TABLE driver_reporting (
    driver_id text COLLATE "C" PRIMARY KEY REFERENCES driver,
    report jsonb NOT NULL,
    version int8 NOT NULL DEFAULT 1,  -- counts the settings
    is_delivered bool NOT NULL DEFAULT false,  -- the driver's broker keeps it for the device
    set_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX driver_reporting_waiting ON driver_reporting (driver_id) WHERE NOT is_delivered;

CREATE FUNCTION driver_reporting__set_v1(of_driver_id text, wanted jsonb)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
BEGIN
    PERFORM FROM driver WHERE driver_id = of_driver_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no driver %', of_driver_id USING ERRCODE = 'DS003';
    END IF;
    INSERT INTO driver_reporting (driver_id, report) VALUES (of_driver_id, wanted)
    ON CONFLICT (driver_id) DO UPDATE SET report = EXCLUDED.report,
        version = driver_reporting.version + 1, is_delivered = false, set_at = clock_timestamp();
END
$$;

-- Settings that no broker has confirmed, for one publisher at a time: two could leave the older
-- of two settings as the retained one.
CREATE FUNCTION driver_reporting__take_v1(at_most int)
RETURNS TABLE (driver_id text, version int8, report jsonb)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    IF pg_try_advisory_xact_lock(hashtextextended('doorstep.driver_reporting', 0)) THEN
        RETURN QUERY SELECT driver_id, version, report FROM driver_reporting
            WHERE NOT is_delivered ORDER BY driver_id LIMIT at_most;
    END IF;
END
$$;

CREATE FUNCTION driver_reporting__confirm_v1(driver_ids text[], versions int8[])
RETURNS void LANGUAGE sql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    UPDATE driver_reporting r SET is_delivered = true
    FROM unnest(driver_ids, versions) AS c (driver_id, version)
    WHERE r.driver_id = c.driver_id AND r.version = c.version
$$;

-- A broker that was killed may have lost what it kept: all of it goes out once more.
CREATE FUNCTION driver_reporting__renew_v1()
RETURNS void LANGUAGE sql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    UPDATE driver_reporting SET is_delivered = false WHERE is_delivered
$$;
