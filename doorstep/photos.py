"""Photos without metadata: what tells where, when and with which phone a photo was taken. Pure.

The pixels are not decoded. Segments (JPEG) and chunks (PNG, WebP) are copied but for those of
metadata; of EXIF only the orientation is kept, in a segment of our own. What follows the image's
end, such as the video of a moving photo, goes too.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

JPEG: Final = "image/jpeg"
PNG: Final = "image/png"
WEBP: Final = "image/webp"
MEDIA_TYPES: Final = (JPEG, PNG, WEBP)

_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
# Chunks that change how the pixels look.
_PNG_KEPT = (
    *(b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS"),
    *(b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"sBIT", b"pHYs"),
)
_WEBP_KEPT = (b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ICCP", b"ANIM", b"ANMF")
_WEBP_METADATA_FLAGS = 0x08 | 0x04  # EXIF, XMP, in the first byte of VP8X
_SOI, _EOI, _SOS, _APP1 = 0xD8, 0xD9, 0xDA, 0xE1
_KEPT_APPS = (0xE0, 0xEE)  # JFIF; Adobe, which says how colours are coded
_ICC_APP, _ICC_MAGIC = 0xE2, b"ICC_PROFILE\x00"
_COMMENT = 0xFE
_EXIF_MAGIC = b"Exif\x00\x00"
_ORIENTATION, _SHORT = 0x0112, 3


class Photo(NamedTuple):
    """An image without metadata."""

    media_type: str
    content: bytes


def strip_metadata(content: bytes) -> Photo | None:
    """Return the image without metadata. None if it is no whole image."""
    try:
        if content.startswith(b"\xff\xd8\xff"):
            return Photo(JPEG, _strip_jpeg(content))
        if content.startswith(_PNG_MAGIC):
            return Photo(PNG, _strip_png(content))
        if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
            return Photo(WEBP, _strip_webp(content))
    except (ValueError, IndexError, struct.error):
        return None
    return None


def _strip_jpeg(content: bytes) -> bytes:
    kept = [content[:2]]
    orientation = 1
    at = 2
    has_pixels = False
    while True:
        if content[at] != 0xFF:
            raise ValueError("no marker")
        marker = content[at + 1]
        if marker == 0xFF:  # padding
            at += 1
            continue
        if marker == _EOI:
            break
        (length,) = struct.unpack_from(">H", content, at + 2)
        end = at + 2 + length
        if length < 2 or end > len(content):
            raise ValueError("a segment is cut off")
        data = content[at + 4 : end]
        if marker == _APP1 and data.startswith(_EXIF_MAGIC):
            orientation = _orientation_of(data[len(_EXIF_MAGIC) :])
        if marker == _SOS:
            has_pixels = True
            end = _end_of_scan(content, end)
        is_metadata = marker == _COMMENT or (
            0xE0 <= marker <= 0xEF
            and marker not in _KEPT_APPS
            and not (marker == _ICC_APP and data.startswith(_ICC_MAGIC))
        )
        if not is_metadata:
            kept.append(content[at:end])
        at = end
    if not has_pixels:
        raise ValueError("no pixels")
    if orientation != 1:
        # behind a JFIF segment, which is the first if there is one
        kept.insert(2 if kept[1][1] == _KEPT_APPS[0] else 1, _orientation_segment(orientation))
    return b"".join(kept) + b"\xff\xd9"


def _end_of_scan(content: bytes, at: int) -> int:
    """Return where the next marker is: a 0xFF that is neither stuffed nor a restart."""
    while True:
        at = content.index(b"\xff", at)
        after = content[at + 1]
        if after != 0 and not 0xD0 <= after <= 0xD7:
            return at
        at += 2


def _orientation_of(tiff: bytes) -> int:
    """Return the orientation in EXIF data, from 1 to 8; 1 if there is none."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, directory)
        for n in range(count):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", tiff, directory + 2 + n * 12)
            if (tag, kind) == (_ORIENTATION, _SHORT) and 1 <= value <= 8:
                return int(value)
    except struct.error:
        return 1
    return 1


def _orientation_segment(orientation: int) -> bytes:
    entry = struct.pack(">HHIHH", _ORIENTATION, _SHORT, 1, orientation, 0)
    tiff = b"MM" + struct.pack(">HIH", 42, 8, 1) + entry + bytes(4)
    data = _EXIF_MAGIC + tiff
    return b"\xff\xe1" + struct.pack(">H", len(data) + 2) + data


def _strip_png(content: bytes) -> bytes:
    kept = [_PNG_MAGIC]
    at = len(_PNG_MAGIC)
    names = []
    while b"IEND" not in names:
        length, name = struct.unpack_from(">I4s", content, at)
        end = at + 12 + length
        if end > len(content):
            raise ValueError("a chunk is cut off")
        names.append(name)
        if name in _PNG_KEPT:
            kept.append(content[at:end])
        at = end
    if names[0] != b"IHDR" or b"IDAT" not in names:
        raise ValueError("no pixels")
    return b"".join(kept)


def _strip_webp(content: bytes) -> bytes:
    (size,) = struct.unpack_from("<I", content, 4)
    stop = 8 + size
    if stop > len(content):
        raise ValueError("the image is cut off")
    kept = []
    names = []
    at = 12
    while at < stop:
        name, length = struct.unpack_from("<4sI", content, at)
        end = at + 8 + length + length % 2
        if end > stop:
            raise ValueError("a chunk is cut off")
        chunk = content[at:end]
        if name == b"VP8X":
            chunk = chunk[:8] + bytes([chunk[8] & ~_WEBP_METADATA_FLAGS]) + chunk[9:]
        if name in _WEBP_KEPT:
            kept.append(chunk)
            names.append(name)
        at = end
    if not {b"VP8 ", b"VP8L", b"ANMF"} & set(names):
        raise ValueError("no pixels")
    body = b"WEBP" + b"".join(kept)
    return b"RIFF" + struct.pack("<I", len(body)) + body
