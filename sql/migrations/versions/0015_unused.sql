-- find_token_v2 and read_watermarks_v2 replaced these. No role may execute them since 0009.

SET LOCAL search_path = doorstep, public;

DROP FUNCTION find_token_v1, read_watermarks_v1;
