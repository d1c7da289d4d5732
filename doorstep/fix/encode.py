"""Encodes fixes as JSON that `decode_position` decodes to the same values."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from doorstep.fix.instants import wire_instant
from doorstep.fix.value import Fix

RECEIVED_AT_HEADER = "Doorstep-Received-At"  # of a PATCH by driver_events, RFC 3339

_encode = msgspec.json.Encoder().encode


def encode_fix(fix: Fix) -> bytes:
    """Encode one fix as a JSON object without the fields that are None."""
    return _encode(_members(fix))


def encode_position(fixes: Sequence[Fix]) -> bytes:
    """Encode fixes as one JSON array."""
    return _encode([_members(fix) for fix in fixes])


def encode_void(boot: str, seq: int) -> bytes:
    """Encode the void of a seq that the device no longer has or has resent without an ack."""
    return _encode({"boot": boot, "seq": seq, "void": True})


def _members(fix: Fix) -> dict[str, object]:
    members = {
        name: value
        for name, value in msgspec.structs.asdict(fix).items()
        if value is not None and name != "ignored"
    }
    members["fix_at"] = wire_instant(fix.fix_at)
    return members
