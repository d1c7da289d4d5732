-- Invitations: a driver's link to set a phone up, good once, for a day.

-- Makes an invitation; an earlier open one of the driver ends. Raises DS003 if there is no such
-- driver, or if the driver may not log in.
CREATE FUNCTION invite_driver_v1(of_driver_id text, new_token_sha256 bytea, by_who text)
RETURNS timestamptz LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
DECLARE
    now CONSTANT timestamptz := clock_timestamp();
    until CONSTANT timestamptz := now + interval '1 day';
BEGIN
    -- Locked against another invitation, and against the end of the driver's credentials.
    PERFORM FROM device_credential d JOIN driver r ON r.driver_id = d.device_id
        WHERE d.device_id = of_driver_id AND d.kind = 'driver' AND d.revoked_at IS NULL
        FOR NO KEY UPDATE OF d;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no driver % may log in', of_driver_id USING ERRCODE = 'DS003';
    END IF;
    DELETE FROM invitation WHERE driver_id = of_driver_id AND expires_at < now - interval '7 days';
    UPDATE invitation SET revoked_at = now
        WHERE driver_id = of_driver_id AND used_at IS NULL AND revoked_at IS NULL;
    INSERT INTO invitation (token_sha256, driver_id, created_by, expires_at)
    VALUES (new_token_sha256, of_driver_id, coalesce(by_who, session_user), until);
    PERFORM record_audit_v1(by_who, 'driver.invite', of_driver_id,
        jsonb_build_object('expires_at', until));
    RETURN until;
END
$$;

-- Uses an invitation: the driver's earlier phone and sessions end, a session begins and, if its
-- hashes are given, a phone app's credential. No row for an invitation that is not good, or that
-- another request uses at the same time.
CREATE FUNCTION use_invitation_v1(
    of_token_sha256 bytea, new_follow_sha256 bytea, session_sha256 bytea, session_s float8,
    new_mqtt_hash text, new_phone_sha256 bytea
)
RETURNS TABLE (driver_id text, name text, session_expires_at timestamptz)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    now CONSTANT timestamptz := clock_timestamp();
    until CONSTANT timestamptz := now + make_interval(secs => session_s);
    of_driver_id text;
    new_version int8;
BEGIN
    -- A guess changes nothing. The locks are taken in the order of change_device_v2.
    SELECT i.driver_id INTO of_driver_id FROM invitation i
        WHERE i.token_sha256 = of_token_sha256 AND i.used_at IS NULL AND i.revoked_at IS NULL
            AND now < i.expires_at;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    new_version := credential_version__next();
    PERFORM FROM device_credential d
        WHERE d.device_id = of_driver_id AND d.revoked_at IS NULL FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    UPDATE invitation i SET used_at = now, follow_sha256 = new_follow_sha256
        WHERE i.token_sha256 = of_token_sha256 AND i.used_at IS NULL AND i.revoked_at IS NULL;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    PERFORM record_audit_v1('driver:' || of_driver_id, 'driver.join', of_driver_id, NULL);
    UPDATE access_token t SET revoked_at = now
        WHERE t.driver_id = of_driver_id AND t.is_session AND t.revoked_at IS NULL;
    INSERT INTO access_token (token_sha256, role, driver_id, expires_at, is_session)
    VALUES (session_sha256, 'driver', of_driver_id, until, true);
    IF new_mqtt_hash IS NULL THEN
        UPDATE phone_credential p SET revoked_at = now, version = new_version
            WHERE p.driver_id = of_driver_id AND p.revoked_at IS NULL;
    ELSE
        PERFORM issue_phone_v2(of_driver_id, true, 'driver:' || of_driver_id, new_mqtt_hash,
            new_phone_sha256);
    END IF;
    RETURN QUERY SELECT d.driver_id, d.name, until FROM driver d WHERE d.driver_id = of_driver_id;
END
$$;

-- Whether a position has come since the invitation of this follow-up token was used, for a day;
-- null for a token that is not good.
CREATE FUNCTION invitation__positioned_v1(of_follow_sha256 bytea)
RETURNS bool LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    SELECT coalesce(p.positioned_at > i.used_at AND p.revoked_at IS NULL, false)
        OR coalesce(s.received_at > i.used_at, false)
    FROM invitation i
    LEFT JOIN phone_credential p ON p.driver_id = i.driver_id
    LEFT JOIN driver_state s ON s.driver_id = i.driver_id
    WHERE i.follow_sha256 = of_follow_sha256 AND clock_timestamp() < i.used_at + interval '1 day'
$$;
