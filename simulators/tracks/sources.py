"""Reads files of any size in bounded memory: chunks, lines, archives.

A file may be gzip, or a ZIP with one track in it (KMZ, an export of a watch). Archives in archives
are not opened.
"""

from __future__ import annotations

import gzip
import io
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from simulators.tracks.points import UnreadableTrack

MIB = 1 << 20
MAX_BYTES = 1024 * MIB  # of a file that is read as a stream
MAX_UNPACKED_BYTES = 256 * MIB  # of an archive's content
MAX_JSON_BYTES = 256 * MIB  # of a file that is read at once
MAX_LINE_BYTES = 64 * 1024
CHUNK_BYTES = 64 * 1024
TRACK_SUFFIXES = (".kml", ".gpx", ".fit", ".nmea", ".csv", ".json", ".geojson", ".txt", ".log")
BROKEN_ARCHIVE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)


class BoundedReader(io.RawIOBase):
    """Reads a stream up to a number of bytes. Raises UnreadableTrack beyond it."""

    def __init__(self, stream: Any, most_bytes: int) -> None:
        super().__init__()
        self._stream = stream
        self._most_bytes = most_bytes
        self._left = most_bytes

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read at most as many bytes as the buffer holds."""
        data: bytes = self._stream.read(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise UnreadableTrack(f"longer than {self._most_bytes // MIB:,} MiB")
        buffer[: len(data)] = data
        return len(data)


@contextmanager
def open_track(path: Path) -> Iterator[io.BufferedReader]:
    """Open a file, unpacked. Raises OSError, and UnreadableTrack while it is read."""
    with path.open("rb", buffering=CHUNK_BYTES) as file:
        try:
            with _unpack(file) as stream:
                most_bytes = MAX_BYTES if stream is file else MAX_UNPACKED_BYTES
                yield io.BufferedReader(BoundedReader(stream, most_bytes), CHUNK_BYTES)
        except BROKEN_ARCHIVE as exc:
            raise UnreadableTrack(f"not a readable archive: {exc}") from exc


@contextmanager
def _unpack(file: Any) -> Iterator[Any]:
    head = file.peek(4)[:4]
    if head.startswith(b"\x1f\x8b"):
        with gzip.GzipFile(fileobj=file) as unzipped:
            yield unzipped
    elif head == b"PK\x03\x04":
        with zipfile.ZipFile(file) as archive:
            names = [name for name in archive.namelist() if name.lower().endswith(TRACK_SUFFIXES)]
            if not names:
                raise UnreadableTrack("no track in the archive")
            if len(names) > 1 and "doc.kml" not in names:
                raise UnreadableTrack(f"{len(names)} tracks in the archive: unpack it")
            with archive.open("doc.kml" if "doc.kml" in names else names[0]) as member:
                yield member
    else:
        yield file


def read_lines(stream: io.BufferedReader) -> Iterator[tuple[int, str | None]]:
    """Return the lines with their numbers. None for a line that is too long to be kept."""
    number = 0
    while line := stream.readline(MAX_LINE_BYTES):
        number += 1
        if len(line) < MAX_LINE_BYTES or line.endswith(b"\n"):
            yield number, line.decode("utf-8-sig" if number == 1 else "utf-8", "replace")
            continue
        while line and not line.endswith(b"\n"):
            line = stream.readline(MAX_LINE_BYTES)
        yield number, None


def read_chunks(stream: io.BufferedReader) -> Iterator[bytes]:
    """Return the bytes in chunks."""
    while chunk := stream.read(CHUNK_BYTES):
        yield chunk


def read_json_bytes(stream: io.BufferedReader) -> bytes:
    """Return all bytes of a JSON file. Raises UnreadableTrack for a larger one."""
    data = stream.read(MAX_JSON_BYTES + 1)
    if len(data) > MAX_JSON_BYTES:
        raise UnreadableTrack(f"JSON of more than {MAX_JSON_BYTES // MIB:,} MiB")
    return data.removeprefix(b"\xef\xbb\xbf")
