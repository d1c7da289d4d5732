-- The sampling policy of each driver's device, set by staff. Only the newest policy counts, so
-- there is no queue. A row is undelivered until a broker has confirmed the policy.

CREATE TABLE driver_sampling (
    driver_id text COLLATE "C" PRIMARY KEY REFERENCES driver,
    sampling_policy jsonb NOT NULL,
    version int8 NOT NULL DEFAULT 1,  -- increases with each change
    is_delivered bool NOT NULL DEFAULT false,  -- the driver's broker retains it for the device
    set_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX driver_sampling_undelivered ON driver_sampling (driver_id) WHERE NOT is_delivered;

CREATE FUNCTION driver_sampling__set_v1(of_driver_id text, new_policy jsonb)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
BEGIN
    PERFORM FROM driver WHERE driver_id = of_driver_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no driver %', of_driver_id USING ERRCODE = 'DS003';
    END IF;
    INSERT INTO driver_sampling (driver_id, sampling_policy) VALUES (of_driver_id, new_policy)
    ON CONFLICT (driver_id) DO UPDATE SET sampling_policy = EXCLUDED.sampling_policy,
        version = driver_sampling.version + 1, is_delivered = false, set_at = clock_timestamp();
END
$$;

-- Returns the undelivered policies to one publisher at a time: two publishers could leave the older
-- of two policies as the retained one.
CREATE FUNCTION driver_sampling__take_v1(at_most int)
RETURNS TABLE (driver_id text, version int8, sampling_policy jsonb)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    IF pg_try_advisory_xact_lock(hashtextextended('doorstep.driver_sampling', 0)) THEN
        RETURN QUERY SELECT driver_id, version, sampling_policy FROM driver_sampling
            WHERE NOT is_delivered ORDER BY driver_id LIMIT at_most;
    END IF;
END
$$;

CREATE FUNCTION driver_sampling__confirm_v1(driver_ids text[], versions int8[])
RETURNS void LANGUAGE sql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    UPDATE driver_sampling s SET is_delivered = true
    FROM unnest(driver_ids, versions) AS c (driver_id, version)
    WHERE s.driver_id = c.driver_id AND s.version = c.version
$$;

-- Makes every policy undelivered again: a broker that was killed may have lost retained messages.
CREATE FUNCTION driver_sampling__mark_undelivered_v1()
RETURNS void LANGUAGE sql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    UPDATE driver_sampling SET is_delivered = false WHERE is_delivered
$$;
