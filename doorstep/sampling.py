"""Sampling policies: which fixes a device sends. The `report` command and its codec.

`mode` selects the fixes:

    all             every fix that the phone takes
    time            one in `every_s`
    distance        after moving `distance_m`
    accuracy        after moving further than the sum of both fixes' accuracies: less is noise
    dead_reckoning  when the position predicted from the last one sent (its position, speed and
                    heading) is off by more than `off_by_m`

In every mode one fix is sent within `heartbeat_s`. Of the fixes not selected, one per
`keep_every_s` is sent in the same message as the next selected one, so that short stops remain
provable. A fix may wait `batch_s` for others, so that the radio wakes less often.
"""

from __future__ import annotations

from math import cos, radians, sin
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from doorstep import geo
from doorstep.errors import DoorstepError

Mode = Literal["all", "time", "distance", "accuracy", "dead_reckoning"]

# How much a driver's positions are needed; the database has a policy for each.
Demand = Literal["idle", "on_order", "live"]

MAX_HEARTBEAT_S = 30.0  # the evidence rules need a fix this often
MAX_COMMAND_BYTES = 1024

UpTo30S = Annotated[float, Meta(ge=0, le=MAX_HEARTBEAT_S)]
Heartbeat = Annotated[float, Meta(ge=1, le=MAX_HEARTBEAT_S)]
Metres = Annotated[float, Meta(ge=1, le=1000)]


class MalformedCommand(DoorstepError):
    """The command is malformed."""


class SamplingPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Which fixes to send. The default is the policy of a new device."""

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
    """Encode a `report` command with every field."""
    return _encode({"command": "report", **msgspec.structs.asdict(report)})


def predict(
    lon_deg: float, lat_deg: float, speed_mps: float, heading_deg: float, after_s: float
) -> tuple[float, float]:
    """Extrapolate a place at constant speed and heading: (lon_deg, lat_deg)."""
    way_m, heading = speed_mps * after_s, radians(heading_deg)
    return geo.offset((lon_deg, lat_deg), way_m * sin(heading), way_m * cos(heading))
