"""tracking_api decodes packed fixes as the database does."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.database import Database
from tests.sql.fleet import Fleet
from tests.sql.packed_days import BETWEEN, MIDNIGHT, SECOND, compact, old_fix, put
from tracking_api.history.chunks import Chunk, UnreadableChunk, decode_chunk
from tracking_api.history.fixes import HistoricFix, PackedFixes
from tracking_api.stores import open_stores

SHOWN = (
    "fix_at",
    "received_at",
    "lon_deg",
    "lat_deg",
    "accuracy_m",
    "speed_mps",
    "heading_deg",
    "boot",
    "seq",
)
NOTHING = {"accuracy_m": None, "speed_mps": None, "heading_deg": None, "battery": None}


def unpacked(fleet: Fleet) -> list[HistoricFix]:
    rows = fleet.run(BETWEEN, "d1", MIDNIGHT, MIDNIGHT + timedelta(days=1))
    return [HistoricFix(*(row[one] for one in SHOWN)) for row in rows if not row["quarantine"]]


async def test_driver_history__packed_day__is_as_the_database_unpacks_it(
    database: Database, fleet: Fleet
) -> None:
    walk = [old_fix(n) for n in range(4500)]  # three chunks
    gaps = [old_fix(n, boot="b2", seq=3 * n + 1, **NOTHING) for n in range(0, 60, 2)]
    same_instant = [old_fix(7, boot=boot, seq=9) for boot in ("", "a", "z")]
    fine = [
        old_fix(0, boot="us", seq=n + 1, fix_at=MIDNIGHT + timedelta(microseconds=n**3))
        for n in range(50)
    ]
    hidden = [old_fix(n, boot="q", quarantine="jump") for n in range(5)]
    put(fleet, [*walk, *gaps, *same_instant, *fine, *hidden])
    compact(database)
    expected = unpacked(fleet)
    assert len(expected) == len(walk) + len(gaps) + len(same_instant) + len(fine)
    day = MIDNIGHT, MIDNIGHT + timedelta(days=1)
    async with open_stores(database.url("tracking_api"), database.url("customer"), 1) as stores:
        read = stores.history.read_driver_history
        found = await read("d1", *day, 10_000)
        assert isinstance(found, PackedFixes)
        assert list(found) == expected
        assert [found[0], found[-1]] == [expected[0], expected[-1]]
        with pytest.raises(IndexError):
            found[len(expected)]
        assert list(found[10:20]) == expected[10:20]
        for start in (0, 60, 100):
            assert (
                list(await read("d1", *day, 7, expected[start].key))
                == (expected[start + 1 : start + 8])
            )
        since = MIDNIGHT + timedelta(hours=10)
        assert list(await read("d1", since, since + 40 * SECOND, 100)) == [
            one for one in expected if since <= one.fix_at < since + 40 * SECOND
        ]


@pytest.mark.parametrize(
    "encoded",
    [b"", b"\x04", b"\x01\x08\x03\x00", b"\x04\x08\x03\x05\x00", b"\x04\x08\x01\x01\x00\x00\x00"],
)
def test_decode_chunk__other_bytes__are_refused(encoded: bytes) -> None:
    with pytest.raises(UnreadableChunk):
        decode_chunk(Chunk(MIDNIGHT, "", [1], [1], len(encoded), encoded))
