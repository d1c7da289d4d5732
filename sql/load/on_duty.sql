-- Puts drivers on duty who have no order, all at once: the state that their own commands, one by
-- one, would bring them to.
UPDATE doorstep.driver_state SET duty = 'on_duty', state = 'available'
WHERE driver_id = ANY(%(driver_ids)s) AND order_id IS NULL
