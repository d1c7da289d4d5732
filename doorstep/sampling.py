"""How a device reports its fixes: the contract of the `command` topic's `report`, and its codec.

`mode` says which fixes go out:

    all             every fix that the phone takes
    time            one in `every_s`
    distance        after moving `distance_m`
    accuracy        after moving further than both fixes' accuracies together: less is noise
    dead_reckoning  when the place predicted from the last one that went out (its place, speed and
                    heading) is off by more than `off_by_m`

Whatever the mode, one goes out within `heartbeat_s`; of the fixes in between, one in
`keep_every_s` goes along with the next that does, in the same message, so that short stops stay
provable; and a fix may wait `batch_s` for others before the radio wakes up.
"""

from __future__ import annotations

from math import cos, radians, sin
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from doorstep.errors import DoorstepError

Mode = Literal["all", "time", "distance", "accuracy", "dead_reckoning"]

MAX_HEARTBEAT_S = 30.0  # an assigned driver reports so often: the rules of evidence build on it
MAX_COMMAND_BYTES = 1024
DEGREE_M = 111_195.08  # of latitude, on the sphere of the database's distances
LEAST_COSINE = 1e-6  # at a pole a degree of longitude is no length at all

UpTo30S = Annotated[float, Meta(ge=0, le=MAX_HEARTBEAT_S)]
Heartbeat = Annotated[float, Meta(ge=1, le=MAX_HEARTBEAT_S)]
Metres = Annotated[float, Meta(ge=1, le=1000)]


class MalformedCommand(DoorstepError):
    """A command that the device can't read."""


class SamplingPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How to report. The default is how every device begins."""

    mode: Mode = "all"
    every_s: Heartbeat = 4.0
    distance_m: Metres = 30.0
    off_by_m: Metres = 25.0
    heartbeat_s: Heartbeat = MAX_HEARTBEAT_S
    keep_every_s: UpTo30S = 4.0
    batch_s: UpTo30S = 0.0


class _Command(SamplingPolicy, frozen=True, kw_only=True):
    command: Literal["report"]


_decode = msgspec.json.Decoder(_Command).decode
_encode = msgspec.json.Encoder().encode


def decode_command(payload: bytes) -> SamplingPolicy:
    """Decode the payload of a `command`. Unknown fields are ignored. Raises MalformedCommand."""
    if len(payload) > MAX_COMMAND_BYTES:
        raise MalformedCommand(f"{len(payload)} bytes")
    try:
        fields = msgspec.structs.asdict(_decode(payload))
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise MalformedCommand(str(exc)) from exc
    del fields["command"]
    return SamplingPolicy(**fields)


def encode_command(report: SamplingPolicy) -> bytes:
    """Encode a `report` command, every field named."""
    return _encode({"command": "report", **msgspec.structs.asdict(report)})


def predict(
    lon_deg: float, lat_deg: float, speed_mps: float, heading_deg: float, after_s: float
) -> tuple[float, float]:
    """Where somebody is who went on at this speed and heading: (lon_deg, lat_deg)."""
    way_deg = speed_mps * after_s / DEGREE_M
    heading, shrink = radians(heading_deg), max(cos(radians(lat_deg)), LEAST_COSINE)
    return lon_deg + way_deg * sin(heading) / shrink, lat_deg + way_deg * cos(heading)
