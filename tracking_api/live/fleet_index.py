"""Every driver's row, and columns of numbers for questions about the whole fleet.

Which of 100,000 drivers are in a box, or how many are silent, takes a millisecond of numpy instead
of a tenth of a second of Python. `flush` brings the columns up to date with the rows, once before
such questions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tracking_api.fleet.presence import LOST_AFTER_S, MOVING_MPS, SILENT_AFTER_S
from tracking_api.fleet.queries import POSITION_COLUMNS, Row
from tracking_api.fleet.viewports import Box
from tracking_api.live.feed import PackedPosition

CELLS = 32  # a dense viewport is this many cells wide and high

Mask = NDArray[np.bool_]
Counts = dict[str, dict[str, int]]

(
    _DRIVER_ID,
    _STATE,
    _LON,
    _LAT,
    _FIX_AT,
    _RECEIVED_AT,
    _SPEED,
    _HEADING,
    _ACCURACY,
    _BATTERY,
    _ORDER_ID,
    _DUTY,
) = range(len(POSITION_COLUMNS))
_FIX_COLUMNS = slice(_LON, _BATTERY)


class FleetIndex:
    """Drivers are numbered from 0 in the order of their first row."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self._numbers: dict[str, int] = {}
        self._number_by_order: dict[str, int] = {}
        self._dirty: set[int] = set()  # rows that are newer than their columns
        self._codes: dict[str, int] = {}  # of states and duties
        self.lon_deg = np.empty(0)
        self.lat_deg = np.empty(0)
        self.changed_tick = np.empty(0, np.int64)
        self._received_at_ms = np.empty(0)
        self._speed_mps = np.empty(0)
        self._state = np.empty(0, np.int16)
        self._duty = np.empty(0, np.int16)

    def __len__(self) -> int:
        return len(self.rows)

    def driver_of(self, order_id: str) -> str | None:
        """Return the driver whose row has this order."""
        number = self._number_by_order.get(order_id)
        return None if number is None else str(self.rows[number][_DRIVER_ID])

    def upsert(self, row: Row) -> None:
        """Add or replace a driver's row as read from the database, keeping a newer position."""
        number = self._numbers.get(row[_DRIVER_ID])
        if number is None:
            number = self._numbers[row[_DRIVER_ID]] = len(self.rows)
            self.rows.append(row)
        else:
            previous = self.rows[number]
            if row[_FIX_AT] < previous[_FIX_AT]:
                row[_FIX_COLUMNS] = previous[_FIX_COLUMNS]
            if row == previous:
                return
            previous_order = previous[_ORDER_ID]
            if (
                previous_order != row[_ORDER_ID]
                and self._number_by_order.get(previous_order) == number
            ):
                del self._number_by_order[previous_order]
            self.rows[number] = row
        if row[_ORDER_ID] is not None:
            self._number_by_order[row[_ORDER_ID]] = number
        self._dirty.add(number)

    def remove(self, driver_id: str) -> None:
        """Take a driver off: the row has no place from now on."""
        number = self._numbers.pop(driver_id, None)
        if number is not None:
            row = self.rows[number] = list(self.rows[number])
            row[_LON] = row[_LAT] = np.nan
            self._dirty.add(number)

    def update_position(self, position: PackedPosition) -> bool:
        """Apply a position of tracking-positions. False if the driver has no row."""
        (
            driver_id,
            fix_at_ms,
            received_at_ms,
            lon_deg,
            lat_deg,
            accuracy_m,
            speed_mps,
            heading_deg,
        ) = position[:8]
        number = self._numbers.get(driver_id)
        if number is None:
            return False
        row = self.rows[number]
        if fix_at_ms > row[_FIX_AT]:
            row[_FIX_COLUMNS] = (
                lon_deg, lat_deg, fix_at_ms, received_at_ms, speed_mps, heading_deg, accuracy_m,
            )  # fmt: skip
            self._dirty.add(number)
        return True

    # -- questions about all drivers; call `flush` first --------------------------------------

    def flush(self, tick: int) -> None:
        """Bring the columns up to date; changed rows get this tick."""
        self._grow()
        if not self._dirty:
            return
        rows = [self.rows[number] for number in self._dirty]
        at = np.fromiter(self._dirty, np.int64, len(rows))
        self.lon_deg[at] = [row[_LON] for row in rows]
        self.lat_deg[at] = [row[_LAT] for row in rows]
        self._received_at_ms[at] = [row[_RECEIVED_AT] for row in rows]
        self._speed_mps[at] = [np.nan if row[_SPEED] is None else row[_SPEED] for row in rows]
        self._state[at] = [self._code(row[_STATE]) for row in rows]
        self._duty[at] = [self._code(row[_DUTY]) for row in rows]
        self.changed_tick[at] = tick
        self._dirty.clear()

    def inside(self, box: Box) -> Mask:
        """Return which drivers are in a viewport."""
        lon_deg, lat_deg = self.lon_deg, self.lat_deg
        is_east, is_west = lon_deg >= box.west, lon_deg <= box.east
        is_between = is_east & is_west if box.west <= box.east else is_east | is_west
        return is_between & (lat_deg >= box.south) & (lat_deg <= box.north)

    def rows_of(self, mask: Mask) -> list[Row]:
        """Return the rows of these drivers."""
        return [self.rows[number] for number in np.flatnonzero(mask).tolist()]

    def counts(self, now_ms: int) -> Counts:
        """Count drivers by state, duty and presence, and in all.

        Off duty a phone may be silent: such a driver counts to no presence.
        """
        present = ~np.isnan(self.lon_deg)  # not removed
        total = int(np.count_nonzero(present))
        silent_s = (now_ms - self._received_at_ms) / 1000
        is_silent = (silent_s > SILENT_AFTER_S) & present
        resting = is_silent & (self._duty == self._code("off_duty"))
        lost = (silent_s > LOST_AFTER_S) & present & ~resting
        silent = is_silent & ~lost & ~resting
        stationary = (self._speed_mps < MOVING_MPS) & present & ~is_silent
        presences = {
            name: int(np.count_nonzero(mask))
            for name, mask in (("lost", lost), ("silent", silent), ("stationary", stationary))
        }
        absent = int(np.count_nonzero(resting))
        presences["online"] = total - absent - sum(presences.values())
        return {
            "state": self._tally(self._state[present]),
            "duty": self._tally(self._duty[present]),
            "presence": {name: count for name, count in presences.items() if count},
            "all": {"drivers": total},
        }

    def _tally(self, codes: NDArray[np.int16]) -> dict[str, int]:
        counts = np.bincount(codes, minlength=len(self._codes)).tolist()
        return {name: counts[code] for name, code in self._codes.items() if counts[code]}

    def _code(self, name: str) -> int:
        return self._codes.setdefault(name, len(self._codes))

    def _grow(self) -> None:
        added = len(self.rows) - len(self.lon_deg)
        if not added:
            return
        for name in (
            "lon_deg",
            "lat_deg",
            "changed_tick",
            "_received_at_ms",
            "_speed_mps",
            "_state",
            "_duty",
        ):
            column = getattr(self, name)
            setattr(self, name, np.concatenate([column, np.zeros(added, column.dtype)]))


def cluster(
    lon_deg: NDArray[np.float64], lat_deg: NDArray[np.float64], box: Box
) -> list[tuple[float, float, int]]:
    """Divide a viewport into cells; return the mean place and the count of each non-empty one."""
    width_deg = box.width_deg / CELLS or 1.0
    # east of ±180° longitudes go on
    lon_deg = np.where(lon_deg < box.west, lon_deg + 360.0, lon_deg)
    height_deg = (box.north - box.south) / CELLS or 1.0
    columns = ((lon_deg - box.west) / width_deg).astype(np.int64)
    cells = columns * (CELLS + 1) + ((lat_deg - box.south) / height_deg).astype(np.int64)
    counts = np.bincount(cells)
    occupied = np.flatnonzero(counts)
    counts = counts[occupied]
    lon_means = np.bincount(cells, lon_deg)[occupied] / counts
    lat_means = np.bincount(cells, lat_deg)[occupied] / counts
    lon_means = np.where(lon_means > 180.0, lon_means - 360.0, lon_means)
    return list(
        zip(lon_means.round(6).tolist(), lat_means.round(6).tolist(), counts.tolist(), strict=True)
    )
