"""Names and units of a point's fields: CSV columns, GeoJSON properties, extensions of GPX and KML.

Upper case, spaces, `_`, `-` and brackets do not matter: `Speed (km/h)` is `speed_kmh`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from simulators.tracks.points import UnreadableTrack, read_number

# Known names, in order of preference. A unit may follow, as in `speed_kmh`.
NAMES = {
    "at": (
        "fix_at fix_time fix_ts gps_time position_time location_time time timestamp time_stamp "
        "date_time datetime utc utc_time tracked_at recorded_at located_at captured_at measured_at "
        "sampled_at logged_at observed_at device_time event_time epoch unix_time tst ts t when "
        "created_at date"
    ),
    "lat_deg": "latitude lat gps_latitude gps_lat position_lat location_lat location_latitude y",
    "lon_deg": (
        "longitude lon lng long gps_longitude gps_lon gps_lng position_lon position_long "
        "location_lon location_lng location_longitude x"
    ),
    "accuracy_m": "accuracy horizontal_accuracy gps_accuracy position_accuracy hacc acc hdop_m",
    "speed_mps": "speed gps_speed ground_speed velocity vel",
    "heading_deg": "heading bearing course azimuth cog direction",
    "altitude_m": "altitude elevation ele alt",
    "battery": "battery battery_level batt",
}
SPEED_UNITS = {"m/s": 1.0, "km/h": 1 / 3.6, "mph": 0.44704, "kn": 1852 / 3600}  # in m/s
_LENGTHS = {"m": 1.0, "meters": 1.0, "metres": 1.0, "ft": 0.3048, "feet": 0.3048}
_ANGLES = {"deg": 1.0, "degrees": 1.0, "°": 1.0}
_DEGREES = {**_ANGLES, "e7": 1e-7}
UNITS = {
    "at": dict.fromkeys(("utc", "gmt", "ms", "s", "iso", "iso8601"), 1.0),  # the value says which
    "lat_deg": _DEGREES,
    "lon_deg": _DEGREES,
    "accuracy_m": _LENGTHS,
    "speed_mps": {
        **dict.fromkeys(("mps", "ms", "meterspersecond"), SPEED_UNITS["m/s"]),
        **dict.fromkeys(("kmh", "kph", "kmph"), SPEED_UNITS["km/h"]),
        "mph": SPEED_UNITS["mph"],
        **dict.fromkeys(("kn", "kt", "kts", "knot", "knots"), SPEED_UNITS["kn"]),
    },
    "heading_deg": _ANGLES,
    "altitude_m": _LENGTHS,
    "battery": {"%": 0.01, "pct": 0.01, "percent": 0.01},
}
REQUIRED = ("at", "lat_deg", "lon_deg")


def fold(name: str) -> str:
    """Reduce a name to what tells it from others: letters, digits, % and °."""
    return re.sub(r"[^a-z0-9%°]", "", name.lower())


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a column holds. The lower `rank` wins where several hold the same field."""

    field: str
    rank: int
    factor: float | None  # None: its name says no unit


@lru_cache(maxsize=4096)  # names come from files
def meaning_of(name: str) -> Meaning | None:
    """Return what a column of this name holds. None if it is not known."""
    folded = fold(name)
    for field_name, names in NAMES.items():
        for rank, known in enumerate(map(fold, names.split())):
            if folded == known:
                return Meaning(field_name, rank, None)
    for field_name, names in NAMES.items():
        for rank, known in enumerate(map(fold, names.split())):
            factor = UNITS[field_name].get(folded.removeprefix(known))
            if folded.startswith(known) and factor is not None:
                return Meaning(field_name, rank, factor)
    return None


def parse_column(text: str) -> tuple[str, str]:
    """Read `NAME=FIELD` of `--column`: a known name, and the file's name for it.

    Raises ValueError.
    """
    name, separator, given = text.partition("=")
    known = meaning_of(name)
    if not separator or not given.strip() or known is None:
        names = ", ".join(one.removesuffix("_deg").partition("_")[0] for one in NAMES)
        raise ValueError(f"{text!r}: use NAME=FIELD, NAME one of {names.replace('at,', 'time,')}")
    return known.field, given.strip()


@dataclass(frozen=True, slots=True)
class FieldNames:
    """How a file names a point's fields: the known names, and what the user says.

    `given` maps a field to the file's name for it. `speed_unit_mps` is the unit, in m/s, of a speed
    whose name says none.
    """

    given: Mapping[str, str] = field(default_factory=dict)
    speed_unit_mps: float = 1.0

    def find(self, name: str) -> Meaning | None:
        """Return what a column holds, by the user's names first."""
        for field_name, given in self.given.items():
            if name.strip().casefold() == given.casefold():
                return Meaning(field_name, 0, self._factor_of_given(field_name, given))
        known = meaning_of(name)
        return None if known is None or known.field in self.given else known

    def read(self, row: Mapping[str, object]) -> dict[str, object]:
        """Return the fields of a row, in their units. Unknown and empty columns are left out."""
        found: dict[str, tuple[int, object]] = {}
        for name, value in row.items():
            if value in (None, "") or not name:
                continue
            meaning = self.find(name)
            if meaning is None:
                continue
            best = found.get(meaning.field)
            if best is None or meaning.rank < best[0]:
                found[meaning.field] = (meaning.rank, self._convert(meaning, value))
        return {name: value for name, (_, value) in found.items()}

    def read_optional(self, row: Mapping[str, object]) -> dict[str, object]:
        """Return the fields of a row, without its time and place."""
        return {name: value for name, value in self.read(row).items() if name not in REQUIRED}

    def require(self, columns: list[str]) -> None:
        """Check that a table has the columns of a track. Raises UnreadableTrack."""
        found = {meaning.field for name in columns if (meaning := self.find(name))}
        for name in (*self.given, *REQUIRED):
            if name not in found:
                known = ("time",) if name == "at" else (name, *NAMES[name].split()[:2])
                wanted = self.given.get(name) or " or ".join(known)
                raise UnreadableTrack(
                    f"no column {wanted} in {columns}: name it with "
                    f"--column {'time' if name == 'at' else name.removesuffix('_deg')}=COLUMN"
                )

    def _convert(self, meaning: Meaning, value: object) -> object:
        factor = meaning.factor
        if factor is None:
            factor = self.speed_unit_mps if meaning.field == "speed_mps" else 1.0
        number = read_number(value) if factor != 1.0 else None
        return value if number is None else number * factor

    @staticmethod
    def _factor_of_given(field_name: str, given: str) -> float | None:
        known = meaning_of(given)
        if known is not None and known.field == field_name:
            return known.factor
        unit = re.split(r"[^a-z0-9%°/]+", given.lower().rstrip(" )]"))[-1]
        return UNITS[field_name].get(fold(unit)) if fold(unit) != fold(given) else None
