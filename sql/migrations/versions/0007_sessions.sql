-- Random secrets of devices, sessions of staff, and removed drivers off the map.

SET LOCAL search_path = doorstep, public;
SET LOCAL check_function_bodies = off;  -- functions may refer to objects that are created later

ALTER TABLE access_token ADD is_session bool NOT NULL DEFAULT false;
CREATE INDEX access_token_name ON access_token (name) WHERE name IS NOT NULL;

ALTER TABLE device_credential ADD mqtt_hash text;

-- Secrets of a later generation derived from the fleet key. They end: rotate these devices.
UPDATE device_credential SET revoked_at = coalesce(revoked_at, clock_timestamp()),
    version = (SELECT v.version + 1 FROM credential_version v)
WHERE generation > 0;
UPDATE access_token t SET revoked_at = clock_timestamp()
FROM device_credential d
WHERE d.device_id = t.driver_id AND d.generation > 0 AND t.revoked_at IS NULL;
UPDATE credential_version SET version = version + 1;

DROP FUNCTION add_devices_v1, change_device_v1, changed_devices_v1, register_device_tokens_v1;

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

-- Returns the devices changed since a version, for broker_sync.
CREATE FUNCTION changed_devices_v2(since_version int8)
RETURNS TABLE (device_id text, mqtt_hash text, is_active bool, version int8)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    SELECT d.device_id, d.mqtt_hash, d.revoked_at IS NULL, d.version
    FROM device_credential d WHERE d.version > since_version
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

CREATE OR REPLACE FUNCTION list_staff_v1()
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

-- A driver who was revoked or removed gets no token, and a token that was revoked stays revoked.
-- Random secrets stay too: what is registered here derives from the fleet key.
CREATE OR REPLACE FUNCTION register_drivers_v1(driver_ids text[], names text[], token_sha256s bytea[])
RETURNS void LANGUAGE plpgsql
SET search_path = doorstep, public, pg_temp
AS $$
BEGIN
    INSERT INTO driver (driver_id, name) SELECT * FROM unnest(driver_ids, names)
    ON CONFLICT (driver_id) DO UPDATE SET name = EXCLUDED.name WHERE driver.name <> EXCLUDED.name;
    INSERT INTO driver_state (driver_id) SELECT unnest(driver_ids)
    ON CONFLICT DO NOTHING;
    PERFORM add_devices_v2('driver', driver_ids, NULL);
    UPDATE access_token t SET revoked_at = clock_timestamp()
    FROM unnest(driver_ids, token_sha256s) AS n (driver_id, token_sha256)
    JOIN device_credential d ON d.device_id = n.driver_id AND d.mqtt_hash IS NULL
    WHERE t.driver_id = n.driver_id AND t.revoked_at IS NULL AND t.token_sha256 <> n.token_sha256;
    INSERT INTO access_token (token_sha256, role, driver_id)
    SELECT n.token_sha256, 'driver', n.driver_id
    FROM unnest(driver_ids, token_sha256s) AS n (driver_id, token_sha256)
    JOIN device_credential d ON d.device_id = n.driver_id
    WHERE n.token_sha256 IS NOT NULL AND d.kind = 'driver' AND d.revoked_at IS NULL
        AND d.mqtt_hash IS NULL
    ON CONFLICT (token_sha256) DO NOTHING;
END
$$;

