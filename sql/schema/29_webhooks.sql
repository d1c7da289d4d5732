-- Notices of orders, alerts of the fleet, and webhooks with their queue.

-- What happened to an order besides a change of state. It takes a number of the order's sequence,
-- and is published like an event. Decided by the job in 57_notices.sql.
CREATE TABLE order_notice (
    order_id uuid NOT NULL REFERENCES orders,
    order_seq int NOT NULL,
    kind notice_kind NOT NULL,
    assignment_no int NOT NULL,
    state order_state NOT NULL,  -- visible at the time
    occurred_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (order_id, order_seq)
);
-- An order is late once, and a courier is nearby once in an assignment.
CREATE UNIQUE INDEX order_notice_once
ON order_notice (order_id, kind, (CASE kind WHEN 'nearby' THEN assignment_no ELSE 0 END));

-- An address of another system that is sent events of orders.
CREATE TABLE webhook (
    webhook_id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    url text NOT NULL CHECK (url ~ '^https?://[^\s]+$' AND length(url) <= 2000),
    description text NOT NULL DEFAULT '' CHECK (length(description) <= 200),
    events text[] CHECK (cardinality(events) > 0),  -- null: all
    secret text NOT NULL CHECK (secret ~ '^whsec_[A-Za-z0-9+/]{32,88}={0,2}$'),
    old_secret text,  -- signs, too, until the instant
    old_secret_until timestamptz,
    is_on bool NOT NULL DEFAULT true,
    off_reason webhook_off_reason,
    off_at timestamptz,
    failing_since timestamptz,  -- null after a success
    last_success_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by text NOT NULL,
    with_contact bool NOT NULL DEFAULT false,  -- an admin allows it the customers' phone numbers
    CHECK (is_on = (off_at IS NULL)),
    CHECK ((off_at IS NULL) = (off_reason IS NULL)),
    CHECK ((old_secret IS NULL) = (old_secret_until IS NULL))
);

-- The queue, and the log: an event of an order for a webhook. What it says is read from the order.
CREATE TABLE webhook_delivery (
    delivery_id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    webhook_id uuid NOT NULL REFERENCES webhook ON DELETE CASCADE,
    order_id uuid NOT NULL REFERENCES orders,
    order_seq int NOT NULL,
    event_type text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- infinity while an earlier event of the order is pending for this webhook
    due_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    sending_until timestamptz,  -- an attempt is under way; later, its process has died
    attempts int NOT NULL DEFAULT 0,
    first_attempt_at timestamptz,
    last_attempt_at timestamptz,
    last_status int,  -- of HTTP; null without an answer
    last_error text,
    ended_at timestamptz,
    outcome delivery_outcome,
    is_sent_again bool NOT NULL DEFAULT false,  -- by an admin: outside the order's sequence
    with_contact bool NOT NULL DEFAULT false,  -- to tell the customer, who had no web push
    UNIQUE (webhook_id, order_id, order_seq),
    CHECK ((ended_at IS NULL) = (outcome IS NULL))
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.1);
CREATE INDEX webhook_delivery_due ON webhook_delivery (webhook_id, due_at) WHERE ended_at IS NULL;
CREATE INDEX webhook_delivery_sending ON webhook_delivery (webhook_id)
WHERE sending_until IS NOT NULL;
CREATE INDEX webhook_delivery_page ON webhook_delivery (webhook_id, delivery_id);
CREATE INDEX webhook_delivery_order ON webhook_delivery (order_id);
CREATE INDEX webhook_delivery_ended ON webhook_delivery (ended_at) WHERE ended_at IS NOT NULL;

-- What needs a person. Raised and resolved by the job in 57_notices.sql.
CREATE TABLE alert (
    alert_id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind alert_kind NOT NULL,
    order_id uuid REFERENCES orders,
    driver_id text COLLATE "C" REFERENCES driver ON DELETE CASCADE,
    webhook_id uuid REFERENCES webhook ON DELETE CASCADE,
    raised_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    resolved_at timestamptz,
    acknowledged_at timestamptz,
    acknowledged_by text,
    CHECK ((acknowledged_at IS NULL) = (acknowledged_by IS NULL))
);
CREATE UNIQUE INDEX alert_open ON alert (kind, order_id, driver_id, webhook_id) NULLS NOT DISTINCT
WHERE resolved_at IS NULL;
CREATE INDEX alert_driver ON alert (driver_id);
CREATE INDEX alert_webhook ON alert (webhook_id);
CREATE INDEX alert_resolved ON alert (resolved_at) WHERE resolved_at IS NOT NULL;

INSERT INTO retention (kind, days, least_days) VALUES
    ('deliveries', 30, 2),  -- of webhooks, that ended
    ('alerts', 90, 7);      -- that are resolved
