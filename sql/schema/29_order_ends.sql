-- How orders end: PINs, photos, a second attempt, the way back. Functions: 57_order_ends.sql.

-- The PIN of an order, readable for its customer only: no service may read this table. An order
-- made before 0.3.0 has only the hash in order_detail, and a row here once a driver gave the PIN.
CREATE TABLE order_pin (
    order_id uuid PRIMARY KEY REFERENCES orders,
    pin text CHECK (pin ~ '^[0-9]{4,8}$'),
    is_generated bool NOT NULL DEFAULT false,
    given_by text COLLATE "C",  -- the driver who has given the right PIN
    given_at timestamptz
);

-- Wrong PINs of drivers. Five within 10 minutes close an order to more (57_order_ends.sql).
CREATE TABLE order_pin_try (
    order_id uuid NOT NULL REFERENCES orders,
    tried_at timestamptz NOT NULL,
    driver_id text COLLATE "C" NOT NULL
);
CREATE INDEX order_pin_try_order ON order_pin_try (order_id, tried_at);

-- The courier's photo of a delivery. The last one counts.
CREATE TABLE order_photo (
    order_id uuid PRIMARY KEY REFERENCES orders,
    driver_id text COLLATE "C" NOT NULL REFERENCES driver,
    stored_at timestamptz NOT NULL,
    media_type text NOT NULL CHECK (media_type IN ('image/jpeg', 'image/png', 'image/webp')),
    content bytea NOT NULL CHECK (octet_length(content) BETWEEN 1 AND 524288)
);
ALTER TABLE order_photo ALTER COLUMN content SET STORAGE EXTERNAL;  -- compressed already
CREATE INDEX order_photo_expiry ON order_photo (stored_at);

-- The order that tries once more what a failed order did not deliver.
CREATE TABLE order_retry (
    order_id uuid PRIMARY KEY REFERENCES orders,
    retry_of uuid NOT NULL UNIQUE REFERENCES orders
);

-- The way of a failed order back to its restaurant: a leg of its own, after the assignment.
CREATE TABLE order_return (
    order_id uuid PRIMARY KEY REFERENCES orders,
    driver_id text COLLATE "C" NOT NULL REFERENCES driver,
    started_at timestamptz NOT NULL,
    ended_at timestamptz CHECK (ended_at >= started_at),
    ended_by text,  -- the driver, or a member of staff
    ended_role actor,
    CHECK ((ended_at IS NULL) = (ended_by IS NULL)),
    CHECK ((ended_at IS NULL) = (ended_role IS NULL))
);
CREATE INDEX order_return_open ON order_return (driver_id, started_at) WHERE ended_at IS NULL;
