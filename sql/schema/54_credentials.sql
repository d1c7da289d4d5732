-- Credentials of devices and staff, and the audit.

-- Without a name only the owner's own steps are not recorded: a service that gives none is named by
-- its role.
CREATE FUNCTION record_audit_v1(by_who text, did_action text, to_subject text, with_detail jsonb)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER  -- in SQL it would be planned again for each call
SET search_path = doorstep, public, pg_temp
AS $$
BEGIN
    IF by_who IS NOT NULL OR session_user IN (
        'driver_events', 'driver_api', 'tracking_api', 'customer', 'broker_sync')
    THEN
        INSERT INTO audit (who, action, subject, detail)
        VALUES (coalesce(by_who, 'role:' || session_user), did_action, to_subject, with_detail);
    END IF;
END
$$;

CREATE FUNCTION credential_version__next()
RETURNS int8 LANGUAGE sql AS $$
    UPDATE credential_version SET version = version + 1 RETURNING version
$$;

-- Adds devices whose secrets derive from the fleet key. Existing ones, removed ones too, are left
-- alone.
CREATE FUNCTION add_devices_v2(of_kind text, device_ids text[], by_who text)
RETURNS TABLE (
    device_id text, kind text, generation int, is_derived bool, created_at timestamptz,
    rotated_at timestamptz, revoked_at timestamptz, removed_at timestamptz
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
        ON CONFLICT DO NOTHING
        RETURNING d.device_id
    )
    INSERT INTO audit (who, action, subject, detail)
    SELECT by_who, of_kind || '.add', a.device_id, jsonb_build_object('generation', 0)
    FROM added a WHERE by_who IS NOT NULL;
    RETURN QUERY SELECT d.device_id, d.kind::text, d.generation, d.mqtt_hash IS NULL, d.created_at,
            d.rotated_at, d.revoked_at, d.removed_at
        FROM device_credential d WHERE d.device_id = ANY (device_ids);
END
$$;

