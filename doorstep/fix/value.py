"""The values that a payload may hold: fixes and refused entries."""

from __future__ import annotations

from datetime import datetime

import msgspec

MAX_FIX_BYTES = 1024  # 1 KiB, for a single fix
MAX_PAYLOAD_BYTES = 64 * 1024  # 64 KiB = 256 fixes of 256 bytes
MAX_FIXES = 256
MAX_SEQ = 2**62  # the database keeps ranges with an open upper bound: seq + 1 must fit in 63 bits
ID_PATTERN = r"[A-Za-z0-9_-]{1,64}"  # drivers and boots; never + # / or a colon


class Fix(msgspec.Struct, frozen=True, gc=False):
    """One position report of one driver.

    `fix_at` is the phone's clock, aware and in UTC. `boot` and `seq` are both None for a fix
    without an identity (a plain PATCH); over MQTT they are always set. Every value is finite and
    inside its range; `heading_deg` is below 360. `ignored` names the optional fields that were not
    usable and are therefore None.
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
    ignored: tuple[str, ...] = ()


class Refused(msgspec.Struct, frozen=True, gc=False):
    """One entry of a payload that is not a usable fix, with the reason.

    `boot` and `seq` are set if both could be read, so that the committed watermark can pass the
    entry. `n` is its index in the array.
    """

    n: int
    boot: str | None
    seq: int | None
    reason: str
    detail: str = ""

    @property
    def is_void(self) -> bool:
        """True for a seq that the device has closed itself."""
        return self.reason == "void"


Decoded = list[Fix | Refused]
"""The entries of one payload, in order."""
