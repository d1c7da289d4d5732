"""FIT, the format of sports watches and bicycle computers, through fitdecode."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from datetime import datetime

import fitdecode

from simulators.tracks.points import BAD_TIME, CUT, Skipped, TrackPoint, UnreadableTrack, make_point

DEG_PER_SEMICIRCLE = 180 / 2**31
# what fitdecode raises on damaged data
DAMAGED = (
    fitdecode.FitError, struct.error, ArithmeticError, AssertionError, LookupError, OSError,
    TypeError, ValueError,
)  # fmt: skip
FIELDS = {  # in order of preference; fitdecode scales them to metres and m/s
    "altitude_m": ("enhanced_altitude", "altitude"),
    "speed_mps": ("enhanced_speed", "speed"),
    "accuracy_m": ("gps_accuracy",),
}


def read_fit(stream: io.BufferedReader) -> Iterator[TrackPoint | Skipped]:
    """Read the `record` messages. What follows damaged data is not read. Raises UnreadableTrack."""
    number = 0
    try:
        with fitdecode.FitReader(
            stream,
            check_crc=fitdecode.CrcCheck.DISABLED,
            error_handling=fitdecode.ErrorHandling.IGNORE,
        ) as reader:
            for frame in reader:
                if isinstance(frame, fitdecode.FitDataMessage) and frame.name == "record":
                    number += 1
                    yield _point_of(frame, f"record {number:,}")
    except DAMAGED as exc:
        if not number:
            raise UnreadableTrack(f"not readable as FIT: {exc}") from exc
        yield Skipped(CUT, f"after record {number:,}")


def _point_of(record: fitdecode.FitDataMessage, where: str) -> TrackPoint | Skipped:
    at = record.get_value("timestamp", fallback=None)
    if at is not None and not isinstance(at, datetime):  # seconds since the device was started
        return Skipped(BAD_TIME, where)
    fields: dict[str, object] = {"at": at}
    for name, key in (("lat_deg", "position_lat"), ("lon_deg", "position_long")):
        semicircles = record.get_value(key, fallback=None)
        if isinstance(semicircles, int | float):
            fields[name] = semicircles * DEG_PER_SEMICIRCLE
    for name, keys in FIELDS.items():
        values = (record.get_value(key, fallback=None) for key in keys)
        fields[name] = next((value for value in values if value is not None), None)
    return make_point(fields, where)
