"""The fix and the other things a payload may hold, as frozen values."""

from __future__ import annotations

from datetime import datetime

import msgspec

MAX_FIX_BYTES = 1024  # 1 KiB: one fix by itself
MAX_PAYLOAD_BYTES = 64 * 1024  # 64 KiB = 256 fixes of 256 bytes
MAX_FIXES = 256
MAX_SEQ = 2**62  # the database keeps ranges with an open upper bound: seq + 1 must fit in 63 bits
ID_PATTERN = r"[A-Za-z0-9_-]{1,64}"  # drivers and boots; never + # / or a colon


class Fix(msgspec.Struct, frozen=True, gc=False):
    """One position report of one driver.

    `fix_at` is the phone's clock, aware and in UTC. `boot` and `seq` are both None for a fix
    without an identity of its own (a plain PATCH); over MQTT they are always there. Every value
    is finite and inside its range; `heading_deg` is below 360.
    """

    boot: str | None
    seq: int | None
    fix_at: datetime
    lat_deg: float
    lon_deg: float
    accuracy_m: float | None = None
    speed_mps: float | None = None
    heading_deg: float | None = None
    altitude_m: float | None = None
    battery: float | None = None


class Refused(msgspec.Struct, frozen=True, gc=False):
    """One entry of a payload that is not a usable fix, and why.

    `boot` and `seq` are there when both could still be read, so that the committed watermark can
    pass the entry. `n` is its place in the array, from 0.
    """

    n: int
    boot: str | None
    seq: int | None
    reason: str
    detail: str = ""

    @property
    def is_void(self) -> bool:
        """True for a seq that the device has closed itself: nothing was lost in reading it."""
        return self.reason == "void"


Decoded = list[Fix | Refused]
"""What one payload held, in its own order: good fixes stay beside refused ones."""
