"""Decodes the dead letters of phone apps again, by their topic: an MQTT topic, or a path."""

from __future__ import annotations

from doorstep.errors import MalformedFix
from doorstep.fix import Decoded, Fix, Refused
from doorstep.mqtt_topics import PHONE_PREFIX
from doorstep.phones.entries import Ignored
from doorstep.phones.overland import decode_overland
from doorstep.phones.owntracks import decode_owntracks
from doorstep.phones.traccar import decode_traccar


def decode_letter(topic: str, payload: bytes) -> Decoded | None:
    """Decode a phone app's dead letter; None if it is of another device. Raises MalformedFix."""
    found: list[Fix | Refused | Ignored]
    if topic.startswith(PHONE_PREFIX) or topic == "/owntracks":
        found = [decode_owntracks(payload)]
    elif topic == "/osmand":
        found = [entry.found for entry in decode_traccar(b"", payload)[1]]
    elif topic == "/overland":
        found = [entry.found for entry in decode_overland(payload)]
    else:
        return None
    if not found:
        raise MalformedFix("empty", "no positions")
    return [one for one in found if not isinstance(one, Ignored)]
