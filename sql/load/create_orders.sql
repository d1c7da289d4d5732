-- Creates orders, each with a customer token, as the staff API does.
SELECT
    o.place,
    c.order_id
FROM unnest(
    %(restaurant_ids)s::int[], %(lon_degs)s::float8[], %(lat_degs)s::float8[],
    %(token_sha256s)s::bytea[]
) WITH ORDINALITY AS o (restaurant_id, lon_deg, lat_deg, token_sha256, place)
CROSS JOIN LATERAL create_order_v2(
    o.restaurant_id, o.lon_deg, o.lat_deg, o.token_sha256, NULL, NULL, NULL, NULL
) AS c
ORDER BY o.place
