-- The legal transitions, the default policy and the single-row tables. sql/README.md has the same
-- matrix.

INSERT INTO policy (policy_id, name) VALUES (1, 'default');
INSERT INTO policy_status (policy_id, is_default) VALUES (1, true);
INSERT INTO limits DEFAULT VALUES;
INSERT INTO history_bounds DEFAULT VALUES;

INSERT INTO order_transition (from_state, to_state, via, command, actor) VALUES
    ('created', 'confirmed', 'command', 'confirm', 'staff'),

    ('confirmed', 'assigned', 'command', 'assign', 'staff'),

    ('assigned', 'confirmed', 'command', 'decline', 'driver'),
    ('at_restaurant', 'confirmed', 'command', 'decline', 'driver'),

    ('assigned', 'assigned', 'command', 'reassign', 'staff'),
    ('at_restaurant', 'assigned', 'command', 'reassign', 'staff'),

    ('assigned', 'picked_up', 'command', 'pick_up', 'driver'),
    ('assigned', 'picked_up', 'command', 'pick_up', 'staff'),
    ('at_restaurant', 'picked_up', 'command', 'pick_up', 'driver'),
    ('at_restaurant', 'picked_up', 'command', 'pick_up', 'staff'),
    -- GPS may prove the pick-up before the command: the command is recorded, the state stays.
    ('picked_up', 'picked_up', 'command', 'pick_up', 'driver'),
    ('picked_up', 'picked_up', 'command', 'pick_up', 'staff'),
    ('arriving', 'arriving', 'command', 'pick_up', 'driver'),
    ('arriving', 'arriving', 'command', 'pick_up', 'staff'),
    ('at_customer', 'at_customer', 'command', 'pick_up', 'driver'),
    ('at_customer', 'at_customer', 'command', 'pick_up', 'staff'),

    ('picked_up', 'delivered', 'command', 'deliver', 'driver'),
    ('picked_up', 'delivered', 'command', 'deliver', 'staff'),
    ('arriving', 'delivered', 'command', 'deliver', 'driver'),
    ('arriving', 'delivered', 'command', 'deliver', 'staff'),
    ('at_customer', 'delivered', 'command', 'deliver', 'driver'),
    ('at_customer', 'delivered', 'command', 'deliver', 'staff'),

    ('picked_up', 'failed', 'command', 'fail', 'driver'),
    ('picked_up', 'failed', 'command', 'fail', 'staff'),
    ('arriving', 'failed', 'command', 'fail', 'driver'),
    ('arriving', 'failed', 'command', 'fail', 'staff'),
    ('at_customer', 'failed', 'command', 'fail', 'driver'),
    ('at_customer', 'failed', 'command', 'fail', 'staff'),

    ('created', 'cancelled', 'command', 'cancel', 'customer'),
    ('confirmed', 'cancelled', 'command', 'cancel', 'customer'),
    ('assigned', 'cancelled', 'command', 'cancel', 'customer'),
    ('at_restaurant', 'cancelled', 'command', 'cancel', 'customer'),
    ('created', 'cancelled', 'command', 'cancel', 'staff'),
    ('confirmed', 'cancelled', 'command', 'cancel', 'staff'),
    ('assigned', 'cancelled', 'command', 'cancel', 'staff'),
    ('at_restaurant', 'cancelled', 'command', 'cancel', 'staff'),
    ('picked_up', 'cancelled', 'command', 'cancel', 'staff'),
    ('arriving', 'cancelled', 'command', 'cancel', 'staff'),
    ('at_customer', 'cancelled', 'command', 'cancel', 'staff'),

    -- Each rule requires the one before it, so evidence never skips a state.
    ('assigned', 'at_restaurant', 'evidence', NULL, NULL),
    ('at_restaurant', 'picked_up', 'evidence', NULL, NULL),
    ('picked_up', 'arriving', 'evidence', NULL, NULL),
    ('arriving', 'at_customer', 'evidence', NULL, NULL);

INSERT INTO driver_transition (from_state, command, to_state) VALUES
    ('off_duty', 'on_duty', 'available'),
    ('on_break', 'on_duty', 'available'),
    ('available', 'on_break', 'on_break'),
    ('available', 'off_duty', 'off_duty'),
    ('on_break', 'off_duty', 'off_duty');
