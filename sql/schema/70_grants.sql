-- Least privilege: a service may execute its own entry functions, and tracking_api may read the
-- tables behind its responses to staff. Only the owner may write tables. Functions fix who acts:
-- driver_ and customer_ take the token of the one they act for. `python -m sql roles` prints the
-- result: docs/reference/database-roles.md.

DO $do$
BEGIN
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO driver_events, driver_api, tracking_api, '
        'customer, broker_sync, webhooks', current_database());
END
$do$;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA doorstep FROM PUBLIC;

GRANT USAGE ON SCHEMA doorstep
TO driver_events, driver_api, tracking_api, customer, broker_sync, webhooks;

GRANT EXECUTE ON FUNCTION
    prepare_incoming_v1, record_fixes_v1, record_parked_v1, read_watermarks_v2,
    open_offsets_v1, advance_offsets_v1, add_dead_letters_v1, take_outbox_v1, delete_outbox_v1,
    fix_history__ensure_partitions_v1,
    driver_sampling__take_v1, driver_sampling__confirm_v1, driver_sampling__mark_undelivered_v1,
    driver_sampling__follow_demand_v1,
    series__prepare_v1, series__record_v1, series__expire_v1,
    fix_history__seal_limits_v1, fix_history__seal_v1, fix_history__writers_finished_v1,
    fix_history__unpacked_days_v1, fix_history__pack_v1, fix_history__switch_v1,
    fix_history__drop_packed_v1, fix_chunk__expire_v1, boot_seqs__drop_sealed_v1,
    retention__expire_v1, order_offer__advance_v1, evidence__settle_v1,
    order_eta__refresh_v1
TO driver_events;
GRANT SELECT ON kafka_offset, history_bounds TO driver_events;
GRANT SELECT (driver_id) ON parked_fix TO driver_events;
GRANT SELECT (history_days) ON limits TO driver_events;

GRANT EXECUTE ON FUNCTION
    prepare_incoming_v1, record_fixes_v1, find_token_v2,
    open_driver_session_v1, close_driver_session_v1,
    driver_read_v1, driver_read_v2, driver_change_duty_v1, driver_command_order_v1,
    driver_fail_order_v1, driver_accept_offer_v1, driver_decline_offer_v1,
    driver_deliver_order_v1, driver_fail_order_v2, driver_store_photo_v1, driver_end_return_v1,
    driver_ends_v1, driver_read_stops_v1
TO driver_api;

GRANT EXECUTE ON FUNCTION
    find_token_v2, find_tokens_v1, record_audit_v1, create_order_v2, create_order_v3,
    command_order_as_staff_v1, fail_order_as_staff_v1, offer_order_as_staff_v1,
    replace_customer_token_v1, revoke_customer_tokens_v1, create_policy_v1, change_device_v2,
    change_staff_v1, list_staff_v1, list_devices_v1, open_staff_session_v1, close_staff_session_v1,
    driver_sampling__set_v1, driver_sampling__unpin_v1,
    simulation_target__set_v1, watch_orders_v1,
    nearest_drivers_v1, nearest_drivers_v2, is_in_box, fleet_tile_v1, fleet_history_v1,
    fix_history__between_v1, fix_chunk__unpack, fix_chunk__sample, series__downsample_v1,
    series__points, eta_model__read_v1,
    change_driver_v1, create_restaurant_v1, change_restaurant_v1, retire_restaurant_v1,
    create_service_area_v1, change_service_area_v1, retire_service_area_v1,
    replace_policy_v1, retire_policy_v1, set_default_policy_v1
TO tracking_api;
GRANT SELECT ON
    driver, driver_state, driver_cell, restaurant, service_area, policy, policy_status, orders,
    order_now, assignment, evidence, order_event, order_transition, fix_history, fix_chunk,
    history_bounds, driver_sampling, series, series_point, simulation_target, kafka_offset
