-- Applies one command to many orders. `driver_ids` are the drivers to assign, or nulls.
SELECT count(*)
FROM unnest(%(order_ids)s::uuid[], %(driver_ids)s::text[]) AS o (order_id, driver_id)
CROSS JOIN LATERAL apply_order_command_v1(
    o.order_id, %(command)s, 'staff', 'load', o.driver_id, NULL
) AS c
