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
