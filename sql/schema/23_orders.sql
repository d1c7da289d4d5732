-- Orders, their assignments, what was commanded and what was proved.

CREATE TABLE orders (
    order_id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    restaurant_id int NOT NULL REFERENCES restaurant,
    lon_deg float8 NOT NULL CHECK (lon_deg BETWEEN -180 AND 180),
    lat_deg float8 NOT NULL CHECK (lat_deg BETWEEN -90 AND 90),
    geom geometry(Point, 4326) NOT NULL
        GENERATED ALWAYS AS (ST_SetSRID(ST_MakePoint(lon_deg, lat_deg), 4326)) STORED,
    customer_name text,
    policy_id int NOT NULL REFERENCES policy,
    idempotency_key text UNIQUE,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- what is visible: the maximum of (assignment_no, state) over commands and evidence
    state order_state NOT NULL DEFAULT 'created',
    assignment_no int NOT NULL DEFAULT 0,
    state_source state_source NOT NULL DEFAULT 'staff',
    state_at timestamptz NOT NULL DEFAULT clock_timestamp(),  -- when it came to be, as far as known
    order_seq int NOT NULL DEFAULT 1,  -- counts the order's events
    ended_at timestamptz,
    CHECK ((ended_at IS NOT NULL) = (state IN ('delivered', 'cancelled', 'failed')))
) WITH (fillfactor = 70);
CREATE INDEX orders_open ON orders (state, created_at, order_id) WHERE ended_at IS NULL;
CREATE INDEX orders_page ON orders (created_at, order_id);

-- One attempt to deliver an order with one driver, for fixes of [assigned_at, ended_at).
CREATE TABLE assignment (
    order_id uuid NOT NULL REFERENCES orders,
    assignment_no int NOT NULL CHECK (assignment_no > 0),
    driver_id text COLLATE "C" NOT NULL REFERENCES driver,
    assigned_at timestamptz NOT NULL,
    ended_at timestamptz CHECK (ended_at >= assigned_at),
    ended_by order_verb,
    policy_id int NOT NULL REFERENCES policy,
    -- Copies, so that each fix costs one look-up: the two places, and what is proved so far.
    restaurant_lon_deg float8 NOT NULL,
    restaurant_lat_deg float8 NOT NULL,
    customer_lon_deg float8 NOT NULL,
    customer_lat_deg float8 NOT NULL,
    at_restaurant_at timestamptz,
    left_restaurant_at timestamptz,  -- picked_up by gps
    picked_up_at timestamptz,  -- of any source, the earliest
    arriving_at timestamptz,
    at_customer_at timestamptz,
    PRIMARY KEY (order_id, assignment_no)
) WITH (fillfactor = 70);
CREATE UNIQUE INDEX assignment_one_open ON assignment (driver_id) WHERE ended_at IS NULL;
-- A driver's windows never overlap, so the last one begun is the only one that can hold a fix.
CREATE UNIQUE INDEX assignment_window ON assignment (driver_id, assigned_at);

CREATE TABLE order_command (
    order_command_id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    order_id uuid NOT NULL REFERENCES orders,
    command order_verb NOT NULL,
    actor actor NOT NULL,
    actor_id text NOT NULL,
    driver_id text COLLATE "C" REFERENCES driver,  -- whom assign and reassign chose
    from_state order_state NOT NULL,
    to_state order_state NOT NULL,
    assignment_no int NOT NULL,  -- of to_state
    idempotency_key text,
    commanded_at timestamptz NOT NULL,
    UNIQUE (order_id, idempotency_key)
);
CREATE INDEX order_command_order ON order_command (order_id, assignment_no, command);

-- What fixes prove, whatever the commands said. While its assignment is open it only grows, and
-- occurred_at only moves earlier. The command that ends the assignment ends its window too: what
-- rested on fixes dated past that instant (a phone's clock may be 120 s ahead) goes then, once.
CREATE TABLE evidence (
    order_id uuid NOT NULL,
    assignment_no int NOT NULL,
    state order_state NOT NULL
        CHECK (state IN ('at_restaurant', 'picked_up', 'arriving', 'at_customer')),
    source state_source NOT NULL DEFAULT 'gps',
    occurred_at timestamptz NOT NULL,  -- the earliest instant proved
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (order_id, assignment_no, state, source),
    FOREIGN KEY (order_id, assignment_no) REFERENCES assignment
);

CREATE TABLE order_event (
    order_id uuid NOT NULL REFERENCES orders,
    order_seq int NOT NULL,
    assignment_no int NOT NULL,
    state order_state NOT NULL,
    source state_source NOT NULL,
    driver_id text COLLATE "C",
    occurred_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (order_id, order_seq)
);

CREATE TYPE transition_via AS ENUM ('command', 'evidence');

-- The whole matrix. What is not a row is refused by a trigger, whoever asks.
CREATE TABLE order_transition (
    from_state order_state NOT NULL,
    to_state order_state NOT NULL,
    via transition_via NOT NULL,
    command order_verb,
    actor actor,
    UNIQUE NULLS NOT DISTINCT (from_state, to_state, via, command, actor),
    CHECK ((via = 'command') = (command IS NOT NULL)),
    CHECK ((via = 'command') = (actor IS NOT NULL))
);

CREATE TABLE driver_transition (
    from_state driver_status NOT NULL,
    command driver_verb NOT NULL,
    to_state driver_status NOT NULL,
    PRIMARY KEY (from_state, command)
);

-- An order as it stands, with its open assignment.
CREATE VIEW order_now AS
SELECT
    o.order_id, o.state, o.assignment_no, a.driver_id, o.order_seq, o.restaurant_id,
    o.lon_deg, o.lat_deg, o.customer_name, o.policy_id, o.created_at, a.assigned_at, o.ended_at
FROM orders o
LEFT JOIN assignment a
    ON a.order_id = o.order_id AND a.assignment_no = o.assignment_no AND a.ended_at IS NULL;
