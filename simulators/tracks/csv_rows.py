"""CSV with a header line, separated by `,`, `;` or tabs."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator

from simulators.tracks.fields import FieldNames
from simulators.tracks.points import LONG_LINE, Skipped, TrackPoint, UnreadableTrack, make_point

BAD_ROW = "row not readable"


class NoTable(UnreadableTrack):
    """The first line names no known column: the file is no track."""


def read_csv(
    lines: Iterable[tuple[int, str | None]], names: FieldNames
) -> Iterator[TrackPoint | Skipped]:
    """Read the rows. Raises UnreadableTrack if the header lacks a column that a track needs."""
    numbered = iter(lines)
    head = ""
    for _number, line in numbered:
        if line is None:
            raise NoTable("the first line is too long")
        if line.strip():
            head = line
            break
    delimiter = max(",;\t", key=head.count)
    columns = next(csv.reader([head], delimiter=delimiter), [])
    if not any(names.find(column) for column in columns):
        raise NoTable("no known column")
    names.require(columns)
    yield from _read_rows(numbered, columns, delimiter, names)


def _read_rows(
    lines: Iterator[tuple[int, str | None]], columns: list[str], delimiter: str, names: FieldNames
) -> Iterator[TrackPoint | Skipped]:
    too_long: list[int] = []
    number = 0

    def texts() -> Iterator[str]:
        nonlocal number
        for number, line in lines:
            if line is None:
                too_long.append(number)
            elif line.strip():
                yield line

    rows = csv.reader(texts(), delimiter=delimiter)
    while True:
        try:
            row = next(rows)
        except StopIteration:
            break
        except csv.Error:
            yield Skipped(BAD_ROW, f"line {number:,}")
            continue
        yield make_point(names.read(dict(zip(columns, row, strict=False))), f"line {number:,}")
        while too_long:
            yield Skipped(LONG_LINE, f"line {too_long.pop():,}")
    while too_long:
        yield Skipped(LONG_LINE, f"line {too_long.pop():,}")
