-- The statements of a device's journal (SQLite), by name. The table `life` holds the boots: its name
-- and that of its key are kept, so that existing journals can be read.

-- create_tables --
CREATE TABLE IF NOT EXISTS life (
    life_id INTEGER PRIMARY KEY,
    driver_id TEXT NOT NULL,
    boot TEXT NOT NULL,
    last_seq INTEGER NOT NULL DEFAULT 0,
    UNIQUE (driver_id, boot)
);
CREATE TABLE IF NOT EXISTS fix (
    life_id INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    payload BLOB NOT NULL,
    PRIMARY KEY (life_id, seq)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS void_span (
    life_id INTEGER NOT NULL,
    -- The key's columns come first: otherwise SQLite 3.40's quick_check reports a NULL by mistake.
    last_seq INTEGER NOT NULL,
    first_seq INTEGER NOT NULL,
    PRIMARY KEY (life_id, last_seq)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS note (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

-- newest_boot --
SELECT life_id, driver_id, boot, last_seq FROM life WHERE driver_id = ? ORDER BY life_id DESC LIMIT 1;

-- add_boot --
INSERT INTO life (driver_id, boot) VALUES (?, ?);

-- add_fix --
INSERT INTO fix (life_id, seq, payload) VALUES (?, ?, ?);

-- advance_boot --
UPDATE life SET last_seq = ? WHERE life_id = ?;

-- pending_after --
SELECT seq, payload FROM fix WHERE life_id = ? AND seq > ? ORDER BY seq LIMIT ?;

-- pending_between --
SELECT seq, payload FROM fix WHERE life_id = ? AND seq BETWEEN ? AND ? ORDER BY seq LIMIT ?;

-- last_pending --
SELECT seq, payload FROM fix WHERE life_id = ? AND seq <= ? ORDER BY seq DESC LIMIT 1;

-- count_pending --
SELECT life_id, count(*) FROM fix GROUP BY life_id;

-- delete_between --
DELETE FROM fix WHERE life_id = ? AND seq BETWEEN ? AND ?;

-- extend_void --
UPDATE void_span SET last_seq = last_seq + 1 WHERE life_id = ? AND last_seq = ?;

-- add_void --
INSERT INTO void_span (life_id, first_seq, last_seq) VALUES (?, ?, ?);

-- has_void --
SELECT 1 FROM void_span WHERE life_id = ? AND last_seq >= ? AND first_seq <= ? LIMIT 1;

-- count_voids --
SELECT coalesce(sum(last_seq - first_seq + 1), 0) FROM void_span WHERE life_id = ?;

-- set_note --
INSERT INTO note (name, value) VALUES (?, ?)
ON CONFLICT (name) DO UPDATE SET value = excluded.value;

-- all_notes --
SELECT name, value FROM note;

-- has_tables --
SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name IN ('life', 'fix', 'void_span');

-- published_boots --
SELECT
    life.driver_id,
    life.boot,
    life.last_seq,
    (SELECT count(*) FROM fix WHERE fix.life_id = life.life_id) AS pending,
    (
        SELECT coalesce(sum(v.last_seq - v.first_seq + 1), 0) FROM void_span AS v
        WHERE v.life_id = life.life_id
    ) AS voids
FROM life
WHERE life.last_seq > 0
ORDER BY life.driver_id, life.life_id;

-- seq_in_boots --
SELECT
    life.boot,
    life.last_seq,
    EXISTS (SELECT 1 FROM fix WHERE fix.life_id = life.life_id AND fix.seq = :seq),
    EXISTS (
        SELECT 1 FROM void_span AS v
        WHERE v.life_id = life.life_id AND :seq BETWEEN v.first_seq AND v.last_seq
    )
FROM life
WHERE life.driver_id = :driver_id
ORDER BY life.life_id DESC;
