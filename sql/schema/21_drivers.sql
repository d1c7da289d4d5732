-- Drivers, where they are, and what of their fixes is stored.

CREATE TABLE driver (
    driver_id text COLLATE "C" PRIMARY KEY CHECK (driver_id ~ '^[A-Za-z0-9_-]{1,64}$'),
    name text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- One row per driver, rewritten with every batch. Half of each page is kept free and no column
-- that changes is indexed, so that every update stays on its page (HOT). For that a row is as long
-- when it is made as later: of short ones, a page would hold more than it can once they have grown.
CREATE TABLE driver_state (
    driver_id text COLLATE "C" PRIMARY KEY REFERENCES driver,
    duty driver_duty NOT NULL DEFAULT 'off_duty',
    state driver_status NOT NULL DEFAULT 'off_duty',
    order_id uuid,  -- the open assignment's
    -- the newest fix that is not in quarantine, by (fix_at, boot, seq); null before the first
    fix_at timestamptz,
    received_at timestamptz,
    lon_deg float8,
    lat_deg float8,
    accuracy_m float8,
    speed_mps float8,
    heading_deg float8,
    altitude_m float8,
    battery float8,
    boot text COLLATE "C",
    seq int8,
    geom geometry(Point, 4326),
    cell int4,
    -- as long as what the first fix will fill; null from then on
    room bytea DEFAULT decode(repeat('00', 136), 'hex')
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.5);
-- A batch looks each driver up twice, and a hash takes a page where the primary key takes three.
CREATE INDEX driver_state_driver ON driver_state USING hash (driver_id);

-- Nearest-driver search: written only when a driver's newest fix is in another cell.
CREATE TABLE driver_cell (
    driver_id text COLLATE "C" PRIMARY KEY REFERENCES driver,
    cell int4 NOT NULL
);
CREATE INDEX driver_cell_cell ON driver_cell (cell, driver_id);

-- Which sequence numbers of a boot are stored or refused for good: decides new or seen, and
-- gives the watermark and its gaps.
CREATE TABLE driver_boot (
    driver_id text COLLATE "C" NOT NULL REFERENCES driver,
    boot text COLLATE "C" NOT NULL,
    stored int8multirange NOT NULL DEFAULT '{}',
    rejected int8multirange NOT NULL DEFAULT '{}',
    PRIMARY KEY (driver_id, boot)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.5);

CREATE TABLE driver_command (
    driver_command_id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    driver_id text COLLATE "C" NOT NULL REFERENCES driver,
    command driver_verb NOT NULL,
    actor actor NOT NULL,
    from_state driver_status NOT NULL,
    to_state driver_status NOT NULL,
    idempotency_key text,
    commanded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (driver_id, idempotency_key)
);
