-- The link of a failed order leads to its retry.

SET LOCAL search_path = doorstep, public;

-- Leads the customer of a failed order to the order that tries it again, and makes `new_token` a
-- token of it. A repeat changes nothing. Returns null without a retry, and once a link of it was
-- revoked: then only a new link from staff leads there. Raises DS015 for an invalid link.
CREATE FUNCTION customer_retry_v1(
    of_token_sha256 bytea, of_order_id uuid, new_token_sha256 bytea
)
RETURNS uuid LANGUAGE plpgsql SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
DECLARE
    new_id uuid;
BEGIN
    PERFORM customer_links__require(of_token_sha256, of_order_id);
    SELECT r.order_id INTO new_id FROM order_retry r WHERE r.retry_of = of_order_id;
    IF new_id IS NULL OR EXISTS (
        SELECT FROM access_token t WHERE t.order_id = new_id AND t.revoked_at IS NOT NULL
    ) THEN
        RETURN NULL;
    END IF;
    INSERT INTO access_token (token_sha256, role, order_id)
    VALUES (new_token_sha256, 'customer', new_id)
    ON CONFLICT DO NOTHING;
    RETURN new_id;
END
$$;

REVOKE EXECUTE ON FUNCTION customer_retry_v1 FROM PUBLIC;
GRANT EXECUTE ON FUNCTION customer_retry_v1 TO customer;