TO tracking_api;
GRANT SELECT ON order_with_details, unassigned_order TO tracking_api;
GRANT SELECT (order_id, search) ON order_detail TO tracking_api;
GRANT SELECT (order_offer_id, order_id, driver_id, offered_at, expires_at, ended_at, outcome)
ON order_offer TO tracking_api;
GRANT SELECT (device_id, removed_at) ON device_credential TO tracking_api;
GRANT SELECT (driver_id, ended_at) ON order_return TO tracking_api;

-- Customers read no table: what they may see is decided inside these functions.
GRANT EXECUTE ON FUNCTION
    customer_links_v1, customer_tracks_v2, customer_tracks_v3, customer_polls_v1,
    customer_history_v1,
    customer_watch_v1, customer_tracks_v1, customer_cancel_v1, eta_model__read_v1,
    customer_waits_v1,
    customer_page_v1, customer_note_v1, customer_share_v1, customer_unshare_v1,
    customer_subscribe_v1, customer_unsubscribe_v1, customer_retry_v1,
    share_links_v1, share_tracks_v1, share_tracks_v2, share_polls_v1, share_watch_v1, share_waits_v1
TO customer;
GRANT EXECUTE ON FUNCTION
    push_subscription__take_due_v1, push_subscription__claim_v1, push_subscription__report_v1,
    push_subscription__drop_v1
TO tracking_api;

GRANT EXECUTE ON FUNCTION
    changed_devices_v2, changed_phones_v2, register_phone_tokens_v1
TO broker_sync;
GRANT EXECUTE ON FUNCTION
    find_phone_v1, add_phone_dead_letters_v1, use_invitation_v1, invitation__positioned_v1
TO driver_api;
GRANT EXECUTE ON FUNCTION phone_credential__heard_v2 TO driver_api, driver_events;
GRANT EXECUTE ON FUNCTION
    phone_credential__unsent_modes_v1, phone_credential__sent_modes_v1
TO driver_events;
GRANT EXECUTE ON FUNCTION invite_driver_v1 TO tracking_api;
GRANT EXECUTE ON FUNCTION set_driver_stops_v1, assign_order_as_staff_v1 TO tracking_api;
GRANT EXECUTE ON FUNCTION
    create_order_v4, end_order_as_staff_v1, fail_order_as_staff_v2, fail_order_as_staff_v3,
    order_photo_v1,
    end_return_as_staff_v1, open_returns_v1, order_ends_v1
TO tracking_api;
GRANT EXECUTE ON FUNCTION customer_photo_v1 TO customer;
GRANT EXECUTE ON FUNCTION
    change_staff_v2, list_staff_v2, open_staff_session_v2, restaurant_session_v1,
    restaurant_orders_v1, restaurant_confirm_v1, restaurant_set_ready_v1,
    report_day_v1, report_restaurants_v1, report_reasons_v1, report_drivers_v1
TO tracking_api;
GRANT SELECT ON driver_phone TO tracking_api;
GRANT SELECT (driver_id, heard_at) ON phone_credential TO tracking_api;
GRANT EXECUTE ON FUNCTION order_couriers_v1, order_timeline_v1, driver_states_v1
TO tracking_api;
GRANT SELECT (ready_at, scheduled_for, promised_from, promised_to, address, external_id)
ON order_detail TO tracking_api;

GRANT EXECUTE ON FUNCTION
    webhook_delivery__claim_v1, webhook_delivery__claim_v2, webhook_delivery__report_v1,
    webhook_delivery__backlog_v1
TO webhooks;
GRANT EXECUTE ON FUNCTION order_notice__decide_v1, alert__update_v1 TO driver_events;
GRANT EXECUTE ON FUNCTION
    alert__acknowledge_v1, create_webhook_v1, create_webhook_v2, change_webhook_v1,
    rotate_webhook_v1, delete_webhook_v1, send_webhook_again_v1, order_notice__read_v1
TO tracking_api;
GRANT SELECT ON alert, order_notice, webhook_delivery TO tracking_api;
GRANT SELECT (
    webhook_id, url, description, events, is_on, off_reason, off_at, failing_since,
    last_success_at, created_at, created_by, with_contact
) ON webhook TO tracking_api;

GRANT EXECUTE ON FUNCTION commit__confirm_v1
TO driver_events, driver_api, tracking_api, customer;
