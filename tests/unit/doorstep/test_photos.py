"""Photos without metadata. The images are the smallest that their formats allow."""

from __future__ import annotations

import struct
import zlib

import pytest

from doorstep.photos import JPEG, PNG, WEBP, strip_metadata

PLACE = b"43.7731 N 11.2560 E"
JFIF = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
SCAN = b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" + b"pixels\xff\x00\xff\xd0more"
END = b"\xff\xd9"


def segment(marker: int, data: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(data) + 2) + data


def exif(orientation: int, order: str = ">") -> bytes:
    """EXIF with an orientation and a place, as a phone writes it."""
    entry = struct.pack(f"{order}HHIHH", 0x0112, 3, 1, orientation, 0)
    head = (b"MM" if order == ">" else b"II") + struct.pack(f"{order}HI", 42, 8)
    tiff = head + struct.pack(f"{order}H", 1) + entry + bytes(4) + PLACE
    return segment(0xE1, b"Exif\x00\x00" + tiff)


def jpeg(*segments: bytes) -> bytes:
    return b"\xff\xd8" + JFIF + b"".join(segments) + SCAN + END


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    found = b"\x89PNG\r\n\x1a\n"
    for name, data in ((b"IHDR", bytes(13)), *chunks, (b"IDAT", b"pixels"), (b"IEND", b"")):
        check = struct.pack(">I", zlib.crc32(name + data))
        found += struct.pack(">I", len(data)) + name + data + check
    return found


def webp(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"WEBP"
    for name, data in (*chunks, (b"VP8 ", b"pixels!!")):
        body += name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def test_strip_metadata__clean_images__stay_as_they_are() -> None:
    for kind, image in ((JPEG, jpeg()), (PNG, png()), (WEBP, webp())):
        assert strip_metadata(image) == (kind, image)


def test_strip_metadata__jpeg__loses_place_comment_and_what_follows_its_end() -> None:
    icc = segment(0xE2, b"ICC_PROFILE\x00 colours")
    photo = jpeg(
        segment(0xE1, b"http://ns.adobe.com/xap/1.0/\x00" + PLACE),
        segment(0xED, PLACE),
        segment(0xE2, b"MPF\x00" + PLACE),
        segment(0xFE, PLACE),
        icc,
    )
    assert strip_metadata(photo + b"a video" + PLACE) == (JPEG, jpeg(icc))


@pytest.mark.parametrize("order", [">", "<"], ids=["big-endian", "little-endian"])
def test_strip_metadata__turned_jpeg__keeps_only_the_orientation(order: str) -> None:
    found = strip_metadata(jpeg(exif(6, order)))
    assert found is not None
    assert PLACE not in found.content
    if order == ">":
        expected = jpeg(exif(6).replace(PLACE, b"").replace(b"\x00\x35", b"\x00\x22", 1))
        assert found.content == expected
    assert strip_metadata(found.content) == found


def test_strip_metadata__upright_jpeg__keeps_no_exif() -> None:
    assert strip_metadata(jpeg(exif(1))) == (JPEG, jpeg())
    assert strip_metadata(jpeg(segment(0xE1, b"Exif\x00\x00MM cut off"))) == (JPEG, jpeg())


def test_strip_metadata__png__loses_text_time_and_exif() -> None:
    chunks = [(name, PLACE) for name in (b"tEXt", b"iTXt", b"zTXt", b"eXIf", b"tIME")]
    assert strip_metadata(png(*chunks, (b"gAMA", bytes(4)))) == (PNG, png((b"gAMA", bytes(4))))


def test_strip_metadata__webp__loses_exif_and_xmp_and_their_flags() -> None:
    head = bytes([0x10 | 0x08 | 0x04]) + bytes(9)
    found = strip_metadata(webp((b"VP8X", head), (b"EXIF", PLACE), (b"XMP ", PLACE + b"!")))
    assert found == (WEBP, webp((b"VP8X", bytes([0x10]) + bytes(9))))


@pytest.mark.parametrize(
    "content",
    [b"", b"GIF89a", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.7", b"\xff\xd8\xff"],
)
def test_strip_metadata__no_such_image__is_none(content: bytes) -> None:
    assert strip_metadata(content) is None


@pytest.mark.parametrize("image", [jpeg(exif(6)), png(), webp()], ids=["jpeg", "png", "webp"])
def test_strip_metadata__cut_off_anywhere__is_none(image: bytes) -> None:
    assert [n for n in range(len(image)) if strip_metadata(image[:n]) is not None] == []
