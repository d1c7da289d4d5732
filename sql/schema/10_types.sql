-- The words of the state machines. The order of the values is their rank: within one assignment
-- an order only ever moves to a later one.

CREATE TYPE order_state AS ENUM (
    'created',        -- POST /orders
    'confirmed',      -- created -> confirmed: confirm; assigned, at_restaurant -> confirmed: decline
    'assigned',       -- confirmed -> assigned: assign; assigned, at_restaurant -> assigned: reassign
    'at_restaurant',  -- assigned -> at_restaurant: dwell inside the enter radius (evidence)
    'picked_up',      -- at_restaurant -> picked_up: beyond the leave radius; or pick_up
    'arriving',       -- picked_up -> arriving: inside the arriving radius (evidence)
    'at_customer',    -- arriving -> at_customer: dwell inside the enter radius (evidence)
    'delivered',      -- picked_up, arriving, at_customer -> delivered: deliver
    'cancelled',      -- created .. at_restaurant -> cancelled; staff: up to at_customer
    'failed'          -- picked_up, arriving, at_customer -> failed: fail
);

CREATE TYPE order_verb AS ENUM (
    'confirm', 'assign', 'decline', 'reassign', 'pick_up', 'deliver', 'cancel', 'fail'
);

CREATE TYPE actor AS ENUM ('staff', 'driver', 'customer');

CREATE TYPE driver_duty AS ENUM ('off_duty', 'on_duty', 'on_break');

CREATE TYPE driver_verb AS ENUM ('on_duty', 'on_break', 'off_duty');

CREATE TYPE driver_status AS ENUM (
    'off_duty',       -- available, on_break -> off_duty: off_duty
    'available',      -- off_duty, on_break -> available: on_duty; and at the end of an order
    'to_restaurant',  -- the open assignment's order is assigned
    'at_restaurant',  -- ... at_restaurant
    'to_customer',    -- ... picked_up or arriving
    'at_customer',    -- ... at_customer
    'on_break'        -- available -> on_break: on_break
);

-- How a state of an order came to be visible: by what fixes prove, or by whose command.
CREATE TYPE state_source AS ENUM ('gps', 'staff', 'driver', 'customer');

CREATE TYPE token_role AS ENUM ('staff', 'driver', 'customer');

-- What became of one incoming fix that was not simply committed.
CREATE TYPE fix_outcome AS (n int4, outcome text, reason text);

CREATE TYPE driver_distance AS (driver_id text, distance_m float8);
