-- What waits beside a driver's sequence of stops: docs/explanation/stacked-orders.md.

-- Open assignments whose evidence is derived again once due_at is past, the instant of the next
-- stored fix; the last one is dated until_at. evidence__settle_v1 does it.
CREATE TABLE evidence_due (
    order_id uuid NOT NULL,
    assignment_no int NOT NULL,
    due_at timestamptz NOT NULL,
    until_at timestamptz NOT NULL CHECK (until_at >= due_at),
    PRIMARY KEY (order_id, assignment_no),
    FOREIGN KEY (order_id, assignment_no) REFERENCES assignment
);
CREATE INDEX evidence_due_due ON evidence_due (due_at);

-- All that the customer of an order learns of its courier while another stop is next: whole
-- multiples of 5 minutes, written at most once a minute.
CREATE TABLE order_eta (
    order_id uuid PRIMARY KEY REFERENCES orders,
    earliest_at timestamptz NOT NULL,
    latest_at timestamptz NOT NULL CHECK (latest_at > earliest_at),
    estimated_at timestamptz NOT NULL
);

-- An open order of a driver, as the way along all stops needs it.
CREATE TYPE driver_stop AS (
    restaurant_lon_deg float8,
    restaurant_lat_deg float8,
    customer_lon_deg float8,
    customer_lat_deg float8,
    is_picked_up bool
);
