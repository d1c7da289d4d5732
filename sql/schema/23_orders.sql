-- Orders, assignments, commands, evidence, events, and the tables of legal transitions.

CREATE TABLE orders (
    order_id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    restaurant_id int NOT NULL REFERENCES restaurant,
    lon_deg float8 NOT NULL CHECK (lon_deg BETWEEN -180 AND 180),
    lat_deg float8 NOT NULL CHECK (lat_deg BETWEEN -90 AND 90),
    geom geometry(Point, 4326) NOT NULL
        GENERATED ALWAYS AS (ST_SetSRID(ST_MakePoint(lon_deg, lat_deg), 4326)) STORED,
    customer_name text,
    policy_id int NOT NULL REFERENCES policy,
    idempotency_key text,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- The visible state: the maximum of (assignment_no, state) over commands and evidence.
    state order_state NOT NULL DEFAULT 'created',
    assignment_no int NOT NULL DEFAULT 0,
    state_source state_source NOT NULL DEFAULT 'staff',
    state_at timestamptz NOT NULL DEFAULT clock_timestamp(),  -- earliest known start of the state
    order_seq int NOT NULL DEFAULT 1,  -- number of events and notices of the order
    ended_at timestamptz,
    forgotten_at timestamptz,  -- when what told of the customer was erased
    created_by text NOT NULL DEFAULT '',  -- a member of staff
    CHECK ((ended_at IS NOT NULL) = (state IN ('delivered', 'cancelled', 'failed'))),
    UNIQUE (created_by, idempotency_key)
) WITH (fillfactor = 70);
CREATE INDEX orders_open ON orders (state, created_at, order_id) WHERE ended_at IS NULL;
CREATE INDEX orders_page ON orders (created_at, order_id);
CREATE INDEX orders_restaurant ON orders (restaurant_id, ended_at);  -- for its page
CREATE INDEX orders_to_forget ON orders (ended_at)
WHERE ended_at IS NOT NULL AND forgotten_at IS NULL;

-- What an order says of its customer and its times. Written once, so a change of state does not
-- copy it.
CREATE TABLE order_detail (
    order_id uuid PRIMARY KEY REFERENCES orders,
    created_by text NOT NULL,  -- as orders.created_by
    external_id text,
    customer_phone text,
    customer_language text,
    address text,
    door_note text,
    items text,
    ready_at timestamptz,
    scheduled_for timestamptz,
    promised_from timestamptz,
    promised_to timestamptz,
    contact_rule contact_rule NOT NULL DEFAULT 'none',
    pin_sha256 bytea CHECK (octet_length(pin_sha256) = 32),  -- of order_id, ':' and the PIN
    search tsvector NOT NULL,  -- the words of the texts above, and of orders.customer_name
    -- The restaurant has set ready_at: when it did so last, and what the order said before.
    ready_set_at timestamptz,
    ordered_ready_at timestamptz,
    -- The customer has changed door_note: likewise.
    door_note_set_at timestamptz,
    ordered_door_note text,
    CONSTRAINT promised_window CHECK (promised_to >= promised_from)
);
CREATE UNIQUE INDEX order_detail_external_id ON order_detail (created_by, external_id)
WHERE external_id IS NOT NULL;
CREATE INDEX order_detail_search ON order_detail USING gin (search);

-- The first time at which an order is due; a search assumes the last one within 2 days of it. A
-- GiST index of ranges costs each insertion 70 µs more.
CREATE INDEX order_detail_due ON order_detail
(least(ready_at, scheduled_for, promised_from, promised_to))
WHERE coalesce(ready_at, scheduled_for, promised_from, promised_to) IS NOT NULL;

