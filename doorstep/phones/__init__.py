"""The formats of unmodified phone apps, and what each of them logs in with.

    OwnTracks      a message ──── decode_owntracks ──> Fix | Ignored
    Traccar        a request ──── decode_traccar ────> the token and [PhoneEntry, …]
    Overland       a request ──── decode_overland ───> [PhoneEntry, …]

Values are converted to the units of a fix. An optional value that an app sends for "unknown" is
ignored, as any optional field is. These fixes have neither boot nor seq.
"""

from doorstep.phones.entries import Ignored, PhoneEntry, keepable
from doorstep.phones.overland import decode_overland
from doorstep.phones.owntracks import (
    OwnTracksMessage,
    decode_owntracks,
    decode_owntracks_message,
    mode_command,
)
from doorstep.phones.traccar import decode_traccar

__all__ = [
    "Ignored",
    "OwnTracksMessage",
    "PhoneEntry",
    "decode_overland",
    "decode_owntracks",
    "decode_owntracks_message",
    "decode_traccar",
    "keepable",
    "mode_command",
]