-- Applies `add`, `rotate`, `revoke` or `remove` to one device. All four end the present secrets at
-- the brokers and the tokens at driver_api. `add`, of a new or removed id, and `rotate` set the new
-- secrets, of which only hashes come here. Raises DS003 if there is no such device, or if a removed
-- one is rotated, and DS025 if the id to add is taken.
CREATE FUNCTION change_device_v2(
    of_kind text, of_device_id text, change text, by_who text, new_mqtt_hash text,
    new_token_sha256 bytea
)
RETURNS TABLE (
    device_id text, kind text, generation int, is_derived bool, created_at timestamptz,
    rotated_at timestamptz, revoked_at timestamptz, removed_at timestamptz
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    new_version CONSTANT int8 := credential_version__next();
    now CONSTANT timestamptz := clock_timestamp();
    has_new_secrets CONSTANT bool := change IN ('add', 'rotate');
    changed device_credential;
BEGIN
    IF has_new_secrets AND new_mqtt_hash IS NULL THEN
        RAISE EXCEPTION 'new secrets are missing' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    IF change = 'add' THEN
        IF EXISTS (SELECT FROM device_credential d
            WHERE d.device_id = of_device_id AND d.forgotten_at IS NOT NULL)
        THEN
            RAISE EXCEPTION '% was forgotten: take another id', of_device_id
                USING ERRCODE = 'DS017';
        END IF;
        INSERT INTO device_credential AS d (device_id, kind, mqtt_hash, version)
        VALUES (of_device_id, of_kind::device_kind, new_mqtt_hash, new_version)
        ON CONFLICT (device_id) DO UPDATE
            SET generation = d.generation + 1, mqtt_hash = EXCLUDED.mqtt_hash, rotated_at = now,
                revoked_at = NULL, removed_at = NULL, version = new_version
            WHERE d.removed_at IS NOT NULL AND d.kind = EXCLUDED.kind
        RETURNING * INTO changed;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'the id % is taken', of_device_id USING ERRCODE = 'DS025';
        END IF;
    ELSE
        UPDATE device_credential d SET version = new_version,
            generation = d.generation + has_new_secrets::int,
            mqtt_hash = CASE WHEN has_new_secrets THEN new_mqtt_hash ELSE d.mqtt_hash END,
            rotated_at = CASE WHEN has_new_secrets THEN now ELSE d.rotated_at END,
            revoked_at = CASE WHEN NOT has_new_secrets THEN coalesce(d.revoked_at, now) END,
            removed_at = CASE WHEN change = 'remove' THEN coalesce(d.removed_at, now)
                ELSE d.removed_at END
        WHERE d.device_id = of_device_id AND d.kind = of_kind::device_kind
            AND (change <> 'rotate' OR d.removed_at IS NULL)
        RETURNING * INTO changed;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'there is no % %', of_kind, of_device_id USING ERRCODE = 'DS003';
        END IF;
    END IF;
    UPDATE access_token t SET revoked_at = now
        WHERE t.driver_id = of_device_id AND t.revoked_at IS NULL;
    IF of_kind = 'driver' AND has_new_secrets THEN
        INSERT INTO driver (driver_id, name) VALUES (of_device_id, of_device_id)
        ON CONFLICT DO NOTHING;
        INSERT INTO driver_state (driver_id) VALUES (of_device_id) ON CONFLICT DO NOTHING;
        INSERT INTO access_token (token_sha256, role, driver_id)
        VALUES (new_token_sha256, 'driver', of_device_id);
    ELSIF of_kind = 'driver' THEN
        PERFORM driver_state__end_duty(of_device_id);
    END IF;
    PERFORM record_audit_v1(by_who, of_kind || '.' || change, of_device_id,
        jsonb_build_object('generation', changed.generation));
    RETURN QUERY SELECT changed.device_id, changed.kind::text, changed.generation,
        changed.mqtt_hash IS NULL, changed.created_at, changed.rotated_at, changed.revoked_at,
        changed.removed_at;
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
CREATE FUNCTION changed_devices_v2(since_version int8)
RETURNS TABLE (device_id text, mqtt_hash text, is_active bool, version int8)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    SELECT d.device_id, d.mqtt_hash, d.revoked_at IS NULL, d.version
    FROM device_credential d WHERE d.version > since_version
$$;

-- Applies `add`, `revoke` or `rotate` to a member of staff. `add` makes a revoked one good again,
-- with a new token. The role restaurant needs a restaurant, which `rotate` may replace. Raises
-- DS023 for a name that exists, DS022 for one that does not, DS004 for a restaurant that does not.
CREATE FUNCTION change_staff_v2(
    of_name text, change text, to_role text, at_restaurant_id int, new_token_sha256 bytea,
    until timestamptz, by_who text
)
RETURNS TABLE (
    name text, role text, created_at timestamptz, rotated_at timestamptz, revoked_at timestamptz,
    expires_at timestamptz, restaurant_id int
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    now CONSTANT timestamptz := clock_timestamp();
    before staff;
    after staff;
    new_role staff_role;
    new_restaurant_id int;
BEGIN
    SELECT * INTO before FROM staff s WHERE s.name = of_name FOR UPDATE;
    IF change = 'add' THEN
        IF before.name IS NOT NULL AND before.revoked_at IS NULL THEN
            RAISE EXCEPTION '% is staff already', of_name USING ERRCODE = 'DS023';
        END IF;
        new_role := to_role::staff_role;
        new_restaurant_id := at_restaurant_id;
    ELSIF before.name IS NULL THEN
        RAISE EXCEPTION 'no staff is named %', of_name USING ERRCODE = 'DS022';
    ELSE
        new_role := coalesce(to_role::staff_role, before.role);
        new_restaurant_id := coalesce(at_restaurant_id, before.restaurant_id);
    END IF;
    IF new_role <> 'restaurant' THEN
        new_restaurant_id := NULL;
    ELSIF change <> 'revoke' AND NOT EXISTS (
        SELECT FROM restaurant r WHERE r.restaurant_id = new_restaurant_id AND NOT r.is_ad_hoc
    ) THEN
        RAISE EXCEPTION 'the role restaurant needs a restaurant, and there is no %',
            coalesce(new_restaurant_id::text, 'such one') USING ERRCODE = 'DS004';
    END IF;
    IF change = 'add' THEN
        INSERT INTO staff AS s (name, role, restaurant_id)
        VALUES (of_name, new_role, new_restaurant_id)
        ON CONFLICT (name) DO UPDATE
            SET role = EXCLUDED.role, restaurant_id = EXCLUDED.restaurant_id, rotated_at = now,
                revoked_at = NULL
        RETURNING * INTO after;
    ELSE
        UPDATE staff s SET role = new_role, restaurant_id = new_restaurant_id,
            rotated_at = CASE WHEN change = 'rotate' THEN now ELSE s.rotated_at END,
            revoked_at = CASE WHEN change = 'revoke' THEN coalesce(s.revoked_at, now) END
        WHERE s.name = of_name
        RETURNING * INTO after;
    END IF;
    UPDATE access_token t SET revoked_at = now
        WHERE t.role = 'staff' AND t.name = of_name AND t.revoked_at IS NULL;
    IF change <> 'revoke' THEN
        INSERT INTO access_token (token_sha256, role, name, expires_at)
        VALUES (new_token_sha256, 'staff', of_name, until);
    END IF;
    PERFORM record_audit_v1(by_who, 'staff.' || change, of_name, jsonb_build_object(
        'role', after.role, 'role_before', before.role, 'expires_at', until)
        || CASE WHEN after.restaurant_id IS NULL THEN '{}'
            ELSE jsonb_build_object('restaurant_id', after.restaurant_id) END);
    RETURN QUERY SELECT * FROM list_staff_v2() l WHERE l.name = of_name;
END
$$;

-- The same as services of 0.2 call it: they set no restaurant, but keep one.
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
BEGIN
    RETURN QUERY SELECT c.name, c.role, c.created_at, c.rotated_at, c.revoked_at, c.expires_at
        FROM change_staff_v2(of_name, change, to_role, NULL, new_token_sha256, until, by_who) c;
END
$$;

-- Returns the devices of a kind in the order of their addition, removed ones too.
CREATE FUNCTION list_devices_v1(of_kind text)
RETURNS TABLE (
    device_id text, kind text, generation int, is_derived bool, created_at timestamptz,
    rotated_at timestamptz, revoked_at timestamptz, removed_at timestamptz
)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    SELECT d.device_id, d.kind::text, d.generation, d.mqtt_hash IS NULL, d.created_at,
        d.rotated_at, d.revoked_at, d.removed_at
    FROM device_credential d WHERE d.kind = of_kind::device_kind
    ORDER BY d.created_at, d.device_id
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
        WHERE t.role = 'staff' AND t.name = s.name AND t.revoked_at IS NULL AND NOT t.is_session
    )
    FROM staff s ORDER BY s.name
$$;

-- The same with the restaurants of the role restaurant.
CREATE FUNCTION list_staff_v2()
RETURNS TABLE (
    name text, role text, created_at timestamptz, rotated_at timestamptz, revoked_at timestamptz,
    expires_at timestamptz, restaurant_id int
)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    SELECT l.*, s.restaurant_id FROM list_staff_v1() l JOIN staff s ON s.name = l.name
    ORDER BY l.name
$$;

-- Returns no row for a token that is unknown, revoked, expired, or of a staff role without routes:
-- a restaurant's token is good for the functions of 57_restaurants.sql alone.
-- A customer's token expires limits.customer_token_s after the end of the order.
CREATE FUNCTION find_token_v2(of_token_sha256 bytea)
RETURNS TABLE (role token_role, driver_id text, order_id uuid, name text, staff_role staff_role)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT f.role, f.driver_id, f.order_id, f.name, f.staff_role
        FROM find_tokens_v1(ARRAY[of_token_sha256]) f;
END
$$;

-- The good ones of many tokens: as find_token_v2, in one statement with a plan that is kept.
CREATE FUNCTION find_tokens_v1(token_sha256s bytea[])
RETURNS TABLE (
    token_sha256 bytea, role token_role, driver_id text, order_id uuid, name text,
    staff_role staff_role
)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
SET enable_hashjoin = off  -- every join is a look-up by key
SET enable_mergejoin = off
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    now CONSTANT timestamptz := clock_timestamp();
BEGIN
    RETURN QUERY
        SELECT t.token_sha256, t.role, t.driver_id, t.order_id, t.name, s.role
        FROM unnest(token_sha256s) AS k (token_sha256)
        JOIN access_token t ON t.token_sha256 = k.token_sha256
        LEFT JOIN orders o ON o.order_id = t.order_id
        LEFT JOIN staff s ON s.name = t.name
        WHERE t.revoked_at IS NULL AND s.revoked_at IS NULL
            AND (s.role IS NULL OR s.role IN ('viewer', 'dispatcher', 'admin'))
            AND (t.expires_at IS NULL OR now < t.expires_at)
            AND (o.ended_at IS NULL
                OR now < o.ended_at + make_interval(secs => (SELECT customer_token_s FROM limits)));
END
$$;

-- Opens a session of the staff whose token this is, and returns who it is; no row for a token that
-- is not good, or that is a session's. A session is a token that ends with its member's tokens, or
-- when they expire.
CREATE FUNCTION open_staff_session_v1(
    of_token_sha256 bytea, session_sha256 bytea, lifetime_s float8
)
RETURNS TABLE (name text, role text, expires_at timestamptz)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    until timestamptz := clock_timestamp() + make_interval(secs => lifetime_s);
    holder record;
BEGIN
    -- Locked, so that a revocation at the same time also ends this session.
    PERFORM FROM staff s JOIN access_token t ON t.name = s.name
        WHERE t.token_sha256 = of_token_sha256 FOR SHARE OF s;
    SELECT f.name, f.staff_role::text AS role, least(t.expires_at, until) AS expires_at INTO holder
        FROM find_token_v2(of_token_sha256) f
        JOIN access_token t ON t.token_sha256 = of_token_sha256
        WHERE f.role = 'staff' AND NOT t.is_session;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    DELETE FROM access_token t WHERE t.name = holder.name AND t.is_session
        AND (t.revoked_at IS NOT NULL OR t.expires_at < clock_timestamp());
    INSERT INTO access_token (token_sha256, role, name, expires_at, is_session)
    VALUES (session_sha256, 'staff', holder.name, holder.expires_at, true);
    PERFORM record_audit_v1(holder.name, 'staff.sign_in', holder.name, NULL);
    RETURN QUERY SELECT holder.name, holder.role, holder.expires_at;
END
$$;

-- Ends a session. Does nothing for any other token.
CREATE FUNCTION close_staff_session_v1(session_sha256 bytea)
RETURNS void LANGUAGE sql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    WITH closed AS (
        UPDATE access_token SET revoked_at = clock_timestamp()
        WHERE token_sha256 = session_sha256 AND is_session AND revoked_at IS NULL
        RETURNING name
    )
    INSERT INTO audit (who, action, subject) SELECT name, 'staff.sign_out', name FROM closed
$$;

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
