-- Credentials of devices and staff as rows, named staff with roles, and the audit.

SET LOCAL search_path = doorstep, public;
SET LOCAL check_function_bodies = off;  -- functions may refer to objects that are created later

DO $do$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'broker_sync') THEN
        CREATE ROLE broker_sync NOLOGIN;
    END IF;
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO broker_sync', current_database());
END
$do$;
GRANT USAGE ON SCHEMA doorstep TO broker_sync;

CREATE TYPE staff_role AS ENUM (
    'viewer',       -- reads
    'dispatcher',   -- reads, and commands orders and drivers
    'admin',        -- everything, with policies, staff and credentials
    'restaurant',   -- no route accepts it yet
    'integration'   -- no route accepts it yet
);

CREATE TYPE device_kind AS ENUM ('driver', 'source');

ALTER TABLE access_token ADD expires_at timestamptz;

-- Who may log in: devices at the brokers and at driver_api, staff at both APIs. And what they did.

-- Secrets are not stored: those of a device derive from the fleet key, its id and its generation.
-- Rows are never deleted, so a removed id that is added again gets a new generation.
CREATE TABLE device_credential (
    device_id text COLLATE "C" PRIMARY KEY CHECK (device_id ~ '^[A-Za-z0-9_-]{1,64}$'),
    kind device_kind NOT NULL,
    generation int NOT NULL DEFAULT 0 CHECK (generation >= 0),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    rotated_at timestamptz,
    revoked_at timestamptz,  -- until the next rotation
    removed_at timestamptz,
    version int8 NOT NULL,  -- credential_version at the last change
    CHECK (removed_at IS NULL OR revoked_at IS NOT NULL)
);
CREATE INDEX device_credential_version ON device_credential (version);
CREATE INDEX device_credential_removed ON device_credential (device_id)
WHERE removed_at IS NOT NULL;

-- Counts the changes of device_credential. The row is locked until the commit, so versions become
-- visible in order and broker_sync misses none.
CREATE TABLE credential_version (
    only_row bool PRIMARY KEY DEFAULT true CHECK (only_row),
    version int8 NOT NULL DEFAULT 0
);
INSERT INTO credential_version DEFAULT VALUES;

CREATE TABLE staff (
    name text COLLATE "C" PRIMARY KEY CHECK (name ~ '^[A-Za-z0-9_.@-]{1,64}$'),
    role staff_role NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    rotated_at timestamptz,
    revoked_at timestamptz
);

-- Append-only, for the owner too: a trigger refuses UPDATE, DELETE and TRUNCATE.
CREATE TABLE audit (
    audit_id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    who text NOT NULL,
    action text NOT NULL,  -- order.assign, driver.revoke, staff.add, read, ...
    subject text,  -- the order, driver or member of staff
    detail jsonb
);
CREATE INDEX audit_who ON audit (who, at);
CREATE INDEX audit_at ON audit (at);

-- Secrets of generation 0 are those of before, so every device stays logged in.
INSERT INTO device_credential (device_id, kind, created_at, version)
SELECT driver_id, 'driver', created_at, 1 FROM driver;
UPDATE credential_version SET version = 1;

-- The launcher's own token had the name 'staff'.
UPDATE access_token SET name = 'stack' WHERE role = 'staff' AND name = 'staff';
INSERT INTO staff (name, role, created_at)
SELECT name, 'admin', min(created_at) FROM access_token WHERE role = 'staff' GROUP BY name;

CREATE OR REPLACE FUNCTION find_token_v1(of_token_sha256 bytea)
RETURNS TABLE (role token_role, driver_id text, order_id uuid)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    SELECT t.role, t.driver_id, t.order_id
    FROM access_token t
    LEFT JOIN orders o ON o.order_id = t.order_id
    LEFT JOIN staff s ON s.name = t.name
    WHERE t.token_sha256 = of_token_sha256 AND t.revoked_at IS NULL AND s.revoked_at IS NULL
        AND (s.role IS NULL OR s.role IN ('viewer', 'dispatcher', 'admin'))
        AND (t.expires_at IS NULL OR clock_timestamp() < t.expires_at)
        AND (o.ended_at IS NULL OR clock_timestamp()
            < o.ended_at + make_interval(secs => (SELECT customer_token_s FROM limits)))
$$;

