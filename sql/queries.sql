-- Every statement that Python sends, by name: `sql.query("name")`. Parameters are psycopg's
-- %(name)s; the utility statements at the end take {identifiers} and {literals} (psycopg.sql).


-- Writing fixes ---------------------------------------------------------------------------

-- prepare_incoming --
SELECT prepare_incoming_v1()

-- copy_incoming --
COPY pg_temp.incoming_fix (n, driver_id, boot, seq, fix_at, received_at, lon_deg, lat_deg,
    accuracy_m, speed_mps, heading_deg, altitude_m, battery, reason)
FROM STDIN (FORMAT binary)

-- exempt_from_quota --
-- This transaction's fixes are not charged to the drivers' quotas: staff or a service sends them.
SELECT set_config('doorstep.quota_exempt', 'on', true)

-- record_fixes --
SELECT n, outcome, reason FROM record_fixes_v1()

-- record_parked --
SELECT record_parked_v1()

-- has_parked --
SELECT EXISTS (SELECT FROM doorstep.parked_fix)

-- read_watermarks --
-- No gaps, the usual case, are returned as null: parsing JSON costs more than everything else.
SELECT driver_id, boot, seq, nullif(missing, '[]') AS missing, hold_s, held
FROM read_watermarks_v2(%(driver_ids)s, %(boots)s)

-- confirm_commit --
SELECT commit__confirm_v1()


-- Kafka offsets and the outbox ------------------------------------------------------------

-- open_offsets --
SELECT partition, next_offset
FROM open_offsets_v1(%(cluster_id)s, %(topic_id)s, %(partitions)s)

-- read_offsets --
SELECT partition, next_offset
FROM doorstep.kafka_offset
WHERE cluster_id = %(cluster_id)s AND topic_id = %(topic_id)s

-- read_stored_offsets --
SELECT topic_id, partition, next_offset
FROM kafka_offset
WHERE cluster_id = %(cluster_id)s AND topic_id = ANY (%(topic_ids)s)

-- advance_offsets --
SELECT advance_offsets_v1(%(cluster_id)s, %(topic_id)s, %(partitions)s, %(from_offsets)s,
    %(to_offsets)s)

-- add_dead_letters --
SELECT add_dead_letters_v1(%(payloads)s, %(driver_ids)s, %(reasons)s, %(sources)s, %(topics)s,
    %(details)s, %(received_at_mss)s)

-- take_outbox --
SELECT outbox_id, topic, key, payload, headers FROM take_outbox_v1(%(limit)s)

-- delete_outbox --
SELECT delete_outbox_v1(%(ids)s)


-- Orders, drivers, tokens -----------------------------------------------------------------

-- create_order --
SELECT * FROM create_order_v4(%(restaurant_id)s, %(pickup)s, %(lon_deg)s, %(lat_deg)s,
    %(token_sha256)s, %(policy_id)s, %(idempotency_key)s, %(customer_name)s, %(details)s, %(who)s)
WHERE commit__confirm_v1()

-- command_order_as_staff --
SELECT * FROM command_order_as_staff_v1(%(order_id)s, %(command)s, %(name)s, %(driver_id)s,
    %(idempotency_key)s)
WHERE commit__confirm_v1()

-- assign_order_as_staff --
SELECT * FROM assign_order_as_staff_v1(%(order_id)s, %(command)s, %(name)s, %(driver_id)s,
    %(stop_no)s, %(idempotency_key)s)
WHERE commit__confirm_v1()

-- set_driver_stops --
SELECT set_driver_stops_v1(%(driver_id)s, %(order_ids)s::uuid[], %(name)s)
WHERE commit__confirm_v1()

-- settle_evidence --
SELECT evidence__settle_v1(%(at_most)s)

-- refresh_order_etas --
SELECT order_eta__refresh_v1(%(at_most)s)

-- find_token --
SELECT role, driver_id, order_id, name, staff_role FROM find_token_v2(%(token_sha256)s)

-- find_tokens --
SELECT token_sha256, role, driver_id, order_id, name, staff_role
FROM find_tokens_v1(%(token_sha256s)s::bytea[])

-- replace_customer_token --
SELECT replace_customer_token_v1(%(order_id)s, %(token_sha256)s)
WHERE commit__confirm_v1()

-- revoke_customer_tokens --
SELECT revoke_customer_tokens_v1(%(order_id)s)
WHERE commit__confirm_v1()

-- create_policy --
SELECT p.policy_id
FROM create_policy_v1(%(values)s) AS p (policy_id)
CROSS JOIN LATERAL record_audit_v1(%(who)s, 'policy.create', p.policy_id::text, NULL)

-- read_eta_model --
SELECT eta_model__read_v1(%(known)s)


-- Sampling policies of devices ------------------------------------------------------------

-- set_sampling --
SELECT driver_sampling__set_v1(%(driver_id)s, %(sampling_policy)s)
WHERE commit__confirm_v1()

-- unpin_sampling --
SELECT driver_sampling__unpin_v1(%(driver_id)s)
WHERE commit__confirm_v1()

-- follow_demand --
SELECT driver_sampling__follow_demand_v1(%(everybody)s)

-- take_sampling --
SELECT driver_id, version, sampling_policy FROM driver_sampling__take_v1(%(limit)s)

-- confirm_sampling --
SELECT driver_sampling__confirm_v1(%(driver_ids)s, %(versions)s)

-- mark_sampling_undelivered --
SELECT driver_sampling__mark_undelivered_v1()


-- Series and simulation targets -----------------------------------------------------------

-- prepare_points --
SELECT series__prepare_v1()

-- copy_points --
COPY pg_temp.incoming_point (n, name, at, value) FROM STDIN (FORMAT binary)

