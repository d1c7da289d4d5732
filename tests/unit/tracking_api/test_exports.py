"""A driver's past as a file, and the tiles' cache. Pure, or over a store in memory."""

from __future__ import annotations

import asyncio
import csv
import io
import xml.etree.ElementTree as ET
from datetime import UTC, datetime, timedelta

import pytest

from doorstep.errors import StoreUnavailable
from tracking_api.fleet.dispatch_queries import TileFilters, uuid_range
from tracking_api.fleet.tiles import FRESH_FOR_S, TileCache
from tracking_api.history.exports import CsvWriter, GpxWriter, spreadsheet_safe
from tracking_api.track.visibility import Position

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def spot(after_s: float) -> Position:
    at = NOON + timedelta(seconds=after_s)
    return Position(at, at, -11.25, 43.77)


@pytest.mark.parametrize("text", ["=1+1", "+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1"])
def test_csv__text_like_a_formula__is_escaped(text):
    assert spreadsheet_safe(text) == f"'{text}"


def test_csv__driver_id_like_a_formula__is_escaped_and_numbers_are_not():
    writer = CsvWriter("-1-1")
    [row] = csv.DictReader(io.StringIO(writer.head() + writer.page([spot(0)]) + writer.foot()))
    assert (row["driver_id"], row["lon_deg"]) == ("'-1-1", "-11.25")


def test_gpx__a_name_with_markup_and_a_silence__is_text_and_two_segments():
    writer = GpxWriter("<a>&b")
    text = writer.head() + writer.page([spot(0), spot(10)]) + writer.page([spot(1000)])
    name = "{http://www.topografix.com/GPX/1/1}"
    track = ET.fromstring(text + writer.foot())[0]
    assert track[0].text == "<a>&b"
    assert [len(segment) for segment in track.iter(f"{name}trkseg")] == [2, 1]


@pytest.mark.parametrize("text", ["", "g", "0" * 33, "dead beef"])
def test_uuid_range__not_a_uuid_prefix__is_none(text):
    assert uuid_range(text) is None


class CountingStore:
    """The seam is `DispatchStore`, as far as tiles use it."""

    def __init__(self) -> None:
        self.reads = 0
        self.away = False

    async def read_tile(self, z: int, x: int, y: int, filters: TileFilters, limit: int) -> bytes:
        self.reads += 1
        await asyncio.sleep(0)
        if self.away:
            raise StoreUnavailable
        return b"tile %d" % self.reads


async def test_tile_cache__concurrent_and_recent_requests__share_one_read():
    now = 0.0
    store = CountingStore()
    tiles = TileCache(store, lambda: now)  # type: ignore[arg-type]
    everybody = [tiles.get(1, 0, 0, TileFilters()) for _ in range(9)]
    assert set(await asyncio.gather(*everybody)) == {b"tile 1"}
    assert await tiles.get(1, 0, 0, TileFilters(("available",))) == b"tile 2"
    now = FRESH_FOR_S + 0.1
    assert await tiles.get(1, 0, 0, TileFilters()) == b"tile 3"


async def test_tile_cache__failed_read__is_not_cached():
    store = CountingStore()
    tiles = TileCache(store, lambda: 0.0)  # type: ignore[arg-type]
    store.away = True
    with pytest.raises(StoreUnavailable):
        await tiles.get(0, 0, 0, TileFilters())
    store.away = False
    assert await tiles.get(0, 0, 0, TileFilters()) == b"tile 2"
