-- Refreshes statistics at once, as autovacuum would within a minute, so that plans made for empty
-- tables are replaced.
ANALYZE doorstep.driver, doorstep.driver_state, doorstep.orders, doorstep.assignment,
doorstep.order_command, doorstep.order_event, doorstep.access_token, doorstep.evidence
