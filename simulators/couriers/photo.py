"""A picture of an order in front of a door, as a courier photographs it. Pure."""

from __future__ import annotations

import random
import struct
import zlib
from typing import NamedTuple

WIDTH, HEIGHT = 320, 240
WALLS = ((214, 196, 164), (196, 172, 150), (226, 214, 190))
DOORS = ((70, 92, 64), (96, 62, 42), (44, 66, 102), (122, 44, 40))
BAGS = ((190, 142, 88), (236, 236, 230))
FLOOR = (120, 116, 112)

Colour = tuple[int, int, int]


class Box(NamedTuple):
    """A coloured rectangle, in pixels."""

    left: int
    top: int
    right: int
    bottom: int
    colour: Colour


def photo_of_door(rng: random.Random) -> bytes:
    """Draw a door with an order in front of it, as PNG."""
    left = rng.randint(60, 120)
    bag = left + rng.randint(-30, 90)
    boxes = (
        Box(0, 190, WIDTH, HEIGHT, FLOOR),
        Box(left, 20, left + 110, 200, rng.choice(DOORS)),
        Box(left + 92, 106, left + 100, 114, (214, 178, 70)),  # the knob
        Box(bag, 160, bag + 46, 218, rng.choice(BAGS)),
    )
    return encode_png(rng.choice(WALLS), boxes)


def encode_png(background: Colour, boxes: tuple[Box, ...]) -> bytes:
    """Encode boxes on a background, the last one on top."""
    rows = bytearray()
    for y in range(HEIGHT):
        row = bytearray(bytes(background) * WIDTH)
        for box in boxes:
            if box.top <= y < box.bottom:
                row[3 * box.left : 3 * box.right] = bytes(box.colour) * (box.right - box.left)
        rows += b"\x00" + row  # without a filter
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 0)  # 8 bits of red, green, blue
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(rows))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in chunks)


def _chunk(name: bytes, data: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(name + data))
    return struct.pack(">I", len(data)) + name + data + check