CREATE OR REPLACE FUNCTION register_drivers_v1(driver_ids text[], names text[], token_sha256s bytea[])
RETURNS void LANGUAGE plpgsql
SET search_path = doorstep, public, pg_temp
AS $$
BEGIN
    INSERT INTO driver (driver_id, name) SELECT * FROM unnest(driver_ids, names)
    ON CONFLICT (driver_id) DO UPDATE SET name = EXCLUDED.name WHERE driver.name <> EXCLUDED.name;
    INSERT INTO driver_state (driver_id) SELECT unnest(driver_ids)
    ON CONFLICT DO NOTHING;
    PERFORM add_devices_v1('driver', driver_ids, false, NULL);
    UPDATE access_token t SET revoked_at = clock_timestamp()
    FROM unnest(driver_ids, token_sha256s) AS n (driver_id, token_sha256)
    WHERE t.driver_id = n.driver_id AND t.revoked_at IS NULL AND t.token_sha256 <> n.token_sha256;
    INSERT INTO access_token (token_sha256, role, driver_id)
    SELECT n.token_sha256, 'driver', n.driver_id
    FROM unnest(driver_ids, token_sha256s) AS n (driver_id, token_sha256)
    JOIN device_credential d ON d.device_id = n.driver_id
    WHERE n.token_sha256 IS NOT NULL AND d.kind = 'driver' AND d.revoked_at IS NULL
    ON CONFLICT (token_sha256) DO NOTHING;
END
$$;

CREATE OR REPLACE FUNCTION register_staff_token_v1(new_token_sha256 bytea, of_name text)
RETURNS void LANGUAGE plpgsql
SET search_path = doorstep, public, pg_temp
AS $$
BEGIN
    IF EXISTS (SELECT FROM access_token WHERE token_sha256 = new_token_sha256) THEN
        RETURN;
    END IF;
    INSERT INTO staff (name, role) VALUES (of_name, 'admin')
    ON CONFLICT (name) DO UPDATE SET revoked_at = NULL, rotated_at = clock_timestamp();
    UPDATE access_token SET revoked_at = clock_timestamp()
        WHERE role = 'staff' AND name = of_name AND revoked_at IS NULL;
    INSERT INTO access_token (token_sha256, role, name) VALUES (new_token_sha256, 'staff', of_name);
END
$$;

-- Credentials of devices and staff, and the audit.

CREATE FUNCTION record_audit_v1(by_who text, did_action text, to_subject text, with_detail jsonb)
RETURNS void LANGUAGE sql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    INSERT INTO audit (who, action, subject, detail)
    SELECT by_who, did_action, to_subject, with_detail WHERE by_who IS NOT NULL
$$;

CREATE FUNCTION credential_version__next()
RETURNS int8 LANGUAGE sql AS $$
    UPDATE credential_version SET version = version + 1 RETURNING version
$$;

