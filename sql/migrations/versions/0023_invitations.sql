-- Invitations; random secrets of phones, and how OwnTracks reports.

SET LOCAL search_path = doorstep, public;
SET LOCAL check_function_bodies = off;  -- functions may refer to objects that are created later

ALTER TABLE phone_credential ADD COLUMN mqtt_hash text, ADD COLUMN positioned_at timestamptz,
    ADD COLUMN mode int, ADD COLUMN wanted_mode int CHECK (wanted_mode IN (1, 2)),
    ADD COLUMN mode_sent_at timestamptz;
CREATE INDEX phone_credential_unsent ON phone_credential (driver_id) WHERE mode <> wanted_mode;

-- A link with which a driver sets a phone up: good once, for a day. A driver has one open link at
-- most.
CREATE TABLE invitation (
    token_sha256 bytea PRIMARY KEY CHECK (octet_length(token_sha256) = 32),
    driver_id text COLLATE "C" NOT NULL REFERENCES driver,
    created_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL,
    used_at timestamptz,
    revoked_at timestamptz,
    follow_sha256 bytea UNIQUE CHECK (octet_length(follow_sha256) = 32)  -- may look for the phone
);
CREATE UNIQUE INDEX invitation_open ON invitation (driver_id)
WHERE used_at IS NULL AND revoked_at IS NULL;
CREATE INDEX invitation_driver ON invitation (driver_id, created_at);

-- What staff sees of drivers' phones: `invited`, until the link ends and until the phone is heard
-- of; or `heard`.
CREATE VIEW driver_phone AS
SELECT d.driver_id,
    CASE WHEN p.heard_at IS NOT NULL THEN 'heard'
        WHEN p.driver_id IS NOT NULL OR i.expires_at IS NOT NULL THEN 'invited' END AS state,
    i.expires_at AS invited_until, p.heard_at, p.heard_app AS app
FROM driver d
LEFT JOIN phone_credential p ON p.driver_id = d.driver_id AND p.revoked_at IS NULL
LEFT JOIN invitation i ON i.driver_id = d.driver_id AND i.used_at IS NULL AND i.revoked_at IS NULL
    AND i.expires_at > clock_timestamp();

DROP FUNCTION issue_phone_v1, changed_phones_v1, phone_credential__heard_v1;

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

-- Returns the phones changed since a version, for broker_sync.
CREATE FUNCTION changed_phones_v2(since_version int8)
RETURNS TABLE (driver_id text, generation int, mqtt_hash text, is_active bool, version int8)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    SELECT p.driver_id, p.generation, p.mqtt_hash, p.revoked_at IS NULL, p.version
    FROM phone_credential p WHERE p.version > since_version
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

CREATE FUNCTION driver_command__derive_phone_mode()
RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE phone_credential
    SET wanted_mode = driver_duty__phone_mode(NEW.command::text::driver_duty)
    WHERE driver_id = NEW.driver_id;
    RETURN NULL;
END
$$;

CREATE TRIGGER _510_derive_phone_mode AFTER INSERT ON driver_command
FOR EACH ROW EXECUTE FUNCTION driver_command__derive_phone_mode();

