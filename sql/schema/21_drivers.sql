-- Drivers, their current state and position, and which seqs of a boot are stored or rejected.

CREATE TABLE driver (
    driver_id text COLLATE "C" PRIMARY KEY CHECK (driver_id ~ '^[A-Za-z0-9_-]{1,64}$'),
    name text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    vehicle text CHECK (vehicle IN ('bicycle', 'cargo_bike', 'moped', 'car', 'van', 'foot')),
    phone text
);

-- One row per driver, updated by every batch. Half of each page stays free and no changing column
-- is indexed, so that every update is HOT. hot_padding makes a new row as long as a filled one:
-- otherwise a page takes more new rows than it can hold once they have grown.
CREATE TABLE driver_state (
    driver_id text COLLATE "C" PRIMARY KEY REFERENCES driver,
    duty driver_duty NOT NULL DEFAULT 'off_duty',
    state driver_status NOT NULL DEFAULT 'off_duty',
    order_id uuid,  -- of the next stop
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
    hot_padding bytea DEFAULT decode(repeat('00', 152), 'hex'),
    -- When limits.quota_per_s covers all that the driver has sent, copies included: at most
    -- limits.quota_burst fixes ahead of their arrival. Null before the first.
    quota_at timestamptz,
    -- No fix taken from this instant on was taken off duty: since when the driver has not been off
    -- duty; infinity while off duty; null if never off duty by a command.
    kept_from timestamptz,
    -- If not null: all seqs of `boot` up to it are settled and none beyond, whatever boot_seqs says
    -- of that boot. So the next fix of the boot writes this row alone (record_fixes__continue).
    settled_to int8,
    -- True if the newest fix came to be in another cell by record_fixes__continue; for its own use.
    is_in_new_cell bool
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.5);
-- A batch looks up each driver. A hash index reads one page where the primary key reads three.
CREATE INDEX driver_state_driver ON driver_state USING hash (driver_id);

-- For the nearest-driver search. Written only when the newest fix of a driver is in another cell.
CREATE TABLE driver_cell (
    driver_id text COLLATE "C" PRIMARY KEY REFERENCES driver,
    cell int4 NOT NULL
);
CREATE INDEX driver_cell_cell ON driver_cell (cell, driver_id);

-- Which seqs of a boot are stored or finally rejected ("settled"): all up to settled_to, and those
-- with a bit in a block beyond. At or below settled_to a seq without a rejected bit is stored. If
-- settled_to = newest_seq, no block has a bit beyond, and the next seq needs no look at the blocks.
-- driver_state.settled_to takes precedence: see the view boot_prefix.
CREATE TABLE boot_seqs (
    driver_id text COLLATE "C" NOT NULL REFERENCES driver,
    boot text COLLATE "C" NOT NULL,
    settled_to int8 NOT NULL,
    newest_seq int8 NOT NULL CHECK (newest_seq >= settled_to),
    held int8,  -- fixes dropped beyond limits.max_parked, copies included; null: none
    settled_at timestamptz NOT NULL DEFAULT now(),  -- by our clock, when it was last written
    PRIMARY KEY (driver_id, boot)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.5);

-- 2,048 seqs of a boot: bit k of a bitmap stands for seq 2048 * block_no + k. Null is a bitmap
-- without bits. A block ends when settled_to has passed it and it has no rejected bit. A bitmap
-- with few bits is as long as a full one (312 bytes a row): the worst that a device can do, one fix
-- in each block, doubles the bytes of its history for three days, within its quota.
CREATE TABLE boot_seq_block (
    driver_id text COLLATE "C" NOT NULL,
    boot text COLLATE "C" NOT NULL,
    block_no int8 NOT NULL,
    stored bit(2048),
    rejected bit(2048),
    PRIMARY KEY (driver_id, boot, block_no)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.5);

-- Drivers with fixes over their quota: how many are parked, and when some were last recorded.
-- Written only with the driver's row locked.
CREATE TABLE driver_quota (
    driver_id text COLLATE "C" PRIMARY KEY REFERENCES driver,
    parked int NOT NULL CHECK (parked > 0),
    drained_at timestamptz NOT NULL
);

CREATE TABLE driver_command (
    driver_command_id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    driver_id text COLLATE "C" NOT NULL REFERENCES driver,
    command driver_verb NOT NULL,
    actor actor NOT NULL,
    from_state driver_status NOT NULL,
    to_state driver_status NOT NULL,
    idempotency_key text,
    commanded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (driver_id, actor, idempotency_key)
);
CREATE INDEX driver_command_at ON driver_command (driver_id, commanded_at, driver_command_id);
CREATE INDEX driver_command_age ON driver_command USING brin (commanded_at);
