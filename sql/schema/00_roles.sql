-- The schema and the service roles. Roles belong to the cluster, so they may be there already;
-- they can't log in until `python -m sql passwords` gives them a password.

DO $do$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['driver_events', 'driver_api', 'tracking_api'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
        END IF;
    END LOOP;
END
$do$;

CREATE EXTENSION IF NOT EXISTS postgis;

CREATE SCHEMA doorstep;
SET LOCAL search_path = doorstep, public;
SET LOCAL check_function_bodies = off;  -- functions name tables and each other in any order
