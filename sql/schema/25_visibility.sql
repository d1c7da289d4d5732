-- What decides which fixes a customer may see: docs/explanation/privacy.md.

-- How far the clocks of phones were ahead of the servers, at most, by the hour of received_at. boot
-- '' is for fixes without one. A lead of half a second or less is no row.
CREATE TABLE driver_clock (
    driver_id text COLLATE "C" NOT NULL REFERENCES driver,
    boot text COLLATE "C" NOT NULL,
    hour timestamptz NOT NULL,
    lead interval NOT NULL CHECK (lead > interval '0.5 s'),
    PRIMARY KEY (driver_id, boot, hour)
);

-- The open assignments of a driver, and those that ended since an instant.
CREATE INDEX assignment_until ON assignment (driver_id, coalesce(ended_at, 'infinity'));

-- The door of another customer, and when that order was the driver's.
CREATE TYPE other_door AS (
    lon_deg float8, lat_deg float8, assigned_at timestamptz, ended_at timestamptz
);

-- An assignment whose customer may look now, with what decides about each fix of its driver.
CREATE TYPE customer_view AS (
    order_id uuid,
    driver_id text,
    visible tstzmultirange,
    clocks_since timestamptz,  -- null if no clock of the driver is known to run ahead
    restaurant_lon_deg float8,
    restaurant_lat_deg float8,
    customer_lon_deg float8,
    customer_lat_deg float8,
    other_doors other_door[]
);
