-- Backups and restores: docs/how-to/backup.md.

-- system_identifier --
SELECT system_identifier FROM pg_control_system()

-- archive_command --
SELECT current_setting('archive_command')

-- archiver_state --
SELECT last_archived_time, coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'),
    false) FROM pg_stat_archiver

-- newest_credential_version --
SELECT version FROM credential_version

-- changed_credentials --
-- What a restore must not undo, in the order in which it is applied. `scan_customers` reads all
-- tokens; the rest has indexes.
SELECT 'device', d.device_id, to_jsonb(d)::text
FROM device_credential d WHERE d.version > %(version)s
UNION ALL
SELECT 'phone', p.driver_id, (to_jsonb(p)
    - '{heard_at,heard_app,positioned_at,mode,wanted_mode,mode_sent_at}'::text[])::text
FROM phone_credential p WHERE p.version > %(version)s
UNION ALL
SELECT 'staff', s.name, to_jsonb(s)::text FROM staff s
UNION ALL
SELECT 'token', encode(t.token_sha256, 'hex'), to_jsonb(t)::text FROM access_token t
WHERE t.name IS NOT NULL AND (t.revoked_at IS NOT NULL OR NOT t.is_session)
UNION ALL
SELECT 'token', encode(t.token_sha256, 'hex'), to_jsonb(t)::text
FROM device_credential d JOIN access_token t ON t.driver_id = d.device_id
WHERE d.version > %(version)s
UNION ALL
SELECT 'token', encode(t.token_sha256, 'hex'), to_jsonb(t)::text FROM access_token t
WHERE %(scan_customers)s AND t.role = 'customer' AND t.revoked_at IS NOT NULL
UNION ALL
SELECT 'forgotten', a.action || ' ' || a.subject,
    jsonb_build_object('action', a.action, 'id', a.subject)::text
FROM audit a
WHERE a.at >= %(since)s AND a.action IN ('driver.forget', 'order.forget')

-- restore_device --
-- A device with a later generation is as it was; within one, what has ended stays ended.
INSERT INTO device_credential AS d
SELECT r.* FROM jsonb_populate_record(
    NULL::device_credential,
    %(row)s || jsonb_build_object('version', credential_version__next())
) r
ON CONFLICT (device_id) DO UPDATE
SET generation = EXCLUDED.generation, mqtt_hash = EXCLUDED.mqtt_hash,
    rotated_at = EXCLUDED.rotated_at, version = EXCLUDED.version,
    revoked_at = CASE WHEN EXCLUDED.generation > d.generation THEN EXCLUDED.revoked_at
        ELSE coalesce(d.revoked_at, EXCLUDED.revoked_at) END,
    removed_at = CASE WHEN EXCLUDED.generation > d.generation THEN EXCLUDED.removed_at
        ELSE coalesce(d.removed_at, EXCLUDED.removed_at) END
WHERE EXCLUDED.generation > d.generation OR (
    EXCLUDED.generation = d.generation AND (
        (d.revoked_at IS NULL AND EXCLUDED.revoked_at IS NOT NULL)
        OR (d.removed_at IS NULL AND EXCLUDED.removed_at IS NOT NULL)
    )
)
RETURNING d.device_id

-- restore_driver --
-- The rows of a driver who was added after the restored instant and may log in.
WITH added AS (
    INSERT INTO driver (driver_id, name)
    SELECT c.device_id, c.device_id FROM device_credential c
    WHERE c.device_id = %(id)s AND c.kind = 'driver' AND c.revoked_at IS NULL
    ON CONFLICT DO NOTHING
    RETURNING driver_id
)
INSERT INTO driver_state (driver_id) SELECT driver_id FROM added ON CONFLICT DO NOTHING

-- end_device --
UPDATE access_token t SET revoked_at = clock_timestamp()
FROM device_credential d
WHERE d.device_id = %(id)s AND t.driver_id = d.device_id AND t.revoked_at IS NULL

-- restore_phone --
INSERT INTO phone_credential AS p
SELECT r.* FROM jsonb_populate_record(
    NULL::phone_credential,
    %(row)s || jsonb_build_object('version', credential_version__next())
) r
WHERE r.driver_id IN (SELECT d.driver_id FROM driver d)
ON CONFLICT (driver_id) DO UPDATE
SET generation = EXCLUDED.generation, rotated_at = EXCLUDED.rotated_at,
    token_sha256 = EXCLUDED.token_sha256, mqtt_hash = EXCLUDED.mqtt_hash,
    version = EXCLUDED.version,
    revoked_at = CASE WHEN EXCLUDED.generation > p.generation THEN EXCLUDED.revoked_at
        ELSE coalesce(p.revoked_at, EXCLUDED.revoked_at) END
WHERE EXCLUDED.generation > p.generation OR (
    EXCLUDED.generation = p.generation
    AND p.revoked_at IS NULL AND EXCLUDED.revoked_at IS NOT NULL
)
RETURNING p.driver_id

-- end_invitations --
-- The ones that were used or ended after the restored instant are not told apart: all end.
UPDATE invitation SET revoked_at = clock_timestamp()
WHERE used_at IS NULL AND revoked_at IS NULL AND expires_at > clock_timestamp()

-- restore_staff --
INSERT INTO staff AS s SELECT r.* FROM jsonb_populate_record(NULL::staff, %(row)s) r
ON CONFLICT (name) DO UPDATE
SET role = EXCLUDED.role, rotated_at = EXCLUDED.rotated_at, revoked_at = EXCLUDED.revoked_at
WHERE greatest(EXCLUDED.created_at, EXCLUDED.rotated_at, EXCLUDED.revoked_at)
    > greatest(s.created_at, s.rotated_at, s.revoked_at)
RETURNING s.name

-- restore_token --
-- Tokens of staff and drivers come back with their present state; sessions and customers' links
-- only end.
INSERT INTO access_token AS t
SELECT r.* FROM jsonb_populate_record(NULL::access_token, %(row)s) r
WHERE NOT coalesce(r.is_session, false) AND (
    r.role = 'staff' OR r.driver_id IN (SELECT d.driver_id FROM driver d)
) OR r.token_sha256 IN (SELECT k.token_sha256 FROM access_token k)
ON CONFLICT (token_sha256) DO UPDATE SET revoked_at = EXCLUDED.revoked_at
WHERE t.revoked_at IS NULL AND EXCLUDED.revoked_at IS NOT NULL
RETURNING coalesce(t.name, t.driver_id, 'order ' || t.order_id)

-- end_customer_links --
-- The links of orders that are out with a driver: some of them may have ended since.
UPDATE access_token t SET revoked_at = clock_timestamp()
WHERE t.role = 'customer' AND t.revoked_at IS NULL AND t.order_id IN (
    SELECT a.order_id FROM assignment a WHERE a.ended_at IS NULL
)
RETURNING t.order_id

-- end_share_links --
-- The ones that were withdrawn after the restored instant are not told apart: all end.
UPDATE share_link SET revoked_at = clock_timestamp() WHERE revoked_at IS NULL

-- recovery_progress --
SELECT pg_is_in_recovery(), pg_last_xact_replay_timestamp()

-- restored_state --
SELECT
    (SELECT count(*) FROM driver) AS drivers,
    (SELECT count(*) FROM orders) AS orders,
    (SELECT count(*) FROM orders WHERE ended_at IS NULL) AS open_orders,
    (SELECT max(recorded_at) FROM fix_history WHERE fix_at >= %(since)s) AS newest_fix_at,
    (SELECT max(advanced_at) FROM kafka_offset) AS kafka_from
