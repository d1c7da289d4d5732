"""A small reader of vector tiles (MVT 2.1): points and their properties, which is all we write."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any


def read_tile(tile: bytes) -> dict[str, list[tuple[tuple[int, int], dict[str, Any]]]]:
    """The points of each layer, in the tile's own 4096 x 4096, with their properties."""
    layers = {}
    for number, layer in _fields(tile):
        assert number == 3
        keys, values, features, name = [], [], [], ""
        for field, value in _fields(layer):
            if field == 1:
                name = value.decode()
            elif field == 2:
                features.append(dict(_fields(value)))
            elif field == 3:
                keys.append(value.decode())
            elif field == 4:
                values.append(_value(value))
        layers[name] = [_point(feature, keys, values) for feature in features]
    return layers


def _point(feature: dict[int, Any], keys: list[str], values: list[Any]) -> Any:
    tags = list(_varints(feature.get(2, b"")))
    command, x, y = _varints(feature[4])
    assert (feature[3], command) == (1, 9)  # a point: move to, once
    properties = {keys[k]: values[v] for k, v in zip(tags[::2], tags[1::2], strict=True)}
    return (_zigzag(x), _zigzag(y)), properties


def _value(message: bytes) -> Any:
    [(field, value)] = _fields(message)
    if field == 1:
        return value.decode()
    return _zigzag(value) if field == 6 else value


def _zigzag(number: int) -> int:
    return (number >> 1) ^ -(number & 1)


def _varints(data: bytes) -> Iterator[int]:
    number = shift = 0
    for byte in data:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            yield number
            number = shift = 0


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    at = 0

    def varint() -> int:
        nonlocal at
        start = at
        while message[at] >= 0x80:
            at += 1
        at += 1
        [number] = _varints(message[start:at])
        return number

    while at < len(message):
        key = varint()
        kind = key & 7
        if kind == 0:
            yield key >> 3, varint()
            continue
        size = varint() if kind == 2 else {1: 8, 5: 4}[kind]
        found = message[at : at + size]
        at += size
        yield key >> 3, found if kind == 2 else struct.unpack("<d" if size == 8 else "<f", found)[0]
