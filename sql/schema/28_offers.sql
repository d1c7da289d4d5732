-- Offers of orders to drivers: 56_offers.sql.

-- An offer is open while ended_at is null, and can be accepted until expires_at. Accepting it is a
-- command of the order. A driver may have several open offers, an order has one at most.
CREATE TABLE order_offer (
    order_offer_id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    order_id uuid NOT NULL REFERENCES orders,
    driver_id text COLLATE "C" NOT NULL REFERENCES driver,
    offered_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL CHECK (expires_at > offered_at),
    ended_at timestamptz CHECK (ended_at >= offered_at),
    outcome offer_outcome,
    offered_by text,  -- a member of staff; null: the policy
    offer_key text,  -- the idempotency key of offered_by
    decline_key text,  -- the idempotency key of the driver
    is_driver_named bool,  -- by the request with offer_key; null in an offer of an earlier release
    CHECK ((ended_at IS NULL) = (outcome IS NULL)),
    UNIQUE (order_id, offered_by, offer_key)
);
CREATE UNIQUE INDEX order_offer_one_open ON order_offer (order_id) WHERE ended_at IS NULL;
CREATE INDEX order_offer_due ON order_offer (expires_at) WHERE ended_at IS NULL;
CREATE INDEX order_offer_driver ON order_offer (driver_id, ended_at);

-- Confirmed orders whose offers have all ended, with no driver left to offer them to.
CREATE TABLE unassigned_order (
    order_id uuid PRIMARY KEY REFERENCES orders,
    since timestamptz NOT NULL,
    checked_at timestamptz NOT NULL  -- when a driver was last looked for
);

-- A courier with room for another order, and the newest position.
CREATE TYPE courier_place AS (driver_id text COLLATE "C", lon_deg float8, lat_deg float8);
