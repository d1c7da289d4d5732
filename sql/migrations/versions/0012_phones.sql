-- Credentials of drivers' phone apps.

SET LOCAL search_path = doorstep, public;
SET LOCAL check_function_bodies = off;  -- functions may refer to objects that are created later

-- What a driver's phone app (OwnTracks, Traccar Client, Overland) logs in with. It may send fixes
-- of this driver and nothing else: it is no row of access_token, which all other routes look up.
-- The secret derives from the fleet key, the driver and the generation.
CREATE TABLE phone_credential (
    driver_id text COLLATE "C" PRIMARY KEY,  -- stays when a driver is forgotten: for broker_sync
    generation int NOT NULL DEFAULT 0 CHECK (generation >= 0),
    token_sha256 bytea UNIQUE CHECK (octet_length(token_sha256) = 32),  -- null: not yet registered
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    rotated_at timestamptz,
    revoked_at timestamptz,  -- until the next generation
    version int8 NOT NULL,  -- credential_version at the last change
    heard_at timestamptz,  -- of any message, to the minute; null: invited, never heard of
    heard_app text
) WITH (fillfactor = 70);
CREATE INDEX phone_credential_version ON phone_credential (version);

-- Credentials of phone apps.

-- Gives a driver's phone a credential. One that exists stays, unless it is revoked or `again`: then
-- the next generation begins, and the present secret ends. Raises DS003 if there is no such driver,
-- or if the driver may not log in.
CREATE FUNCTION issue_phone_v1(of_driver_id text, again bool, by_who text)
RETURNS int LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    new_version CONSTANT int8 := credential_version__next();
    issued phone_credential;
BEGIN
    PERFORM FROM device_credential d JOIN driver r ON r.driver_id = d.device_id
        WHERE d.device_id = of_driver_id AND d.kind = 'driver' AND d.revoked_at IS NULL;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no driver % may log in', of_driver_id USING ERRCODE = 'DS003';
    END IF;
    INSERT INTO phone_credential AS p (driver_id, version) VALUES (of_driver_id, new_version)
    ON CONFLICT (driver_id) DO UPDATE
        SET generation = p.generation + 1, rotated_at = clock_timestamp(), revoked_at = NULL,
            token_sha256 = NULL, heard_at = NULL, heard_app = NULL, version = new_version
        WHERE again OR p.revoked_at IS NOT NULL
    RETURNING * INTO issued;
    IF FOUND THEN
        PERFORM record_audit_v1(by_who, 'phone.issue', of_driver_id,
            jsonb_build_object('generation', issued.generation));
        RETURN issued.generation;
    END IF;
    RETURN (SELECT generation FROM phone_credential WHERE driver_id = of_driver_id);
END
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

-- Registers the token of a phone's present generation, unless the phone is revoked.
CREATE FUNCTION register_phone_tokens_v1(
    driver_ids text[], generations int[], token_sha256s bytea[]
)
RETURNS void LANGUAGE sql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    UPDATE phone_credential p SET token_sha256 = n.token_sha256
    FROM unnest(driver_ids, generations, token_sha256s) AS n (driver_id, generation, token_sha256)
    WHERE p.driver_id = n.driver_id AND p.generation = n.generation AND p.revoked_at IS NULL
        AND p.token_sha256 IS DISTINCT FROM n.token_sha256
$$;

-- Returns the phones changed since a version, for broker_sync.
CREATE FUNCTION changed_phones_v1(since_version int8)
RETURNS TABLE (driver_id text, generation int, is_active bool, version int8)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    SELECT p.driver_id, p.generation, p.revoked_at IS NULL, p.version
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

-- Notes that these drivers' phones were heard of, to the minute.
CREATE FUNCTION phone_credential__heard_v1(driver_ids text[], of_app text)
RETURNS void LANGUAGE sql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    UPDATE phone_credential p SET heard_at = clock_timestamp(), heard_app = of_app
    WHERE p.driver_id = ANY (driver_ids) AND p.revoked_at IS NULL
        AND (p.heard_at > clock_timestamp() - interval '1 minute' AND p.heard_app = of_app)
            IS NOT TRUE
$$;

-- A driver who is revoked, removed or rotated loses the phone's credential as well.
CREATE FUNCTION device_credential__end_phones()
RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
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

-- A parked fix without a boot is a phone app's, whose copies with other values are duplicates.
CREATE OR REPLACE FUNCTION parked_fix__add_dead_letters(outcomes fix_outcome[])
RETURNS void LANGUAGE sql
SET enable_hashjoin = on
AS $$
    INSERT INTO outbox (topic, key, payload, headers)
    SELECT 'dead-letter', convert_to(i.driver_id, 'UTF8'),
        -- the members of a fix, so that the dead letter can be sent again unchanged
        convert_to(jsonb_strip_nulls(to_jsonb(i)
            - ARRAY['n', 'driver_id', 'received_at', 'reason'])::text, 'UTF8'),
        jsonb_build_array(
            jsonb_build_array('reason', coalesce(o.reason, o.outcome)),
            jsonb_build_array('source', 'parked'), jsonb_build_array('topic', ''),
            jsonb_build_array('driver_id', i.driver_id), jsonb_build_array('detail', ''),
            jsonb_build_array('received_at_ms',
                round(extract(epoch FROM i.received_at) * 1000)::int8::text))
    FROM unnest(outcomes) o JOIN pg_temp.incoming_fix i ON i.n = o.n
    WHERE o.n < 0 AND (o.outcome = 'rejected' OR (o.outcome = 'conflict' AND i.boot IS NOT NULL))
$$;

REVOKE EXECUTE ON FUNCTION
    issue_phone_v1,
    revoke_phone_v1,
    register_phone_tokens_v1,
    changed_phones_v1,
    find_phone_v1,
    add_phone_dead_letters_v1,
    phone_credential__heard_v1,
    device_credential__end_phones
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION changed_phones_v1, register_phone_tokens_v1 TO broker_sync;
GRANT EXECUTE ON FUNCTION find_phone_v1, add_phone_dead_letters_v1 TO driver_api;
GRANT EXECUTE ON FUNCTION phone_credential__heard_v1 TO driver_api, driver_events;
