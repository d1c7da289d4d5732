-- issue_phone --
SELECT generation, is_derived
FROM issue_phone_v2(%(driver_id)s, %(again)s, %(who)s, %(mqtt_hash)s::text, %(token_sha256)s::bytea)
WHERE commit__confirm_v1()

-- revoke_phone --
SELECT revoke_phone_v1(%(driver_id)s, %(who)s)
WHERE commit__confirm_v1()

-- phone_generation --
SELECT generation, mqtt_hash IS NULL FROM phone_credential WHERE driver_id = %(driver_id)s

-- register_phone_tokens --
SELECT register_phone_tokens_v1(%(driver_ids)s, %(generations)s, %(token_sha256s)s)

-- changed_phones --
SELECT driver_id, generation, mqtt_hash, is_active, version FROM changed_phones_v2(%(since)s)

-- find_phone --
SELECT find_phone_v1(%(token_sha256)s)

-- add_phone_dead_letters --
SELECT add_phone_dead_letters_v1(%(token_sha256)s, %(payloads)s, %(reasons)s, %(topics)s,
    %(details)s, %(received_at_mss)s)

-- heard_of_phones --
SELECT driver_id, mode FROM phone_credential__heard_v2(%(driver_ids)s, %(modes)s,
    %(have_positions)s, %(app)s, %(can_command)s)

-- unsent_phone_modes --
SELECT driver_id, mode FROM phone_credential__unsent_modes_v1(%(app)s, %(at_most)s)

-- sent_phone_modes --
SELECT phone_credential__sent_modes_v1(%(driver_ids)s, %(modes)s)

-- invite_driver --
SELECT invite_driver_v1(%(driver_id)s, %(token_sha256)s, %(who)s)

-- use_invitation --
SELECT driver_id, name, session_expires_at
FROM use_invitation_v1(%(token_sha256)s, %(follow_sha256)s, %(session_sha256)s, %(session_s)s,
    %(mqtt_hash)s::text, %(phone_sha256)s::bytea)

-- invitation_positioned --
SELECT invitation__positioned_v1(%(follow_sha256)s)