-- Returns one vector tile: each driver in it, or, with more than at_most drivers, the mean place
-- and the count of each non-empty cell of a 16 x 16 grid. A place of a single driver has its id and
-- state. Each driver is in exactly one tile per zoom level. The caller defines silent, lost and
-- stationary.
CREATE OR REPLACE FUNCTION fleet_tile_v1(
    z int, x int, y int, of_states text[], of_duties text[], of_presences text[],
    silent_after_s float8, lost_after_s float8, moving_mps float8, at_most int
)
RETURNS bytea LANGUAGE plpgsql STABLE
SET search_path = doorstep, public, pg_temp
SET plan_cache_mode = force_custom_plan  -- so that a null array costs nothing
AS $$
#variable_conflict use_column
DECLARE
    west CONSTANT float8 := x / 2.0 ^ z * 360 - 180;
    east CONSTANT float8 := (x + 1) / 2.0 ^ z * 360 - 180;
    north CONSTANT float8 := degrees(atan(sinh(pi() * (1 - 2 * y / 2.0 ^ z))));
    south CONSTANT float8 := degrees(atan(sinh(pi() * (1 - 2 * (y + 1) / 2.0 ^ z))));
    -- Web Mercator's y. Plain arithmetic is faster than PROJ.
    top CONSTANT float8 := pi() * (1 - 2 * y / 2.0 ^ z);
    high CONSTANT float8 := 2 * pi() / 2.0 ^ z;
    silent_before CONSTANT timestamptz := clock_timestamp() - make_interval(secs => silent_after_s);
    lost_before CONSTANT timestamptz := clock_timestamp() - make_interval(secs => lost_after_s);
    -- From zoom 9 (0.7 degrees) on, drivers are found by cell; a tile of a lower zoom holds nearly
    -- all of them. Beyond 20,000 candidates a sequential scan is faster.
    candidates text[] := CASE WHEN z >= 9 THEN ARRAY(
        SELECT c.driver_id
        FROM generate_series(floor(south * 100)::int, floor(north * 100)::int) AS r (cell_row)
        JOIN driver_cell c
            ON c.cell BETWEEN (r.cell_row + 9000) * 36000 + floor(west * 100)::int + 18000
                AND (r.cell_row + 9000) * 36000 + floor(east * 100)::int + 18000
        LIMIT 20000
    ) END;
    tile bytea;
BEGIN
    IF cardinality(candidates) = 20000 THEN
        candidates := NULL;
    END IF;
    WITH inside AS MATERIALIZED (
        SELECT d.driver_id, d.state, d.duty, p.presence,
            round((d.lon_deg - west) / (east - west) * 4096) AS px,
            round((top - ln(tan(pi() / 4 + radians(d.lat_deg) / 2))) / high * 4096) AS py
        FROM driver_state d
        CROSS JOIN LATERAL (
            SELECT CASE
                WHEN d.received_at < lost_before THEN 'lost'
                WHEN d.received_at < silent_before THEN 'silent'
                WHEN d.speed_mps < moving_mps THEN 'stationary'
                ELSE 'online'
            END
        ) AS p (presence)
        WHERE (candidates IS NULL OR d.driver_id = ANY (candidates))
            AND NOT EXISTS (
                SELECT FROM device_credential c
                WHERE c.device_id = d.driver_id AND c.removed_at IS NOT NULL
            )
            AND d.lon_deg >= west AND d.lon_deg < east AND d.lat_deg <= north AND d.lat_deg > south
            AND (of_states IS NULL OR d.state::text = ANY (of_states))
            AND (of_duties IS NULL OR d.duty::text = ANY (of_duties))
            AND (of_presences IS NULL OR p.presence = ANY (of_presences))
    ), many AS MATERIALIZED (  -- counted once, in every plan
        SELECT count(*) > at_most AS are_many FROM inside
    ), places AS (
        SELECT ST_MakePoint(round(avg(px)), round(avg(py))) AS geom,
            count(*)::int AS count,
            CASE WHEN count(*) = 1 THEN min(driver_id) END AS driver_id,
            CASE WHEN count(*) = 1 THEN min(state)::text END AS state,
            CASE WHEN count(*) = 1 THEN min(duty)::text END AS duty,
            CASE WHEN count(*) = 1 THEN min(presence) END AS presence
        FROM inside CROSS JOIN many
        GROUP BY CASE WHEN NOT are_many THEN driver_id END,
            CASE WHEN are_many THEN floor(px / 256) END,
            CASE WHEN are_many THEN floor(py / 256) END
    )
    SELECT ST_AsMVT(places, 'drivers', 4096, 'geom') INTO tile FROM places;
    RETURN tile;
END
$$;

REVOKE EXECUTE ON FUNCTION
    add_devices_v2, change_device_v2, changed_devices_v2, open_staff_session_v1,
    close_staff_session_v1
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION change_device_v2, open_staff_session_v1, close_staff_session_v1
TO tracking_api;
GRANT EXECUTE ON FUNCTION changed_devices_v2 TO broker_sync;
