-- Credentials of phone apps.

-- Gives a driver's phone a credential. One that exists stays, unless it is revoked or `again`: then
-- the next generation begins, and the present secret ends. The secret is random if its hashes are
-- given, else derived. Returns the generation, and whether the secret is derived. Raises DS003 if
-- there is no such driver, or if the driver may not log in.
CREATE FUNCTION issue_phone_v2(
    of_driver_id text, again bool, by_who text, new_mqtt_hash text, new_token_sha256 bytea
)
RETURNS TABLE (generation int, is_derived bool)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    new_version CONSTANT int8 := credential_version__next();
    -- as configurations say, and as duty wants it; null for a driver who has never used duty
    configured_mode CONSTANT int := 2;
    duty_mode CONSTANT int := (
        SELECT driver_duty__phone_mode(s.duty) FROM driver_state s
        WHERE s.driver_id = of_driver_id
            AND EXISTS (SELECT FROM driver_command c WHERE c.driver_id = of_driver_id)
    );
    issued phone_credential;
BEGIN
    PERFORM FROM device_credential d JOIN driver r ON r.driver_id = d.device_id
        WHERE d.device_id = of_driver_id AND d.kind = 'driver' AND d.revoked_at IS NULL;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no driver % may log in', of_driver_id USING ERRCODE = 'DS003';
    END IF;
    INSERT INTO phone_credential AS p
        (driver_id, version, mqtt_hash, token_sha256, mode, wanted_mode)
    VALUES (of_driver_id, new_version, new_mqtt_hash, new_token_sha256, configured_mode, duty_mode)
    ON CONFLICT (driver_id) DO UPDATE
        SET generation = p.generation + 1, rotated_at = clock_timestamp(), revoked_at = NULL,
            mqtt_hash = EXCLUDED.mqtt_hash, token_sha256 = EXCLUDED.token_sha256,
            version = new_version, heard_at = NULL, heard_app = NULL, positioned_at = NULL,
            mode = EXCLUDED.mode, wanted_mode = EXCLUDED.wanted_mode, mode_sent_at = NULL
        WHERE again OR p.revoked_at IS NOT NULL
    RETURNING * INTO issued;
    IF FOUND THEN
        PERFORM record_audit_v1(by_who, 'phone.issue', of_driver_id,
            jsonb_build_object('generation', issued.generation));
    END IF;
    RETURN QUERY SELECT p.generation, p.mqtt_hash IS NULL FROM phone_credential p
        WHERE p.driver_id = of_driver_id;
END
$$;

-- How OwnTracks reports: `significant` off duty, `move` otherwise.
CREATE FUNCTION driver_duty__phone_mode(of_duty driver_duty)
RETURNS int LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE of_duty WHEN 'off_duty' THEN 1 ELSE 2 END
$$;

-- Ends the credential of a driver's phone. Raises DS003 if there is none.
CREATE FUNCTION revoke_phone_v1(of_driver_id text, by_who text)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
DECLARE
    new_version CONSTANT int8 := credential_version__next();
BEGIN
    UPDATE phone_credential
    SET revoked_at = coalesce(revoked_at, clock_timestamp()), version = new_version
    WHERE driver_id = of_driver_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the driver % has no phone', of_driver_id USING ERRCODE = 'DS003';
    END IF;
    PERFORM record_audit_v1(by_who, 'phone.revoke', of_driver_id, NULL);
END
$$;

-- Registers the derived token of a phone's present generation, unless the phone is revoked.
CREATE FUNCTION register_phone_tokens_v1(
    driver_ids text[], generations int[], token_sha256s bytea[]
)
RETURNS void LANGUAGE sql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    UPDATE phone_credential p SET token_sha256 = n.token_sha256
    FROM unnest(driver_ids, generations, token_sha256s) AS n (driver_id, generation, token_sha256)
    WHERE p.driver_id = n.driver_id AND p.generation = n.generation AND p.revoked_at IS NULL
        AND p.mqtt_hash IS NULL AND p.token_sha256 IS DISTINCT FROM n.token_sha256
$$;

-- Returns the phones changed since a version, for broker_sync.
CREATE FUNCTION changed_phones_v2(since_version int8)
RETURNS TABLE (driver_id text, generation int, mqtt_hash text, is_active bool, version int8)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    SELECT p.driver_id, p.generation, p.mqtt_hash, p.revoked_at IS NULL, p.version
    FROM phone_credential p WHERE p.version > since_version
$$;

-- Returns the driver whose phone has this token.
CREATE FUNCTION find_phone_v1(of_token_sha256 bytea)
RETURNS text LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    SELECT p.driver_id FROM phone_credential p
    WHERE p.token_sha256 = of_token_sha256 AND p.revoked_at IS NULL
