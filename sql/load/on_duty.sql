-- Puts all drivers without an order on duty at once, with the same result as one command per
-- driver.
UPDATE doorstep.driver_state SET duty = 'on_duty', state = 'available'
WHERE driver_id = ANY (%(driver_ids)s) AND order_id IS NULL
