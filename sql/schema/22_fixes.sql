-- The history of fixes, and parked fixes.

-- Append-only, one partition per UTC day of fix_at. A fix without boot and seq is stored with boot
-- '' and a hash of its place as seq, so that the primary key identifies it too. Places are plain
-- checked columns, because `geography` would fold a latitude of 190 to -10. Each upper bound also
-- excludes NaN, which PostgreSQL sorts above every number.
CREATE TABLE fix_history (
    driver_id text COLLATE "C" NOT NULL,
    fix_at timestamptz NOT NULL,
    boot text COLLATE "C" NOT NULL,
    seq int8 NOT NULL,
    received_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    lon_deg float8 NOT NULL CHECK (lon_deg BETWEEN -180 AND 180),
    lat_deg float8 NOT NULL CHECK (lat_deg BETWEEN -90 AND 90),
    accuracy_m float8 CHECK (accuracy_m BETWEEN 0 AND 1000000),
    speed_mps float8 CHECK (speed_mps BETWEEN 0 AND 500),
    heading_deg float8 CHECK (heading_deg >= 0 AND heading_deg < 360),
    altitude_m float8 CHECK (altitude_m BETWEEN -1000 AND 20000),
    battery float8 CHECK (battery BETWEEN 0 AND 1),
    quarantine text,  -- null_island, swapped, inaccurate: stored, but never evidence
    PRIMARY KEY (driver_id, fix_at, boot, seq)
) PARTITION BY RANGE (fix_at);

-- Takes the fixes of days that have no partition yet.
CREATE TABLE fix_history_default PARTITION OF fix_history DEFAULT;

-- Fixes whose driver or order row was locked, and fixes over a driver's quota. Acknowledged
-- only once they are recorded. `content` is a hash of a fix over the quota, of which one copy is
-- kept, with the least received_at. It is null for the others: a batch must not wait for a
-- transaction that holds a driver's row, as a unique key could make it.
CREATE TABLE parked_fix (
    parked_id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    parked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    driver_id text COLLATE "C" NOT NULL,
    boot text COLLATE "C",
    seq int8,
    fix_at timestamptz,
    received_at timestamptz,
    lon_deg float8,
    lat_deg float8,
    accuracy_m float8,
    speed_mps float8,
    heading_deg float8,
    altitude_m float8,
    battery float8,
    reason text,
    content int8,
    UNIQUE (driver_id, boot, seq, content)
);
CREATE INDEX parked_fix_driver ON parked_fix (driver_id);
CREATE INDEX parked_fix_excess ON parked_fix (driver_id, parked_id) WHERE content IS NOT NULL;
CREATE INDEX parked_fix_locked ON parked_fix (parked_id) WHERE content IS NULL;
