-- Clocks of phones, and the first arrival of fixes. record_fixes_v1 calls these functions only for
-- batches that need them. The driver rows are locked.

-- Records how far fixes of incoming_fix are ahead of their arrival, including rejected ones.
CREATE FUNCTION driver_clock__learn()
RETURNS void LANGUAGE sql
AS $$
    INSERT INTO driver_clock AS known (driver_id, boot, hour, lead)
    SELECT a.driver_id, a.boot, a.hour, a.lead
    FROM (
        SELECT i.driver_id, CASE WHEN i.seq IS NULL THEN '' ELSE i.boot END AS boot,
            date_trunc('hour', i.received_at, 'UTC') AS hour, max(i.fix_at - i.received_at) AS lead
        FROM pg_temp.incoming_fix i
        WHERE i.fix_at > i.received_at + interval '0.5 s'
            AND (i.seq IS NULL OR (i.boot <> '' AND i.seq BETWEEN 1 AND 4611686018427387904))
        GROUP BY 1, 2, 3
    ) a
    WHERE NOT EXISTS (  -- avoids locking the row of a lead that is recorded already
        SELECT FROM driver_clock k
        WHERE k.driver_id = a.driver_id AND k.boot = a.boot AND k.hour = a.hour
            AND k.lead >= a.lead
    )
    ON CONFLICT (driver_id, boot, hour) DO UPDATE SET lead = EXCLUDED.lead
        WHERE known.lead < EXCLUDED.lead
$$;

-- Lowers received_at to the least of the accepted copies, in whatever order they are recorded.
-- `outcomes` are those of incoming_fix.
CREATE FUNCTION fix_history__keep_first_arrival(
    outcomes fix_outcome[], future interval, lateness interval, sealed timestamptz,
    off_duty int[]
)
RETURNS void LANGUAGE plpgsql
AS $$
BEGIN
    WITH earlier AS MATERIALIZED (
        SELECT h.driver_id, h.fix_at, h.boot, h.seq, min(i.received_at) AS received_at
        FROM unnest(outcomes) o
        JOIN pg_temp.incoming_fix i ON i.n = o.n
        CROSS JOIN LATERAL (
            SELECT * FROM fix_history k
            WHERE k.driver_id = i.driver_id AND k.fix_at = i.fix_at
                AND k.boot = CASE WHEN i.seq IS NULL THEN '' ELSE i.boot END
                AND k.seq = coalesce(i.seq, hashtextextended(
                    (i.lon_deg + 0.0)::text || ' ' || (i.lat_deg + 0.0)::text, 0
                ) & 9223372036854775807)
                AND k.received_at > i.received_at
            OFFSET 0
        ) h
        WHERE o.outcome = 'duplicate'
            AND i.fix_at <= i.received_at + future AND i.fix_at >= i.received_at - lateness
            AND i.fix_at >= sealed
            AND (off_duty IS NULL OR i.n <> ALL (off_duty))
        GROUP BY h.driver_id, h.fix_at, h.boot, h.seq
    ),
    newest AS (
        UPDATE driver_state d SET received_at = e.received_at
        FROM earlier e
        WHERE d.driver_id = e.driver_id AND d.fix_at = e.fix_at AND d.boot = e.boot
            AND d.seq = e.seq
    )
    UPDATE fix_history h SET received_at = e.received_at
    FROM earlier e
    WHERE h.driver_id = e.driver_id AND h.fix_at = e.fix_at AND h.boot = e.boot AND h.seq = e.seq;
END
$$;
