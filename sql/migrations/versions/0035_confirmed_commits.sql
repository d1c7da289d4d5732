-- Repeats of commands and watermarks wait for the standby.

SET LOCAL search_path = doorstep, public;

-- Returns true, and makes the commit wait for the standby, if there is one, even if the transaction
-- writes nothing else. What it read may be a commit that the standby does not have: its wait was
-- cancelled, or the primary was restarted. A repeat of a command, or a watermark, must not confirm
-- that before the standby does.
CREATE FUNCTION commit__confirm_v1()
RETURNS bool LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
BEGIN
    IF current_setting('synchronous_standby_names') <> '' THEN
        PERFORM pg_logical_emit_message(true, 'doorstep', '');
    END IF;
    RETURN true;
END
$$;

REVOKE EXECUTE ON FUNCTION commit__confirm_v1 FROM PUBLIC;
GRANT EXECUTE ON FUNCTION commit__confirm_v1
TO driver_events, driver_api, tracking_api, customer;
