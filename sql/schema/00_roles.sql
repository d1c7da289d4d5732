-- The schema and the service roles. Roles belong to the cluster, so they may already exist.
-- They cannot log in until `python -m sql passwords` sets their passwords.

DO $do$
DECLARE
    role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY[
        'driver_events', 'driver_api', 'tracking_api', 'customer', 'broker_sync', 'webhooks'
    ] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
        END IF;
    END LOOP;
END
$do$;

CREATE EXTENSION IF NOT EXISTS postgis;

CREATE SCHEMA doorstep;
SET LOCAL search_path = doorstep, public;
SET LOCAL check_function_bodies = off;  -- functions may refer to objects that are created later