$$;

-- Adds dead letters of what a phone has sent. The token names the phone, so that driver_api can add
-- none of anyone else. Raises DS003 for a token that is not good.
CREATE FUNCTION add_phone_dead_letters_v1(
    of_token_sha256 bytea, payloads bytea[], reasons text[], topics text[], details text[],
    received_at_mss int8[]
)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
DECLARE
    of_driver_id CONSTANT text := find_phone_v1(of_token_sha256);
    letter_count CONSTANT int := cardinality(payloads);
BEGIN
    IF of_driver_id IS NULL THEN
        RAISE EXCEPTION 'no phone has this token' USING ERRCODE = 'DS003';
    END IF;
    PERFORM add_dead_letters_v1(payloads, array_fill(of_driver_id, ARRAY[letter_count]), reasons,
        array_fill('http'::text, ARRAY[letter_count]), topics, details, received_at_mss);
END
$$;

-- Notes that these drivers' phones were heard of, to 20 s, and how OwnTracks reports (null: not
-- said). If the answer can carry a command, returns the mode to set, once a minute at most.
CREATE FUNCTION phone_credential__heard_v2(
    driver_ids text[], modes int[], have_positions bool[], of_app text, can_command bool
)
RETURNS TABLE (driver_id text, mode int)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    now CONSTANT timestamptz := clock_timestamp();
BEGIN
    UPDATE phone_credential p SET heard_at = now, heard_app = of_app,
        mode = coalesce(n.mode, p.mode),
        positioned_at = coalesce(p.positioned_at, CASE WHEN n.has_position THEN now END)
    FROM unnest(driver_ids, modes, have_positions) AS n (driver_id, mode, has_position)
    WHERE p.driver_id = n.driver_id AND p.revoked_at IS NULL
        AND (p.heard_at > now - interval '20 seconds' AND p.heard_app = of_app
            AND (n.mode IS NULL OR n.mode = p.mode)
            AND (p.positioned_at IS NOT NULL OR NOT n.has_position)) IS NOT TRUE;
    IF can_command THEN
        RETURN QUERY UPDATE phone_credential p SET mode = p.wanted_mode, mode_sent_at = now
            WHERE p.driver_id = ANY (driver_ids) AND p.revoked_at IS NULL
                AND p.mode <> p.wanted_mode
                AND (p.mode_sent_at > now - interval '1 minute') IS NOT TRUE
            RETURNING p.driver_id, p.mode;
    END IF;
END
$$;

-- Returns phones of this app that report in another mode than duty wants, and locks their rows.
CREATE FUNCTION phone_credential__unsent_modes_v1(of_app text, at_most int)
RETURNS TABLE (driver_id text, mode int)
LANGUAGE sql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    SELECT p.driver_id, p.wanted_mode FROM phone_credential p
    WHERE p.mode <> p.wanted_mode AND p.revoked_at IS NULL AND p.heard_app = of_app
        AND (p.mode_sent_at > clock_timestamp() - interval '1 minute') IS NOT TRUE
    LIMIT at_most FOR NO KEY UPDATE SKIP LOCKED
$$;

-- Notes that these modes were sent.
CREATE FUNCTION phone_credential__sent_modes_v1(driver_ids text[], modes int[])
RETURNS void LANGUAGE sql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    UPDATE phone_credential p SET mode = n.mode, mode_sent_at = clock_timestamp()
    FROM unnest(driver_ids, modes) AS n (driver_id, mode)
    WHERE p.driver_id = n.driver_id
$$;

-- A driver who is revoked, removed or rotated loses the phone's credential and the invitation, too.
CREATE FUNCTION device_credential__end_phones()
RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE invitation i SET revoked_at = clock_timestamp()
    FROM new_device_credentials n
    WHERE i.driver_id = n.device_id AND i.used_at IS NULL AND i.revoked_at IS NULL
        AND (n.revoked_at IS NOT NULL OR n.rotated_at > i.created_at);
    UPDATE phone_credential p SET revoked_at = clock_timestamp(), version = n.version,
        token_sha256 = NULL, heard_at = NULL, heard_app = NULL
    FROM new_device_credentials n
    WHERE p.driver_id = n.device_id AND p.revoked_at IS NULL
        AND (n.revoked_at IS NOT NULL OR n.rotated_at > coalesce(p.rotated_at, p.created_at));
    RETURN NULL;
END
$$;

CREATE TRIGGER _500_end_phones AFTER UPDATE ON device_credential
REFERENCING NEW TABLE AS new_device_credentials
FOR EACH STATEMENT EXECUTE FUNCTION device_credential__end_phones();
