-- issue_phone --
SELECT issue_phone_v1(%(driver_id)s, %(again)s, %(who)s)

-- revoke_phone --
SELECT revoke_phone_v1(%(driver_id)s, %(who)s)

-- register_phone_tokens --
SELECT register_phone_tokens_v1(%(driver_ids)s, %(generations)s, %(token_sha256s)s)

-- changed_phones --
SELECT driver_id, generation, is_active, version FROM changed_phones_v1(%(since)s)

-- find_phone --
SELECT find_phone_v1(%(token_sha256)s)

-- heard_of_phones --
SELECT phone_credential__heard_v1(%(driver_ids)s, %(app)s)
