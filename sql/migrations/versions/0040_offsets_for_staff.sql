-- tracking_api reads the offsets of driver_events' consumer groups, for /observe.

SET LOCAL search_path = doorstep, public;

GRANT SELECT ON kafka_offset TO tracking_api;
