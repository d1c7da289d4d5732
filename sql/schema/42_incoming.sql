-- Incoming fixes: what cannot be stored, and what is parked because a row is locked.

-- Returns why a fix cannot be stored, regardless of what is stored already; NULL if it can.
CREATE FUNCTION incoming_fix__rejection_reason(
    boot text, seq int8, fix_at timestamptz, received_at timestamptz,
    lon_deg float8, lat_deg float8, accuracy_m float8, speed_mps float8, heading_deg float8,
    altitude_m float8, battery float8, reason text,
    future interval, lateness interval, sealed timestamptz
)
RETURNS text LANGUAGE sql STABLE PARALLEL SAFE  -- IMMUTABLE would prevent inlining
RETURN CASE
    WHEN reason IS NOT NULL THEN reason
    WHEN fix_at IS NULL OR lon_deg IS NULL OR lat_deg IS NULL OR (boot IS NULL) <> (seq IS NULL)
        THEN 'missing_field'
    WHEN fix_at > received_at + future THEN 'in_the_future'
    WHEN fix_at < received_at - lateness THEN 'too_old'
    WHEN fix_at < sealed THEN 'sealed'
    WHEN NOT lat_deg BETWEEN -90 AND 90 THEN 'latitude_out_of_range'
    WHEN NOT lon_deg BETWEEN -180 AND 180 THEN 'longitude_out_of_range'
    WHEN NOT accuracy_m BETWEEN 0 AND 1000000 THEN 'accuracy_out_of_range'
    WHEN NOT speed_mps BETWEEN 0 AND 500 THEN 'speed_out_of_range'
    WHEN NOT (heading_deg >= 0 AND heading_deg < 360) THEN 'heading_out_of_range'
    WHEN NOT altitude_m BETWEEN -1000 AND 20000 THEN 'altitude_out_of_range'
    WHEN NOT battery BETWEEN 0 AND 1 THEN 'battery_out_of_range'
END;

-- Whether a place is in no service area, but in one with its coordinates swapped.
CREATE FUNCTION service_area__is_swapped(at_lon_deg float8, at_lat_deg float8)
RETURNS bool LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN NOT EXISTS (
            SELECT FROM service_area a
            WHERE is_in_box(at_lon_deg, at_lat_deg, a.west, a.south, a.east, a.north)
        ) AND EXISTS (
            SELECT FROM service_area a
            WHERE is_in_box(at_lat_deg, at_lon_deg, a.west, a.south, a.east, a.north)
        );
END
$$;

-- Removes the rows of incoming_fix whose driver is unknown or in `drivers_to_park`: the former are
-- rejected, the latter parked. Returns the outcome of each.
CREATE FUNCTION incoming_fix__reject_or_park(drivers_to_park text[])
RETURNS SETOF fix_outcome LANGUAGE plpgsql
AS $$
BEGIN
    RETURN QUERY
        WITH unknown AS (
            DELETE FROM pg_temp.incoming_fix i
            WHERE NOT EXISTS (SELECT FROM driver_state d WHERE d.driver_id = i.driver_id)
            RETURNING i.n, i.driver_id
        )
        SELECT u.n, 'rejected', CASE WHEN EXISTS (
                SELECT FROM device_credential c
                WHERE c.device_id = u.driver_id AND c.forgotten_at IS NOT NULL
            ) THEN 'forgotten' ELSE 'unknown_driver' END
        FROM unknown u;
    RETURN QUERY
        WITH taken AS (
            DELETE FROM pg_temp.incoming_fix i
            WHERE (i.driver_id IN (SELECT unnest(drivers_to_park))) IS TRUE  -- a hash, never a join
            RETURNING i.*
        ),
        parked AS (
            INSERT INTO parked_fix (driver_id, boot, seq, fix_at, received_at, lon_deg, lat_deg,
                accuracy_m, speed_mps, heading_deg, altitude_m, battery, reason)
            SELECT driver_id, boot, seq, fix_at, received_at, lon_deg, lat_deg,
                accuracy_m, speed_mps, heading_deg, altitude_m, battery, reason
            FROM taken ORDER BY n
        )
        SELECT t.n, 'parked', 'locked' FROM taken t;
END
$$;
