-- Refreshes statistics at once, as autovacuum would within a minute.
ANALYZE doorstep.driver, doorstep.driver_state, doorstep.orders, doorstep.assignment,
doorstep.order_command, doorstep.order_event, doorstep.access_token, doorstep.evidence
