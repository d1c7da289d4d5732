-- Drivers, their current state and position, and the seqs stored per boot.

CREATE TABLE driver (
    driver_id text COLLATE "C" PRIMARY KEY CHECK (driver_id ~ '^[A-Za-z0-9_-]{1,64}$'),
    name text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- One row per driver, updated by every batch. Half of each page stays free and no changing column
-- is indexed, so that every update is HOT. hot_padding makes a new row as long as a filled one:
-- otherwise a page takes more new rows than it can hold once they have grown.
CREATE TABLE driver_state (
    driver_id text COLLATE "C" PRIMARY KEY REFERENCES driver,
    duty driver_duty NOT NULL DEFAULT 'off_duty',
    state driver_status NOT NULL DEFAULT 'off_duty',
    order_id uuid,  -- of the open assignment
    -- The newest fix that is not quarantined, by (fix_at, boot, seq); null before the first.
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
    -- As long as the columns that the first fix fills; null from then on.
    hot_padding bytea DEFAULT decode(repeat('00', 136), 'hex')
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.5);
-- A batch looks up each driver twice. A hash index reads one page where the primary key reads
-- three.
CREATE INDEX driver_state_driver ON driver_state USING hash (driver_id);

-- For the nearest-driver search. Written only when the newest fix of a driver is in another cell.
CREATE TABLE driver_cell (
    driver_id text COLLATE "C" PRIMARY KEY REFERENCES driver,
    cell int4 NOT NULL
);
CREATE INDEX driver_cell_cell ON driver_cell (cell, driver_id);

-- The sequence numbers of a boot that are stored or finally rejected. They tell new fixes from
-- copies, and yield the watermark and its gaps.
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
