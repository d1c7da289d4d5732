-- What a driver's phone app (OwnTracks, Traccar Client, Overland) logs in with. It may send fixes
-- of this driver and nothing else: it is no row of access_token, which all other routes look up.
-- The first secret derives from the fleet key, the driver and the generation; those of a new phone
-- are random.
CREATE TABLE phone_credential (
    driver_id text COLLATE "C" PRIMARY KEY,  -- stays when a driver is forgotten: for broker_sync
    generation int NOT NULL DEFAULT 0 CHECK (generation >= 0),
    token_sha256 bytea UNIQUE CHECK (octet_length(token_sha256) = 32),  -- null: not yet registered
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    rotated_at timestamptz,
    revoked_at timestamptz,  -- until the next generation
    version int8 NOT NULL,  -- credential_version at the last change
    heard_at timestamptz,  -- of any message, to 20 s; null: never heard of
    heard_app text,
    mqtt_hash text,  -- of a random secret, as in Mosquitto's password file; null: derived
    positioned_at timestamptz,  -- of the first position, also one that was not kept
    -- OwnTracks' monitoring (1 significant, 2 move): as last reported or sent, and as duty wants
    -- it, which is null before the driver's first command
    mode int,
    wanted_mode int CHECK (wanted_mode IN (1, 2)),
    mode_sent_at timestamptz
) WITH (fillfactor = 70);
CREATE INDEX phone_credential_version ON phone_credential (version);
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