-- Adds devices. A removed one gets a new generation if `again`, and is left alone otherwise.
CREATE FUNCTION add_devices_v1(of_kind text, device_ids text[], again bool, by_who text)
RETURNS TABLE (
    device_id text, kind text, generation int, created_at timestamptz, rotated_at timestamptz,
    revoked_at timestamptz, removed_at timestamptz
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    new_version CONSTANT int8 := credential_version__next();
BEGIN
    WITH added AS (
        INSERT INTO device_credential AS d (device_id, kind, version)
        SELECT DISTINCT n, of_kind::device_kind, new_version FROM unnest(device_ids) n
        ON CONFLICT (device_id) DO UPDATE
            SET generation = d.generation + 1, rotated_at = clock_timestamp(), revoked_at = NULL,
                removed_at = NULL, version = new_version
            WHERE again AND d.removed_at IS NOT NULL AND d.kind = EXCLUDED.kind
        RETURNING d.device_id, d.generation
    )
    INSERT INTO audit (who, action, subject, detail)
    SELECT by_who, of_kind || '.add', a.device_id, jsonb_build_object('generation', a.generation)
    FROM added a WHERE by_who IS NOT NULL;
    RETURN QUERY SELECT d.device_id, d.kind::text, d.generation, d.created_at, d.rotated_at,
            d.revoked_at, d.removed_at
        FROM device_credential d WHERE d.device_id = ANY (device_ids);
END
$$;

-- Applies `revoke`, `rotate` or `remove`. All three end the present secrets at the brokers and the
-- tokens at driver_api; `rotate` begins the next generation. Raises DS003 if there is no such
-- device, or if a removed one is rotated.
CREATE FUNCTION change_device_v1(of_kind text, of_device_id text, change text, by_who text)
RETURNS TABLE (
    device_id text, kind text, generation int, created_at timestamptz, rotated_at timestamptz,
    revoked_at timestamptz, removed_at timestamptz
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    new_version CONSTANT int8 := credential_version__next();
    now CONSTANT timestamptz := clock_timestamp();
    changed device_credential;
BEGIN
    UPDATE device_credential d SET version = new_version,
        generation = d.generation + (change = 'rotate')::int,
        rotated_at = CASE WHEN change = 'rotate' THEN now ELSE d.rotated_at END,
        revoked_at = CASE WHEN change <> 'rotate' THEN coalesce(d.revoked_at, now) END,
        removed_at = CASE WHEN change = 'remove' THEN coalesce(d.removed_at, now)
            ELSE d.removed_at END
    WHERE d.device_id = of_device_id AND d.kind = of_kind::device_kind
        AND (change <> 'rotate' OR d.removed_at IS NULL)
    RETURNING * INTO changed;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no % %', of_kind, of_device_id USING ERRCODE = 'DS003';
    END IF;
    UPDATE access_token t SET revoked_at = now
        WHERE t.driver_id = of_device_id AND t.revoked_at IS NULL;
    IF change <> 'rotate' THEN
        PERFORM driver_state__end_duty(of_device_id);
    END IF;
    PERFORM record_audit_v1(by_who, of_kind || '.' || change, of_device_id,
        jsonb_build_object('generation', changed.generation));
    RETURN QUERY SELECT changed.device_id, changed.kind::text, changed.generation,
        changed.created_at, changed.rotated_at, changed.revoked_at, changed.removed_at;
END
$$;

-- A driver who cannot log in is not available for orders. An open order stays with them until staff
-- reassigns it.
CREATE FUNCTION driver_state__end_duty(of_driver_id text)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    before driver_state;
BEGIN
    SELECT * INTO before FROM driver_state WHERE driver_id = of_driver_id FOR NO KEY UPDATE;
    IF before.duty <> 'off_duty' THEN
        UPDATE driver_state SET duty = 'off_duty' WHERE driver_id = of_driver_id;
        PERFORM driver_state__derive(ARRAY[of_driver_id]);
        INSERT INTO driver_command (driver_id, command, actor, from_state, to_state)
        SELECT of_driver_id, 'off_duty', 'staff', before.state, d.state
        FROM driver_state d WHERE d.driver_id = of_driver_id;
    END IF;
END
$$;

-- Returns the devices changed since a version, for broker_sync.
CREATE FUNCTION changed_devices_v1(since_version int8)
RETURNS TABLE (device_id text, kind text, generation int, is_active bool, version int8)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    SELECT d.device_id, d.kind::text, d.generation, d.revoked_at IS NULL, d.version
    FROM device_credential d WHERE d.version > since_version
$$;

-- Registers the token of a driver's present generation, unless the driver is revoked. A token that
-- was revoked stays revoked.
CREATE FUNCTION register_device_tokens_v1(
    driver_ids text[], generations int[], token_sha256s bytea[]
)
RETURNS void LANGUAGE sql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    INSERT INTO access_token (token_sha256, role, driver_id)
    SELECT n.token_sha256, 'driver', n.driver_id
    FROM unnest(driver_ids, generations, token_sha256s) AS n (driver_id, generation, token_sha256)
    JOIN device_credential d ON d.device_id = n.driver_id AND d.generation = n.generation
    JOIN driver r ON r.driver_id = n.driver_id
    WHERE d.kind = 'driver' AND d.revoked_at IS NULL
    ON CONFLICT (token_sha256) DO NOTHING
$$;

-- Applies `add`, `revoke` or `rotate` to a member of staff. `add` makes a revoked one good again,
-- with a new token. Raises DS023 for a name that exists, DS022 for one that does not.
CREATE FUNCTION change_staff_v1(
    of_name text, change text, to_role text, new_token_sha256 bytea, until timestamptz,
    by_who text
)
RETURNS TABLE (
    name text, role text, created_at timestamptz, rotated_at timestamptz, revoked_at timestamptz,
    expires_at timestamptz
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    now CONSTANT timestamptz := clock_timestamp();
    before staff;
    after staff;
BEGIN
    SELECT * INTO before FROM staff s WHERE s.name = of_name FOR UPDATE;
    IF change = 'add' THEN
        IF before.name IS NOT NULL AND before.revoked_at IS NULL THEN
            RAISE EXCEPTION '% is staff already', of_name USING ERRCODE = 'DS023';
        END IF;
        INSERT INTO staff AS s (name, role) VALUES (of_name, to_role::staff_role)
        ON CONFLICT (name) DO UPDATE
            SET role = EXCLUDED.role, rotated_at = now, revoked_at = NULL
        RETURNING * INTO after;
    ELSE
        UPDATE staff s SET role = coalesce(to_role::staff_role, s.role),
            rotated_at = CASE WHEN change = 'rotate' THEN now ELSE s.rotated_at END,
            revoked_at = CASE WHEN change = 'revoke' THEN coalesce(s.revoked_at, now) END
        WHERE s.name = of_name
        RETURNING * INTO after;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'no staff is named %', of_name USING ERRCODE = 'DS022';
        END IF;
    END IF;
    UPDATE access_token t SET revoked_at = now
        WHERE t.role = 'staff' AND t.name = of_name AND t.revoked_at IS NULL;
    IF change <> 'revoke' THEN
        INSERT INTO access_token (token_sha256, role, name, expires_at)
        VALUES (new_token_sha256, 'staff', of_name, until);
    END IF;
    PERFORM record_audit_v1(by_who, 'staff.' || change, of_name, jsonb_build_object(
        'role', after.role, 'role_before', before.role, 'expires_at', until));
    RETURN QUERY SELECT * FROM list_staff_v1() l WHERE l.name = of_name;
END
$$;

CREATE FUNCTION list_staff_v1()
RETURNS TABLE (
    name text, role text, created_at timestamptz, rotated_at timestamptz, revoked_at timestamptz,
    expires_at timestamptz
)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    SELECT s.name, s.role::text, s.created_at, s.rotated_at, s.revoked_at, (
        SELECT max(t.expires_at) FROM access_token t
        WHERE t.role = 'staff' AND t.name = s.name AND t.revoked_at IS NULL
    )
    FROM staff s ORDER BY s.name
$$;

-- Like find_token_v1, with the name and role of staff.
CREATE FUNCTION find_token_v2(of_token_sha256 bytea)
RETURNS TABLE (role token_role, driver_id text, order_id uuid, name text, staff_role staff_role)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    SELECT f.role, f.driver_id, f.order_id, t.name, s.role
    FROM find_token_v1(of_token_sha256) f
    JOIN access_token t ON t.token_sha256 = of_token_sha256
    LEFT JOIN staff s ON s.name = t.name
$$;

-- The audit: append-only, and a row for each command of staff.

CREATE FUNCTION audit__refuse_change()
RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit is append-only' USING ERRCODE = 'DS024';
END
$$;

CREATE TRIGGER _100_refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
FOR EACH STATEMENT EXECUTE FUNCTION audit__refuse_change();

CREATE FUNCTION order_command__record_audit()
RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit (at, who, action, subject, detail)
    SELECT c.commanded_at, c.actor_id, 'order.' || c.command, c.order_id,
        CASE WHEN c.driver_id IS NOT NULL THEN jsonb_build_object('driver_id', c.driver_id) END
    FROM new_order_commands c WHERE c.actor = 'staff';
    RETURN NULL;
END
$$;

CREATE TRIGGER _900_record_audit AFTER INSERT ON order_command
REFERENCING NEW TABLE AS new_order_commands
FOR EACH STATEMENT EXECUTE FUNCTION order_command__record_audit();

REVOKE EXECUTE ON FUNCTION
    record_audit_v1,
    credential_version__next,
    add_devices_v1,
    change_device_v1,
    driver_state__end_duty,
    changed_devices_v1,
    register_device_tokens_v1,
    change_staff_v1,
    list_staff_v1,
    find_token_v2,
    audit__refuse_change,
    order_command__record_audit
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION find_token_v2 TO driver_api;
GRANT EXECUTE ON FUNCTION
    find_token_v2, record_audit_v1, change_device_v1, change_staff_v1, list_staff_v1
TO tracking_api;
GRANT SELECT ON device_credential TO tracking_api;
GRANT EXECUTE ON FUNCTION changed_devices_v1, register_device_tokens_v1 TO broker_sync;
