-- Who may log in: devices at the brokers and at driver_api, staff at both APIs. And what they did.

-- Secrets are not stored. The first ones of a device derive from the fleet key and its id, unless
-- an admin adds it over the API; later ones are random. Rows are never deleted, so a removed id
-- that is added again is of a new generation.
CREATE TABLE device_credential (
    device_id text COLLATE "C" PRIMARY KEY CHECK (device_id ~ '^[A-Za-z0-9_-]{1,64}$'),
    kind device_kind NOT NULL,
    generation int NOT NULL DEFAULT 0 CHECK (generation >= 0),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    rotated_at timestamptz,
    revoked_at timestamptz,  -- until the next rotation
    removed_at timestamptz,
    version int8 NOT NULL,  -- credential_version at the last change
    mqtt_hash text,  -- of a random MQTT password, as in Mosquitto's password file; null: derived
    forgotten_at timestamptz,  -- the id is never used again: Kafka may still hold its fixes
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
    revoked_at timestamptz,
    -- of the role restaurant, which may do nothing without one
    restaurant_id int REFERENCES restaurant ON DELETE SET NULL,
    CONSTRAINT staff_restaurant CHECK (restaurant_id IS NULL OR role = 'restaurant')
);

-- Append-only, for the owner too: a trigger refuses UPDATE and TRUNCATE, and DELETE of a row that
-- is not past its retention.
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
-- For an order's timeline; commands are in order_command.
CREATE INDEX audit_link ON audit (subject) WHERE action LIKE '% /orders/{order_id}/link';
