-- Models for estimated times of arrival. Each version was learned from the history at one time.

CREATE TABLE eta_model (
    model_id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    learned_at timestamptz NOT NULL,
    rides int NOT NULL CHECK (rides > 0),
    crossing_s float8 NOT NULL CHECK (crossing_s >= 0),  -- delay at a crossing of larger streets
    arrival_s float8 NOT NULL CHECK (arrival_s >= 0),  -- from the street to the door
    wait_s float8[] NOT NULL CHECK (cardinality(wait_s) = 21),  -- at the restaurant: 0, 5, … 100 %
    -- couriers choose routes by speed limits or by learned speeds
    route_choice text NOT NULL CHECK (route_choice IN ('limits', 'speeds'))
);

CREATE TABLE street_speed (
    model_id int NOT NULL REFERENCES eta_model ON DELETE CASCADE,
    street_class text NOT NULL,
    hour int NOT NULL CHECK (hour BETWEEN 0 AND 23),  -- local time of the city
    mps float8 NOT NULL CHECK (mps > 0 AND mps < 100),
    metres float8 NOT NULL CHECK (metres >= 0),  -- distance observed; 0: the speed is a guess
    PRIMARY KEY (model_id, street_class, hour)
);

-- Ratio of actual to estimated time.
CREATE TABLE driver_pace (
    model_id int NOT NULL REFERENCES eta_model ON DELETE CASCADE,
    driver_id text COLLATE "C" NOT NULL REFERENCES driver,
    pace float8 NOT NULL CHECK (pace BETWEEN 0.1 AND 10),
    PRIMARY KEY (model_id, driver_id)
);

-- Three quantiles of the same ratio by estimated time, from deliveries outside the training set.
CREATE TABLE eta_band (
    model_id int NOT NULL REFERENCES eta_model ON DELETE CASCADE,
    phase text NOT NULL CHECK (phase IN ('to_restaurant', 'at_restaurant', 'to_customer')),
    up_to_s float8 NOT NULL CHECK (up_to_s > 0),
    p10 float8 NOT NULL CHECK (p10 >= 0),
    p50 float8 NOT NULL CHECK (p50 >= p10),
    p90 float8 NOT NULL CHECK (p90 >= p50),
    samples int NOT NULL CHECK (samples >= 0),  -- 0: the quantiles are a guess
    PRIMARY KEY (model_id, phase, up_to_s)
);

-- Adds a version and deletes all but the ten newest.
CREATE FUNCTION eta_model__add_v1(model jsonb)
RETURNS int LANGUAGE plpgsql
SET search_path = doorstep, public, pg_temp
AS $$
DECLARE
    new_model_id int;
BEGIN
    INSERT INTO eta_model (learned_at, rides, crossing_s, arrival_s, wait_s, route_choice)
    SELECT m.learned_at, m.rides, m.crossing_s, m.arrival_s, m.wait_s, m.route_choice
    FROM jsonb_to_record(model) AS m (learned_at timestamptz, rides int, crossing_s float8,
        arrival_s float8, wait_s float8[], route_choice text)
    RETURNING model_id INTO new_model_id;
    INSERT INTO street_speed
    SELECT new_model_id, s.* FROM jsonb_to_recordset(model -> 'street_speeds')
        AS s (street_class text, hour int, mps float8, metres float8);
    INSERT INTO driver_pace
    SELECT new_model_id, p.key, p.value::float8 FROM jsonb_each_text(model -> 'driver_pace') p
    JOIN driver d ON d.driver_id = p.key;
    INSERT INTO eta_band
    SELECT new_model_id, b.* FROM jsonb_to_recordset(model -> 'bands')
        AS b (phase text, up_to_s float8, p10 float8, p50 float8, p90 float8, samples int);
    DELETE FROM eta_model WHERE model_id <= new_model_id - 10;
    RETURN new_model_id;
END
$$;

-- Returns the newest version, unless it is known_model_id.
CREATE FUNCTION eta_model__read_v1(known_model_id int)
RETURNS jsonb LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
    SELECT to_jsonb(m) || jsonb_build_object(
        'street_speeds', (SELECT jsonb_agg(to_jsonb(s)) FROM street_speed s
            WHERE s.model_id = m.model_id),
        'driver_pace', (SELECT coalesce(jsonb_object_agg(p.driver_id, p.pace), '{}')
            FROM driver_pace p WHERE p.model_id = m.model_id),
        'bands', (SELECT coalesce(jsonb_agg(to_jsonb(b)), '[]') FROM eta_band b
            WHERE b.model_id = m.model_id))
    FROM (SELECT * FROM eta_model ORDER BY model_id DESC LIMIT 1) m
    WHERE m.model_id <> known_model_id
$$;
