-- Sessions of drivers, for the courier's page.

SET LOCAL search_path = doorstep, public;
SET LOCAL check_function_bodies = off;  -- functions may refer to objects that are created later

-- Opens a session of the driver whose token this is; no row for a token that is not good, or that
-- is a session's. It ends with the driver's other tokens: at a rotation, a revocation, a removal.
CREATE FUNCTION open_driver_session_v1(
    of_token_sha256 bytea, session_sha256 bytea, lifetime_s float8
)
RETURNS TABLE (driver_id text, name text, expires_at timestamptz)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    until CONSTANT timestamptz := clock_timestamp() + make_interval(secs => lifetime_s);
    holder record;
BEGIN
    -- Locked, so that a revocation at the same time also ends this session.
    PERFORM FROM device_credential d JOIN access_token t ON t.driver_id = d.device_id
        WHERE t.token_sha256 = of_token_sha256 FOR SHARE OF d;
    SELECT d.driver_id, d.name, least(t.expires_at, until) AS expires_at INTO holder
        FROM find_token_v2(of_token_sha256) f
        JOIN access_token t ON t.token_sha256 = of_token_sha256
        JOIN driver d ON d.driver_id = f.driver_id
        WHERE f.role = 'driver' AND NOT t.is_session;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    DELETE FROM access_token t WHERE t.driver_id = holder.driver_id AND t.is_session
        AND (t.revoked_at IS NOT NULL OR t.expires_at < clock_timestamp());
    INSERT INTO access_token (token_sha256, role, driver_id, expires_at, is_session)
    VALUES (session_sha256, 'driver', holder.driver_id, holder.expires_at, true);
    RETURN QUERY SELECT holder.driver_id, holder.name, holder.expires_at;
END
$$;

-- Ends a driver's session. Does nothing for any other token.
CREATE FUNCTION close_driver_session_v1(session_sha256 bytea)
RETURNS void LANGUAGE sql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    UPDATE access_token SET revoked_at = clock_timestamp()
    WHERE token_sha256 = session_sha256 AND is_session AND role = 'driver' AND revoked_at IS NULL
$$;

-- A driver who was revoked or removed gets no token, and a token that was revoked stays revoked.
-- Random secrets stay too: what is registered here derives from the fleet key.
CREATE OR REPLACE FUNCTION register_drivers_v1(driver_ids text[], names text[], token_sha256s bytea[])
RETURNS void LANGUAGE plpgsql
SET search_path = doorstep, public, pg_temp
AS $$
BEGIN
    INSERT INTO driver (driver_id, name) SELECT * FROM unnest(driver_ids, names)
    ON CONFLICT (driver_id) DO UPDATE SET name = EXCLUDED.name
        -- an id in place of a name does not replace one
        WHERE driver.name <> EXCLUDED.name AND EXCLUDED.name <> driver.driver_id;
    INSERT INTO driver_state (driver_id) SELECT unnest(driver_ids)
    ON CONFLICT DO NOTHING;
    PERFORM add_devices_v2('driver', driver_ids, NULL);
    UPDATE access_token t SET revoked_at = clock_timestamp()
    FROM unnest(driver_ids, token_sha256s) AS n (driver_id, token_sha256)
    JOIN device_credential d ON d.device_id = n.driver_id AND d.mqtt_hash IS NULL
    WHERE t.driver_id = n.driver_id AND t.revoked_at IS NULL AND t.token_sha256 <> n.token_sha256
        AND NOT (t.is_session AND EXISTS (  -- opened with the token that is registered again
            SELECT FROM access_token p
            WHERE p.token_sha256 = n.token_sha256 AND p.revoked_at IS NULL
        ));
    INSERT INTO access_token (token_sha256, role, driver_id)
    SELECT n.token_sha256, 'driver', n.driver_id
    FROM unnest(driver_ids, token_sha256s) AS n (driver_id, token_sha256)
    JOIN device_credential d ON d.device_id = n.driver_id
    WHERE n.token_sha256 IS NOT NULL AND d.kind = 'driver' AND d.revoked_at IS NULL
        AND d.mqtt_hash IS NULL
    ON CONFLICT (token_sha256) DO NOTHING;
END
$$;

REVOKE EXECUTE ON FUNCTION open_driver_session_v1, close_driver_session_v1 FROM PUBLIC;
GRANT EXECUTE ON FUNCTION open_driver_session_v1, close_driver_session_v1 TO driver_api;
