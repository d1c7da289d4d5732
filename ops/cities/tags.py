"""What the tags of OpenStreetMap's ways mean for couriers. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

Tags = Mapping[str, str]

# km/h, by class, where a way has no maxspeed: what traffic allows. The bundled city has the same.
CLASS_KMH = {
    "trunk": 70.0, "trunk_link": 45.0,
    "primary": 45.0, "primary_link": 35.0,
    "secondary": 40.0, "secondary_link": 32.0,
    "tertiary": 35.0, "tertiary_link": 30.0,
    "unclassified": 30.0, "residential": 28.0, "road": 28.0,
    "living_street": 12.0, "service": 15.0,
}  # fmt: skip
MAX_KMH = 110.0
MIN_KMH = 5.0
MPH = 1.609344
NAMED_KMH = {"walk": 7.0}
_NUMBER = re.compile(r"(\d+(?:\.\d+)?)\s*(mph|km/h|kmh)?")

FORBIDDEN = frozenset({"no", "private", "agricultural", "forestry", "emergency", "military"})
ALLOWED_BY_BICYCLE = frozenset({"yes", "designated", "permissive", "destination", "official"})
DIRECTION = {"yes": 1, "true": 1, "1": 1, "-1": -1, "reverse": -1, "no": 0, "false": 0, "0": 0}


def is_street(tags: Tags) -> bool:
    """Whether couriers may use a way: by motor vehicle, or expressly by bicycle."""
    if tags.get("highway") not in CLASS_KMH or tags.get("area") == "yes":
        return False
    access = next(
        (tags[key] for key in ("motor_vehicle", "vehicle", "access") if key in tags), "yes"
    )
    return access not in FORBIDDEN or tags.get("bicycle") in ALLOWED_BY_BICYCLE


def direction_of(tags: Tags) -> int:
    """1 or -1 for a one-way street along or against the way's nodes, else 0."""
    found = DIRECTION.get(tags.get("oneway", ""))
    if found is not None:
        return found
    return 1 if tags.get("junction") in ("roundabout", "circular") else 0


def speed_kmh(tags: Tags) -> float:
    """The usual speed: of the class, but at most what maxspeed allows."""
    usual = CLASS_KMH[tags["highway"]]
    limit = maxspeed_kmh(tags.get("maxspeed", ""))
    return usual if limit is None else max(MIN_KMH, min(usual, limit))


def maxspeed_kmh(text: str) -> float | None:
    """Parse `maxspeed`. None for anything but one number with an optional unit."""
    if text in NAMED_KMH:
        return NAMED_KMH[text]
    match = _NUMBER.fullmatch(text.strip())
    if match is None:
        return None
    value = float(match[1]) * (MPH if match[2] == "mph" else 1.0)
    return value if 0 < value <= MAX_KMH * 2 else None


def level_of(tags: Tags) -> int:
    """-1 for a tunnel, 1 for a bridge, else 0."""
    if tags.get("tunnel", "no") not in ("no", "building_passage"):
        return -1
    return 1 if tags.get("bridge", "no") != "no" else 0


def is_building(tags: Tags) -> bool:
    """Whether an area is a building."""
    return tags.get("building", "no") != "no"


def restriction_of(tags: Tags) -> str | None:
    """Return `no` or `only` for a turn restriction that holds for couriers' vehicles."""
    if tags.get("type") != "restriction" or "bicycle" in tags.get("except", "").split(";"):
        return None
    keys = ("restriction", "restriction:motor_vehicle", "restriction:motorcycle")
    value = next((tags[key] for key in keys if key in tags), "")
    kind, _, turn = value.partition("_")
    return kind if kind in ("no", "only") and turn else None
