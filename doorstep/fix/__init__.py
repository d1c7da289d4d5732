"""The contract of a fix: its value and its JSON codec.

    payload ── decode_position ──> [Fix | Refused, …]     MQTT: one fix or an array
    payloads ─ decode_many ─────> …                       MQTT: many payloads at once
    body    ── decode_fix ───────> Fix                    HTTP: one fix, identity optional
    body    ── decode_fixes ─────> [Fix | Refused, …]     HTTP: {"fixes": [fix, …]}

A payload without any usable fix raises MalformedFix. Age, unknown drivers, conflicts and
quarantine are decided by the database.
"""

from doorstep.fix.encode import RECEIVED_AT_HEADER, encode_fix, encode_position, encode_void
from doorstep.fix.fast import decode_many, decode_position
from doorstep.fix.instants import instant_of, wire_instant
from doorstep.fix.strict import decode_fix, decode_fixes
from doorstep.fix.value import (
    ID_PATTERN,
    MAX_FIX_BYTES,
    MAX_FIXES,
    MAX_PAYLOAD_BYTES,
    MAX_SEQ,
    Decoded,
    Fix,
    Refused,
)

__all__ = [
    "ID_PATTERN",
    "MAX_FIXES",
    "MAX_FIX_BYTES",
    "MAX_PAYLOAD_BYTES",
    "MAX_SEQ",
    "RECEIVED_AT_HEADER",
    "Decoded",
    "Fix",
    "Refused",
    "decode_fix",
    "decode_fixes",
    "decode_many",
    "decode_position",
    "encode_fix",
    "encode_position",
    "encode_void",
    "instant_of",
    "wire_instant",
]
