-- The types of the state machines. The order of the values is their rank: within one assignment an
-- order only moves to a higher rank.

CREATE TYPE order_state AS ENUM (
    'created',        -- POST /orders
    'confirmed',      -- created -> confirmed: confirm; assigned, at_restaurant -> ...: decline
    'assigned',       -- confirmed -> assigned: assign; assigned, at_restaurant -> ...: reassign
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

CREATE TYPE offer_outcome AS ENUM (
    'accepted',   -- open -> accepted: the driver accepts, which assigns the order
    'declined',   -- open -> declined: the driver declines
    'expired',    -- open -> expired: policy.offer_s have passed
    'withdrawn'   -- open -> withdrawn: the order is assigned or cancelled, or the driver is busy
);

-- How the courier may reach the customer: whether the phone number is shown, and for what.
CREATE TYPE contact_rule AS ENUM ('none', 'call', 'text', 'any');

CREATE TYPE failure_reason AS ENUM (
    'customer_absent', 'wrong_address', 'refused', 'damaged', 'accident', 'other'
);

CREATE TYPE driver_duty AS ENUM ('off_duty', 'on_duty', 'on_break');

CREATE TYPE driver_verb AS ENUM ('on_duty', 'on_break', 'off_duty');

CREATE TYPE driver_status AS ENUM (
    'off_duty',       -- available, on_break -> off_duty: off_duty
    'available',      -- off_duty, on_break -> available: on_duty; or the order ends
    'to_restaurant',  -- the order of the next stop is assigned
    'at_restaurant',  -- ... is at_restaurant
    'to_customer',    -- ... is picked_up or arriving
    'at_customer',    -- ... is at_customer
    'on_break'        -- available -> on_break: on_break
);

-- What the job for notices decides of an order; 57_notices.sql has the rules.
CREATE TYPE notice_kind AS ENUM ('late', 'nearby');

CREATE TYPE alert_kind AS ENUM (
    'late',         -- an open order with the notice
    'lost',         -- the driver of an open order is silent for limits.lost_alert_s
    'unassigned',   -- confirmed for limits.unassigned_alert_s
    'over_quota',   -- a driver has parked fixes
    'webhook_off'   -- a webhook that kept failing, or answered 410, was switched off
);

CREATE TYPE webhook_off_reason AS ENUM ('admin', 'failing', 'gone');

CREATE TYPE delivery_outcome AS ENUM (
    'delivered',  -- pending -> delivered: an answer of 2xx
    'failed'      -- pending -> failed: no such answer for a day
);

-- What made a state of an order visible: GPS evidence, or a command of an actor.
CREATE TYPE state_source AS ENUM ('gps', 'staff', 'driver', 'customer');

CREATE TYPE token_role AS ENUM ('staff', 'driver', 'customer');

CREATE TYPE staff_role AS ENUM (
    'viewer',       -- reads
    'dispatcher',   -- reads, and commands orders and drivers
    'admin',        -- everything, with policies, staff and credentials
    'restaurant',   -- the orders of one restaurant, through 57_restaurants.sql alone
    'integration'   -- no route accepts it yet
);

CREATE TYPE device_kind AS ENUM ('driver', 'source');

-- The outcome of an incoming fix that was not committed without remark.
CREATE TYPE fix_outcome AS (n int4, outcome text, reason text);

-- A seq that is now stored, or rejected for good.
CREATE TYPE settled_seq AS (driver_id text, boot text, seq int8, is_stored bool);

CREATE TYPE driver_distance AS (driver_id text, distance_m float8);

-- What create_order_v3 takes of an order besides its places, as JSON: a row of order_detail.
CREATE TYPE order_details AS (
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
    contact_rule contact_rule,
    pin text
);