-- Registers the derived token of a phone's present generation, unless the phone is revoked.
CREATE OR REPLACE FUNCTION register_phone_tokens_v1(
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

-- A driver who is revoked, removed or rotated loses the phone's credential and the invitation, too.
CREATE OR REPLACE FUNCTION device_credential__end_phones()
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

-- Erases a driver: what tells of them is deleted, and orders name `forgotten` instead. The id stays
-- in device_credential, so that it is never used again, and in the audit. Returns the number of
-- rows per table. Raises DS003 for an unknown driver, and DS016 if an order of theirs is open.
CREATE OR REPLACE FUNCTION forget_driver_v1(of_driver_id text, by_who text)
RETURNS TABLE (table_name text, what text, row_count int8)
LANGUAGE plpgsql
SET search_path = doorstep, public, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    open_order uuid;
    of_orders uuid[];
    name_of_table text;
    deleted_count int8;
BEGIN
    -- Compaction holds this row while it packs: a chunk that it has just written is deleted too.
    PERFORM FROM history_bounds FOR UPDATE;
    PERFORM FROM driver_state d WHERE d.driver_id = of_driver_id FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no driver %', of_driver_id USING ERRCODE = 'DS003';
    END IF;
    SELECT a.order_id INTO open_order FROM assignment a
        WHERE a.driver_id = of_driver_id AND a.ended_at IS NULL LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION '% has the open order %: reassign, cancel or fail it first', of_driver_id,
            open_order USING ERRCODE = 'DS016';
    END IF;
    PERFORM FROM change_device_v2('driver', of_driver_id, 'remove', NULL, NULL, NULL);
    UPDATE device_credential c SET forgotten_at = clock_timestamp()
        WHERE c.device_id = of_driver_id;

    of_orders := ARRAY(
        SELECT c.order_id FROM order_command c
        WHERE c.driver_id = of_driver_id OR c.actor_id = of_driver_id
        UNION SELECT a.order_id FROM assignment a WHERE a.driver_id = of_driver_id
    );
    RETURN QUERY SELECT 'assignment', 'names `forgotten`',
        orders__forget_people(of_orders, of_driver_id);
    DELETE FROM outbox o
        WHERE o.topic = 'dead-letter' AND o.key = convert_to(of_driver_id, 'UTF8');
    GET DIAGNOSTICS deleted_count = ROW_COUNT;
    RETURN QUERY SELECT 'outbox', 'deleted', deleted_count;
    FOREACH name_of_table IN ARRAY ARRAY[
        'fix_history', 'fix_chunk', 'parked_fix', 'driver_cell', 'driver_clock', 'driver_command',
        'driver_pace', 'driver_quota', 'driver_sampling', 'boot_seq_block', 'boot_seqs',
        'access_token', 'invitation', 'driver_state', 'driver'
    ] LOOP
        EXECUTE format('DELETE FROM %I WHERE driver_id = $1', name_of_table) USING of_driver_id;
        GET DIAGNOSTICS deleted_count = ROW_COUNT;
        RETURN QUERY SELECT name_of_table, 'deleted', deleted_count;
    END LOOP;
    -- What their device published as a source. In ASCII, '0' follows '/'.
    DELETE FROM series_point p USING series s
        WHERE s.name >= of_driver_id || '/' AND s.name < of_driver_id || '0'
            AND p.series_no = s.series_no;
    GET DIAGNOSTICS deleted_count = ROW_COUNT;
    RETURN QUERY SELECT 'series_point', 'deleted', deleted_count;
    DELETE FROM series s WHERE s.name >= of_driver_id || '/' AND s.name < of_driver_id || '0';
    GET DIAGNOSTICS deleted_count = ROW_COUNT;
    RETURN QUERY SELECT 'series', 'deleted', deleted_count;
    PERFORM record_audit_v1(by_who, 'driver.forget', of_driver_id, NULL);
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
SET enable_hashjoin = off  -- candidates are looked up by key
SET enable_mergejoin = off
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
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
        CROSS JOIN LATERAL (
            SELECT k.driver_id FROM driver_cell k
            WHERE k.cell BETWEEN (r.cell_row + 9000) * 36000 + floor(west * 100)::int + 18000
                AND (r.cell_row + 9000) * 36000 + floor(east * 100)::int + 18000
            OFFSET 0
        ) c
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
        FROM (
            -- only the part for which the condition holds is run
            SELECT s.* FROM unnest(candidates) AS c (driver_id)
                CROSS JOIN LATERAL (
                    SELECT * FROM driver_state t WHERE t.driver_id = c.driver_id OFFSET 0
                ) s
                WHERE candidates IS NOT NULL
            UNION ALL
            -- the whole table in sequence, in spite of enable_seqscan
            SELECT s.* FROM driver_state s TABLESAMPLE SYSTEM (100) WHERE candidates IS NULL
        ) d
        CROSS JOIN LATERAL (
            SELECT CASE
                WHEN h.heard_at < lost_before THEN 'lost'
                WHEN h.heard_at < silent_before THEN 'silent'
                WHEN d.speed_mps < moving_mps THEN 'stationary'
                ELSE 'online'
            END
            FROM (
                -- A phone app is heard of without a new position, too.
                SELECT CASE WHEN d.received_at >= silent_before THEN d.received_at
                    ELSE greatest(d.received_at, (
                        SELECT c.heard_at FROM phone_credential c WHERE c.driver_id = d.driver_id
                    )) END
            ) AS h (heard_at)
        ) AS p (presence)
        WHERE d.lon_deg >= west AND d.lon_deg < east AND d.lat_deg <= north AND d.lat_deg > south
            AND NOT EXISTS (
                SELECT FROM device_credential c
                WHERE c.device_id = d.driver_id AND c.removed_at IS NOT NULL
            )
            AND (of_states IS NULL OR d.state::text = ANY (of_states))
            AND (of_duties IS NULL OR d.duty::text = ANY (of_duties))
            AND (of_presences IS NULL OR p.presence = ANY (of_presences))
    ), many AS MATERIALIZED (  -- counted once, in every plan
        SELECT count(*) > at_most AS are_many FROM inside
    ), places AS (
        SELECT ST_MakePoint(px, py) AS geom, 1 AS count, driver_id, state::text AS state,
            duty::text AS duty, presence
        FROM inside
        WHERE NOT (SELECT are_many FROM many)
        UNION ALL
        SELECT ST_MakePoint(round(avg(px)), round(avg(py))), count(*)::int,
            CASE WHEN count(*) = 1 THEN min(driver_id) END,
            CASE WHEN count(*) = 1 THEN min(state)::text END,
            CASE WHEN count(*) = 1 THEN min(duty)::text END,
            CASE WHEN count(*) = 1 THEN min(presence) END
        FROM inside
        WHERE (SELECT are_many FROM many)
        GROUP BY floor(px / 256), floor(py / 256)
    )
    SELECT ST_AsMVT(places, 'drivers', 4096, 'geom') INTO tile FROM places;
    RETURN tile;
END
$$;

UPDATE phone_credential p SET mode = 2, wanted_mode = driver_duty__phone_mode(s.duty)
FROM driver_state s
WHERE s.driver_id = p.driver_id
    AND EXISTS (SELECT FROM driver_command c WHERE c.driver_id = p.driver_id);

REVOKE EXECUTE ON FUNCTION
    issue_phone_v2,
    driver_duty__phone_mode,
    changed_phones_v2,
    phone_credential__heard_v2,
    phone_credential__unsent_modes_v1,
    phone_credential__sent_modes_v1,
    invite_driver_v1,
    use_invitation_v1,
    invitation__positioned_v1,
    driver_command__derive_phone_mode
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION changed_phones_v2 TO broker_sync;
GRANT EXECUTE ON FUNCTION use_invitation_v1, invitation__positioned_v1 TO driver_api;
GRANT EXECUTE ON FUNCTION phone_credential__heard_v2 TO driver_api, driver_events;
GRANT EXECUTE ON FUNCTION
    phone_credential__unsent_modes_v1, phone_credential__sent_modes_v1
TO driver_events;
GRANT EXECUTE ON FUNCTION invite_driver_v1 TO tracking_api;
GRANT SELECT ON driver_phone TO tracking_api;
GRANT SELECT (driver_id, heard_at) ON phone_credential TO tracking_api;
