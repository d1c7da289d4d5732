-- The outbox, Kafka offsets and access tokens.

-- Records to be published to Kafka, written in the transaction that caused them.
CREATE TABLE outbox (
    outbox_id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic text NOT NULL CHECK (topic IN ('tracking-updates', 'dead-letter')),
    key bytea,
    payload bytea NOT NULL,
    headers jsonb NOT NULL DEFAULT '[]',  -- [[name, value], ...]
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Advanced in the transaction of the batch, by compare-and-set. A recreated topic has a new
-- topic_id and so starts at 0.
CREATE TABLE kafka_offset (
    cluster_id text COLLATE "C" NOT NULL,
    topic_id text COLLATE "C" NOT NULL,
    partition int NOT NULL,
    next_offset int8 NOT NULL CHECK (next_offset >= 0),
    advanced_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (cluster_id, topic_id, partition)
) WITH (fillfactor = 50);

-- Only the hash of a token is stored.
CREATE TABLE access_token (
    token_sha256 bytea PRIMARY KEY CHECK (octet_length(token_sha256) = 32),
    role token_role NOT NULL,
    driver_id text COLLATE "C" REFERENCES driver,
    order_id uuid REFERENCES orders,
    name text,  -- of a staff token
    created_at timestamptz NOT NULL DEFAULT now(),
    revoked_at timestamptz,
    expires_at timestamptz,  -- of a staff token or a session; null: never
    is_session bool NOT NULL DEFAULT false,  -- a page's, which a staff's or driver's token opened
    CHECK ((role = 'driver') = (driver_id IS NOT NULL)),
    CHECK ((role = 'customer') = (order_id IS NOT NULL)),
    CHECK ((role = 'staff') = (name IS NOT NULL))
);
CREATE INDEX access_token_driver ON access_token (driver_id) WHERE driver_id IS NOT NULL;
CREATE INDEX access_token_order ON access_token (order_id) WHERE order_id IS NOT NULL;
CREATE INDEX access_token_name ON access_token (name) WHERE name IS NOT NULL;
