-- Puts drivers on duty, each by their own command.
SELECT count(*)
FROM unnest(%(driver_ids)s::text []) AS d (driver_id)
CROSS JOIN LATERAL apply_driver_command_v1(d.driver_id, 'on_duty', 'driver', NULL) AS c
