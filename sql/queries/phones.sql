-- issue_phone --
SELECT issue_phone_v1(%(driver_id)s, %(again)s, %(who)s)

-- revoke_phone --
SELECT revoke_phone_v1(%(driver_id)s, %(who)s)

-- phone_generation --
SELECT generation FROM phone_credential WHERE driver_id = %(driver_id)s

-- register_phone_tokens --
SELECT register_phone_tokens_v1(%(driver_ids)s, %(generations)s, %(token_sha256s)s)

-- changed_phones --
SELECT driver_id, generation, is_active, version FROM changed_phones_v1(%(since)s)

-- find_phone --
SELECT find_phone_v1(%(token_sha256)s)

-- add_phone_dead_letters --
SELECT add_phone_dead_letters_v1(%(token_sha256)s, %(payloads)s, %(reasons)s, %(topics)s,
    %(details)s, %(received_at_mss)s)

-- heard_of_phones --
SELECT phone_credential__heard_v1(%(driver_ids)s, %(app)s)
