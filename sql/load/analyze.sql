-- What autovacuum would do within a minute: plans made for empty tables are made anew.
ANALYZE doorstep.driver, doorstep.driver_state, doorstep.orders, doorstep.assignment,
doorstep.order_command, doorstep.order_event, doorstep.access_token, doorstep.evidence
