"""Which fixes are traced, and the ids of their traces: a function of the fix's identity.

Each hop computes the same ids from (driver_id, boot, seq), so all hops decide alike, also where no
header can be passed.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import msgspec

ROOT = "fix"  # the name of the root span
# A header of tracking-positions: comma-separated `traceparent` of the sampled fixes in a record.
TRACES_HEADER = "traceparents"


class TracedFix(NamedTuple):
    """A sampled fix. `trace_id` is never 0."""

    trace_id: int
    driver_id: str
    boot: str
    seq: int

    @property
    def trace_id_hex(self) -> str:
        """The trace id as 32 hexadecimal digits."""
        return f"{self.trace_id:032x}"

    def span_id(self, name: str) -> int:
        """Return the id of this trace's span of one hop."""
        return span_id_of(self.trace_id, name)

    def traceparent(self, name: str) -> str:
        """Return the W3C header `traceparent` whose parent is the span `name`."""
        return f"00-{self.trace_id_hex}-{self.span_id(name):016x}-01"


class _Identity(msgspec.Struct, gc=False):
    boot: str | None = None
    seq: int | None = None


_decode_one = msgspec.json.Decoder(_Identity).decode
_decode_array = msgspec.json.Decoder(list[_Identity]).decode


class Sampler:
    """Selects a share (0 to 1) of the fixes."""

    def __init__(self, share: float) -> None:
        self._limit = round(share * 2**64)

    def traced(self, driver_id: str, boot: str | None, seq: int | None) -> TracedFix | None:
        """Return the fix if it is sampled. Fixes without boot and seq never are."""
        if boot is None or seq is None:
            return None
        identity = f"{driver_id}\n{boot}\n{seq}".encode()
        digest = hashlib.blake2b(identity, digest_size=24).digest()
        if int.from_bytes(digest[:8]) >= self._limit:
            return None
        return TracedFix(int.from_bytes(digest[8:]) or 1, driver_id, boot, seq)

    def traced_in(self, driver_id: str, payload: bytes) -> list[TracedFix]:
        """Return the sampled fixes of a position message; none if it cannot be decoded."""
        try:
            if payload.startswith(b"["):
                identities = _decode_array(payload)
            else:
                identities = [_decode_one(payload)]
        except (msgspec.DecodeError, UnicodeDecodeError):
            return []
        found = (self.traced(driver_id, one.boot, one.seq) for one in identities)
        return [one for one in found if one is not None]


def parse_traceparent(text: str) -> tuple[int, int] | None:
    """Parse `traceparent` of version 00 to (trace id, parent's span id); None if it is not one."""
    parts = text.split("-")
    if [len(part) for part in parts] != [2, 32, 16, 2] or parts[0] != "00":
        return None
    try:
        trace_id, span_id = int(parts[1], 16), int(parts[2], 16)
    except ValueError:
        return None
    return (trace_id, span_id) if trace_id and span_id else None


def span_id_of(trace_id: int, name: str) -> int:
    """Return the id of the span `name` of a trace; never 0."""
    seed = trace_id.to_bytes(16) + name.encode()
    return int.from_bytes(hashlib.blake2b(seed, digest_size=8).digest()) or 1