-- record_points --
SELECT n, outcome FROM series__record_v1()

-- expire_points --
SELECT series__expire_v1(%(before)s)

-- set_simulation_target --
SELECT simulation_target__set_v1(%(kind)s, %(count)s)


-- Run by doorstep_owner: registration and partitions ---------------------------------------

-- register_drivers --
SELECT register_drivers_v1(%(driver_ids)s, %(names)s, %(token_sha256s)s)

-- add_devices --
SELECT * FROM add_devices_v2(%(kind)s, %(device_ids)s, %(who)s)
WHERE commit__confirm_v1()

-- change_device --
SELECT * FROM change_device_v2(%(kind)s, %(device_id)s, %(change)s, %(who)s, %(mqtt_hash)s,
    %(token_sha256)s)
WHERE commit__confirm_v1()

-- list_devices --
SELECT * FROM list_devices_v1(%(kind)s)

-- changed_devices --
SELECT device_id, mqtt_hash, is_active, version FROM changed_devices_v2(%(since)s)

-- change_staff --
SELECT * FROM change_staff_v2(%(name)s, %(change)s, %(role)s, %(restaurant_id)s,
    %(token_sha256)s, %(expires_at)s, %(who)s)
WHERE commit__confirm_v1()

-- list_staff --
SELECT * FROM list_staff_v2()

-- open_staff_session --
SELECT name, role, expires_at
FROM open_staff_session_v2(%(token_sha256)s, %(session_sha256)s, %(lifetime_s)s)

-- close_staff_session --
SELECT close_staff_session_v1(%(session_sha256)s)
WHERE commit__confirm_v1()

-- record_audit --
SELECT record_audit_v1(%(who)s, %(action)s, %(subject)s, %(detail)s)

-- read_audit --
SELECT at, who, action, subject, detail FROM audit
WHERE (%(who)s::text IS NULL OR who = %(who)s)
    AND (%(since)s::timestamptz IS NULL OR at >= %(since)s)
ORDER BY at, audit_id

-- register_restaurants --
SELECT register_restaurants_v1(%(restaurant_ids)s, %(names)s, %(lon_degs)s, %(lat_degs)s)

-- register_city --
SELECT register_city_v1(%(name)s, %(west)s, %(south)s, %(east)s, %(north)s, %(time_zone)s,
    %(made_at)s, %(restaurant_ids)s, %(names)s, %(lon_degs)s, %(lat_degs)s)

-- remove_city --
SELECT remove_city_v1(%(name)s)

-- register_service_area --
SELECT register_service_area_v1(%(name)s, %(west)s, %(south)s, %(east)s, %(north)s)

-- register_staff_token --
SELECT register_staff_token_v1(%(token_sha256)s, %(name)s)

-- ensure_partitions --
SELECT fix_history__ensure_partitions_v1(%(first_day)s, %(last_day)s)


-- Run by a superuser: setting up a cluster -------------------------------------------------

-- create_role_if_absent --
DO $do$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {name}) THEN
        CREATE ROLE {role};
    END IF;
END $do$

-- set_owner_password --
ALTER ROLE {role} LOGIN CREATEROLE PASSWORD {password}

-- make_observer --
-- 10: two of postgres_exporter, one of pgAdmin per database and per query tab
GRANT pg_monitor TO {role};
GRANT CONNECT ON DATABASE {database} TO {role};
ALTER ROLE {role} LOGIN CONNECTION LIMIT 10 PASSWORD {password}

-- make_replicator --
ALTER ROLE {role} LOGIN REPLICATION PASSWORD {password}

-- set_service_password --
ALTER ROLE {role} LOGIN PASSWORD {password}

-- database_exists --
SELECT EXISTS (SELECT FROM pg_database WHERE datname = %(name)s)

-- create_database --
CREATE DATABASE {name} OWNER {owner}

-- clone_database --
CREATE DATABASE {name} TEMPLATE {template} OWNER {owner} STRATEGY FILE_COPY

-- drop_database --
DROP DATABASE IF EXISTS {name} WITH (FORCE)

-- create_postgis --
CREATE EXTENSION IF NOT EXISTS postgis

-- close_functions --
-- A service could stop the others by holding a command's lock, or all locks of the server; or fill
-- the disk. Our functions take locks as the owner. driver_events takes the lock of compaction.
DO $do$
DECLARE
    f regprocedure;
BEGIN
    FOR f IN SELECT p.oid::regprocedure FROM pg_proc p
        WHERE p.pronamespace = 'pg_catalog'::regnamespace AND (
            p.proname ~ '^pg_(try_)?advisory_'
            OR p.proname IN ('lo_create', 'lo_creat', 'lo_from_bytea', 'pg_logical_emit_message')
        )
    LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', f);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO doorstep_owner', f);
    END LOOP;
END $do$;
GRANT EXECUTE ON FUNCTION pg_try_advisory_lock(bigint) TO driver_events

-- close_database --
REVOKE ALL ON DATABASE {name} FROM PUBLIC;
GRANT CONNECT ON DATABASE {name}
TO driver_events, driver_api, tracking_api, customer, broker_sync, webhooks

-- customer_tracks --
SELECT * FROM customer_tracks_v1(%(token_sha256s)s, %(order_ids)s)

-- customer_polls --
SELECT * FROM customer_polls_v1(%(token_sha256s)s, %(order_ids)s)

-- customer_history --
SELECT * FROM customer_history_v1(%(token_sha256)s, %(order_id)s, %(since)s, %(before)s,
    %(at_most)s, %(after_fix_at)s, %(after_boot)s, %(after_seq)s)

-- customer_cancel --
SELECT * FROM customer_cancel_v1(%(token_sha256)s, %(order_id)s, %(idempotency_key)s)
