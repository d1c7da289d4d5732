"""The fleet for staff: every driver's newest position, and what of it a viewport shows.

Positions come from the feed as they are committed. States and orders are the database's: one read
for the whole process every few seconds, and only while somebody looks. Each second every viewport
gets what moved in it; where that would be too much, the viewport is divided into cells instead,
each with its count and its drivers' mean place.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec
from prometheus_client import Gauge

from doorstep.errors import DoorstepError
from doorstep.telemetry import get_logger
from tracking_api.live.frames import Frame
from tracking_api.live.viewer import Viewer
from tracking_api.reads import POSITION_COLUMNS
from tracking_api.view import LOST_AFTER_S, MOVING_MPS, SILENT_AFTER_S, presence_of

WATCHING = Gauge("doorstep_live_fleet_viewers", "Viewers of the fleet.")

TELL_EVERY_S = 1.0
READ_EVERY_S = 3.0
FULL_READ_EACH = 5  # the others read only drivers that reported; a break without a fix is seen here
USUAL_DRIVERS = 2000  # in one viewport, one by one; more are clustered
MOST_DRIVERS = 20_000  # that a viewer may ask for: a snapshot of 3 MB
CELLS = 32  # a dense viewport is this many cells wide and high
CLUSTER_COLUMNS = ["lon_deg", "lat_deg", "count"]

Row = list[Any]
"""One driver as in POSITION_COLUMNS."""

_encode = msgspec.json.Encoder().encode
_LON, _LAT, _FIX_AT = (POSITION_COLUMNS.index(name) for name in ("lon_deg", "lat_deg", "fix_at_ms"))
_RECEIVED_AT = POSITION_COLUMNS.index("received_at_ms")
_SPEED, _HEADING = POSITION_COLUMNS.index("speed_mps"), POSITION_COLUMNS.index("heading_deg")
_ACCURACY = POSITION_COLUMNS.index("accuracy_m")
_STATE, _DUTY = POSITION_COLUMNS.index("state"), POSITION_COLUMNS.index("duty")
LIMITS = {"silent_after_s": SILENT_AFTER_S, "lost_after_s": LOST_AFTER_S, "moving_mps": MOVING_MPS}

Counts = dict[str, dict[str, int]]


class Box(NamedTuple):
    """A viewport, in degrees."""

    west: float
    south: float
    east: float
    north: float

    def holds(self, row: Row) -> bool:
        """Whether a driver is in it."""
        lon_deg, lat_deg = float(row[_LON]), float(row[_LAT])
        return self.west <= lon_deg <= self.east and self.south <= lat_deg <= self.north


class FleetStore(Protocol):
    """What the fleet asks of the database."""

    async def read_positions(self, since_ms: int | None) -> tuple[int, list[Row]]: ...


class Viewport:
    """One viewer and what it has been told."""

    __slots__ = ("box", "counts", "dense", "most", "seen", "told_to", "viewer")

    def __init__(self, viewer: Viewer, box: Box, most: int) -> None:
        self.viewer = viewer
        self.box = box
        self.most = most
        self.counts: Counts = {}
        self.told_to = 0  # which changes it has been told of
        self.dense = False
        self.seen: set[str] = set()


class Fleet:
    """Every driver, as far as is known, while somebody looks."""

    def __init__(self, store: FleetStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._rows: dict[str, Row] = {}
        self._changed: dict[str, int] = {}  # driver: number of the tick that saw it change
        self._tick = 1
        self._at_ms = 0
        self._read_at = float("-inf")
        self._reads = 0
        self._counts: Counts = {}
        self._viewports: dict[Viewer, Viewport] = {}

    @property
    def is_watched(self) -> bool:
        """Whether anybody looks: otherwise nothing is kept."""
        return bool(self._viewports)

    def hear(self, positions: Iterable[Row]) -> None:
        """Take positions as tracking-positions has them."""
        for position in positions:
            driver_id, fix_at_ms, received_at_ms, lon_deg, lat_deg, accuracy_m, *rest = position
            known = self._rows.get(driver_id)
            if known is None or fix_at_ms <= known[_FIX_AT]:
                continue  # a driver nobody has read of yet comes with the next read
            row = known.copy()
            row[_LON], row[_LAT], row[_FIX_AT] = lon_deg, lat_deg, fix_at_ms
            row[_RECEIVED_AT], row[_ACCURACY] = received_at_ms, accuracy_m
            row[_SPEED], row[_HEADING] = rest[0], rest[1]
            self._keep(driver_id, row)

    async def open(self) -> None:
        """Know the whole fleet, before a first viewer comes in."""
        if not self.is_watched or self._clock() - self._read_at > 2 * READ_EVERY_S:
            await self.read(everything=True)

    def enter(self, viewer: Viewer, box: Box, most: int = USUAL_DRIVERS) -> None:
        """Show a viewer its viewport, with at most so many drivers one by one."""
        viewport = self._viewports[viewer] = Viewport(viewer, box, most)
        WATCHING.set(len(self._viewports))
        self._tell(viewport, everything=True)
        self._tick += 1  # what changes from now on is new to it

    def leave(self, viewer: Viewer) -> None:
        """A viewer is gone; with the last one all that is known."""
        self._viewports.pop(viewer, None)
        WATCHING.set(len(self._viewports))
        if not self._viewports:
            self._rows.clear()
            self._changed.clear()
            self._read_at = float("-inf")

    async def run(self) -> None:
        """Tell every viewport what moved in it, for ever."""
        while True:
            await asyncio.sleep(TELL_EVERY_S)
            if not self._viewports:
                continue
            try:
                if self._clock() - self._read_at >= READ_EVERY_S:
                    await self.read(everything=self._reads % FULL_READ_EACH == 0)
            except DoorstepError:
                pass  # positions go on; states are read when the database is back
            except Exception:  # noqa: BLE001 - the task goes on
                get_logger().exception("live_fleet_defect")
            self.tell()

    async def read(self, *, everything: bool) -> None:
        """Read the drivers that may have changed since the last read."""
        self._reads += 1
        self._read_at = self._clock()
        since_ms = None if everything else self._at_ms
        self._at_ms, rows = await self._store.read_positions(since_ms)
        for row in rows:
            known_row = self._rows.get(row[0])
            if known_row is None or (row != known_row and row[_FIX_AT] >= known_row[_FIX_AT]):
                self._keep(row[0], row)
        self._counts = counts_of(self._rows.values(), self._at_ms)

    def tell(self) -> None:
        """Tell every viewport what has changed since it was told last."""
        for viewport in list(self._viewports.values()):
            self._tell(viewport, everything=False)
        self._tick += 1

    def _keep(self, driver_id: str, row: Row) -> None:
        self._rows[driver_id] = row
        self._changed[driver_id] = self._tick

    def _tell(self, viewport: Viewport, *, everything: bool) -> None:
        viewer = viewport.viewer
        if viewer.paused:
            return  # told of it all later, when it reads again
        inside = [row for row in self._rows.values() if viewport.box.holds(row)]
        dense = len(inside) > viewport.most
        everything = everything or dense != viewport.dense
        if dense:
            body: dict[str, Any] = {"clusters": clusters(inside, viewport.box)}
            now_in: set[str] = set()
        else:
            now_in = {row[0] for row in inside}
            told_to = -1 if everything else viewport.told_to
            moved = [
                row
                for row in inside
                if self._changed[row[0]] > told_to or row[0] not in viewport.seen
            ]
            gone = [] if everything else sorted(viewport.seen - now_in)
            body = {"drivers": moved, "gone": gone}
        viewport.seen, viewport.dense, viewport.told_to = now_in, dense, self._tick
        counts_moved, viewport.counts = viewport.counts != self._counts, self._counts
        quiet = not (dense or counts_moved or body["drivers"] or body["gone"])
        if quiet and not everything:
            return
        now_ms = self._at_ms + round(1000 * (self._clock() - self._read_at))
        head: dict[str, Any] = {"at_ms": now_ms, "total": len(inside)}
        if everything:
            head |= {"columns": POSITION_COLUMNS, "cluster_columns": CLUSTER_COLUMNS}
            head["presence"] = LIMITS
        if everything or counts_moved:
            head["counts"] = self._counts
        viewer.show(Frame("snapshot" if everything else "drivers", _encode(head | body)))


def clusters(rows: Sequence[Row], box: Box) -> list[tuple[float, float, int]]:
    """Divide a viewport into cells: the mean place and the count of each that has a driver."""
    wide = (box.east - box.west) / CELLS or 1.0
    high = (box.north - box.south) / CELLS or 1.0
    cells: dict[tuple[int, int], list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    for row in rows:
        key = int((row[_LON] - box.west) / wide), int((row[_LAT] - box.south) / high)
        sums = cells[key]
        sums[0] += row[_LON]
        sums[1] += row[_LAT]
        sums[2] += 1
    return [(round(x / n, 6), round(y / n, 6), int(n)) for x, y, n in cells.values()]


def counts_of(rows: Iterable[Row], now_ms: int) -> Counts:
    """How many drivers there are by state, duty and presence, and in all."""
    states: Counter[str] = Counter()
    duties: Counter[str] = Counter()
    presences: Counter[str] = Counter()
    for row in rows:
        states[row[_STATE]] += 1
        duties[row[_DUTY]] += 1
        presences[presence_of((now_ms - row[_RECEIVED_AT]) / 1000, row[_SPEED])] += 1
    return {
        "state": dict(states),
        "duty": dict(duties),
        "presence": dict(presences),
        "all": {"drivers": states.total()},
    }
