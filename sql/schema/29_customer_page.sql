-- What belongs to a customer's token and ends with it: links to share, subscriptions to web push.

-- A link with which a customer lets another person follow the order: the state, the estimate and
-- the position, nothing else. It is no row of access_token, which all other functions look up.
CREATE TABLE share_link (
    token_sha256 bytea PRIMARY KEY CHECK (octet_length(token_sha256) = 32),
    order_id uuid NOT NULL REFERENCES orders,
    owner_sha256 bytea NOT NULL REFERENCES access_token ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    revoked_at timestamptz
);
CREATE INDEX share_link_owner ON share_link (owner_sha256);

-- A browser that is to hear of an order (RFC 8030). `endpoint` is its push service's address.
CREATE TABLE push_subscription (
    owner_sha256 bytea NOT NULL REFERENCES access_token ON DELETE CASCADE,
    endpoint text COLLATE "C" NOT NULL CHECK (octet_length(endpoint) BETWEEN 9 AND 1000),
    order_id uuid NOT NULL REFERENCES orders,
    p256dh text NOT NULL CHECK (octet_length(p256dh) <= 200),
    auth text NOT NULL CHECK (octet_length(auth) <= 100),
    "language" text NOT NULL DEFAULT 'en' CHECK (octet_length(language) <= 35),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    nearby_at timestamptz,  -- when the notification was first taken for sending
    delivered_at timestamptz,  -- likewise
    -- of the notification that was taken last; null once it has ended
    due_at timestamptz,  -- when it may be taken again
    sending_until timestamptz,  -- an attempt is under way; later, its process has died
    attempts int NOT NULL DEFAULT 0,
    PRIMARY KEY (owner_sha256, endpoint)
);
CREATE INDEX push_subscription_order ON push_subscription (order_id);
