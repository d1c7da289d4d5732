-- Distances, grid cells and timestamps as text. SQL functions that the planner inlines.

-- Metres between two places in one city, on a plane that touches the sphere halfway: within 0.1 %
-- of the great-circle distance up to 10 km, below 80 degrees of latitude. Exactly symmetric,
-- because evidence must not depend on the order of two fixes. 111195.0797 m is one degree of
-- PostGIS's sphere (radius 6371008.7714 m). Longitudes differ by the short way round.
CREATE FUNCTION ground_distance_m(
    lon_deg float8, lat_deg float8, at_lon_deg float8, at_lat_deg float8
)
RETURNS float8 LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 111195.0797 * sqrt(
    ((lon_deg - at_lon_deg - 360 * round((lon_deg - at_lon_deg) / 360))
            * cosd((lat_deg + at_lat_deg) / 2))
        * ((lon_deg - at_lon_deg - 360 * round((lon_deg - at_lon_deg) / 360))
            * cosd((lat_deg + at_lat_deg) / 2))
    + (lat_deg - at_lat_deg) * (lat_deg - at_lat_deg)
);

-- Whether a place is in a box, whose west is above its east where it crosses 180 degrees.
CREATE FUNCTION is_in_box(
    lon_deg float8, lat_deg float8, west float8, south float8, east float8, north float8
)
RETURNS bool LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN lat_deg BETWEEN south AND north AND CASE WHEN west <= east
    THEN lon_deg BETWEEN west AND east ELSE lon_deg >= west OR lon_deg <= east END;

-- The grid cell of a place, 0.01 x 0.01 degrees (1.1 km from north to south): row * 36000 + column.
CREATE FUNCTION cell_of(lon_deg float8, lat_deg float8)
RETURNS int4 LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (floor(lat_deg * 100)::int4 + 9000) * 36000
    + least(floor(lon_deg * 100)::int4 + 18000, 35999);

-- A timestamp in the format of the contracts: RFC 3339, UTC, milliseconds.
CREATE FUNCTION instant_text(at timestamptz)
RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
RETURN to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"');