-- One attempt to deliver an order with one driver. Fixes of [assigned_at, ended_at) count.
CREATE TABLE assignment (
    order_id uuid NOT NULL REFERENCES orders,
    assignment_no int NOT NULL CHECK (assignment_no > 0),
    driver_id text COLLATE "C" NOT NULL REFERENCES driver,
    assigned_at timestamptz NOT NULL,
    ended_at timestamptz CHECK (ended_at >= assigned_at),
    ended_by order_verb,
    policy_id int NOT NULL REFERENCES policy,
    -- Copies of the two places and of the evidence so far, so that a fix needs one look-up.
    restaurant_lon_deg float8 NOT NULL,
    restaurant_lat_deg float8 NOT NULL,
    customer_lon_deg float8 NOT NULL,
    customer_lat_deg float8 NOT NULL,
    at_restaurant_at timestamptz,
    left_restaurant_at timestamptz,  -- picked_up by GPS
    picked_up_at timestamptz,  -- the earliest of all sources
    arriving_at timestamptz,
    at_customer_at timestamptz,
    -- When the customer may see the driver, which is when this was the next stop; the triggers of
    -- 62_visibility_triggers.sql derive it.
    visible tstzmultirange NOT NULL DEFAULT '{}',
    stop_no int,  -- place in the sequence of the driver's open assignments, from 1
    PRIMARY KEY (order_id, assignment_no),
    CONSTRAINT assignment_has_stop CHECK ((stop_no IS NULL) = (ended_at IS NOT NULL)),
    CONSTRAINT assignment_stop EXCLUDE (driver_id WITH =, stop_no WITH =)
    WHERE (ended_at IS NULL) DEFERRABLE INITIALLY DEFERRED  -- renumbering moves through duplicates
) WITH (fillfactor = 70);
CREATE INDEX assignment_to_forget ON assignment (ended_at) WHERE driver_id <> 'forgotten';
-- No two assignments of a driver begin at one instant.
CREATE UNIQUE INDEX assignment_window ON assignment (driver_id, assigned_at);

CREATE TABLE order_command (
    order_command_id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    order_id uuid NOT NULL REFERENCES orders,
    command order_verb NOT NULL,
    actor actor NOT NULL,
    actor_id text NOT NULL,
    driver_id text COLLATE "C" REFERENCES driver,  -- the driver that assign or reassign chose
    from_state order_state NOT NULL,
    to_state order_state NOT NULL,
    assignment_no int NOT NULL,  -- of to_state
    idempotency_key text,
    commanded_at timestamptz NOT NULL,
    failure_reason failure_reason,  -- of fail
    note text,
    -- What the request named, to compare with a repeat. Null in a command of an earlier release.
    is_driver_named bool,
    stop_no int,
    UNIQUE (order_id, actor, actor_id, idempotency_key)
);
CREATE INDEX order_command_order ON order_command (order_id, assignment_no, command);

-- What fixes prove, independent of commands. While the assignment is open, rows are only added and
-- occurred_at only moves earlier. The command that ends the assignment also ends its window:
-- evidence from fixes dated after that instant (a phone's clock may be 120 s fast) is removed once,
-- then.
CREATE TABLE evidence (
    order_id uuid NOT NULL,
    assignment_no int NOT NULL,
    state order_state NOT NULL
        CHECK (state IN ('at_restaurant', 'picked_up', 'arriving', 'at_customer')),
    source state_source NOT NULL DEFAULT 'gps',
    occurred_at timestamptz NOT NULL,  -- the earliest proved instant
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

-- All legal transitions. A trigger rejects any other, for every role.
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

-- The current state of each order, with its open assignment.
CREATE VIEW order_now AS
SELECT
    o.order_id, o.state, o.assignment_no, a.driver_id, o.order_seq, o.restaurant_id,
    o.lon_deg, o.lat_deg, o.customer_name, o.policy_id, o.created_at, a.assigned_at, o.ended_at
FROM orders o
LEFT JOIN assignment a
    ON a.order_id = o.order_id AND a.assignment_no = o.assignment_no AND a.ended_at IS NULL;

-- The same with the details that staff sees.
CREATE VIEW order_with_details AS
SELECT n.*, jsonb_build_object(
    'external_id', d.external_id, 'customer_phone', d.customer_phone,
    'customer_language', d.customer_language, 'address', d.address, 'door_note', d.door_note,
    'items', d.items, 'ready_at', d.ready_at, 'scheduled_for', d.scheduled_for,
    'promised_from', d.promised_from, 'promised_to', d.promised_to,
    'contact_rule', coalesce(d.contact_rule, 'none'), 'has_pin', d.pin_sha256 IS NOT NULL,
    'pickup', CASE WHEN r.is_ad_hoc THEN jsonb_build_object(
        'name', r.name, 'address', r.address, 'lon_deg', r.lon_deg, 'lat_deg', r.lat_deg,
        'phone', r.phone) END,
    'failure', (  -- a look-up per row that is returned
        SELECT jsonb_build_object('reason', c.failure_reason, 'note', c.note)
        FROM order_command c
        WHERE c.order_id = n.order_id AND c.command = 'fail' AND c.failure_reason IS NOT NULL
    )
) AS details
FROM order_now n
-- OFFSET 0 forces look-ups by key, however many orders the planner expects
CROSS JOIN LATERAL (
    SELECT * FROM restaurant t WHERE t.restaurant_id = n.restaurant_id OFFSET 0
) r
LEFT JOIN LATERAL (SELECT * FROM order_detail t WHERE t.order_id = n.order_id OFFSET 0) d ON true;
