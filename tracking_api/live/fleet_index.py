"""Every driver's row, with what is asked of the whole fleet beside it in columns.

A question to 100,000 drivers (who is in this box, how many are silent) is then a millisecond of
numpy, and not a tenth of a second of Python. The columns catch up with the rows when `catch_up`
says so, once before such questions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tracking_api.fleet.presence import LOST_AFTER_S, MOVING_MPS, SILENT_AFTER_S
from tracking_api.fleet.queries import POSITION_COLUMNS, Row
from tracking_api.fleet.viewports import Box

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
_OF_THE_FIX = slice(_LON, _BATTERY)


class FleetIndex:
    """Drivers are numbered from 0 in the order in which they became known."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self._numbers: dict[str, int] = {}
        self._carriers: dict[str, int] = {}  # by order
        self._behind: set[int] = set()  # rows that their columns do not show yet
        self._codes: dict[str, int] = {}  # of states and duties
        self.lon_deg = np.empty(0)
        self.lat_deg = np.empty(0)
        self.changed = np.empty(0, np.int64)  # the tick that saw it
        self._received_at_ms = np.empty(0)
        self._speed_mps = np.empty(0)
        self._state = np.empty(0, np.int16)
        self._duty = np.empty(0, np.int16)

    def __len__(self) -> int:
        return len(self.rows)

    def carrier_of(self, order_id: str) -> str | None:
        """The driver who has this order, as far as is known."""
        number = self._carriers.get(order_id)
        return None if number is None else str(self.rows[number][_DRIVER_ID])

    def take(self, row: Row) -> None:
        """Take a row as it was read. A newer fix that was heard meanwhile stays."""
        number = self._numbers.get(row[_DRIVER_ID])
        if number is None:
            number = self._numbers[row[_DRIVER_ID]] = len(self.rows)
            self.rows.append(row)
        else:
            known = self.rows[number]
            if row[_FIX_AT] < known[_FIX_AT]:
                row[_OF_THE_FIX] = known[_OF_THE_FIX]
            if row == known:
                return
            if (
                known[_ORDER_ID] != row[_ORDER_ID]
                and self._carriers.get(known[_ORDER_ID]) == number
            ):
                del self._carriers[known[_ORDER_ID]]
            self.rows[number] = row
        if row[_ORDER_ID] is not None:
            self._carriers[row[_ORDER_ID]] = number
        self._behind.add(number)

    def move(self, position: Row) -> bool:
        """Take a position as tracking-positions has it. False: this driver is not known yet."""
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
            row[_LON:_BATTERY] = (
                lon_deg, lat_deg, fix_at_ms, received_at_ms, speed_mps, heading_deg, accuracy_m,
            )  # fmt: skip
            self._behind.add(number)
        return True

    # -- asked of all --------------------------------------------------------------------------

    def catch_up(self, tick: int) -> None:
        """Bring the columns up to date; what was behind has changed in this tick."""
        self._grow()
        if not self._behind:
            return
        rows = [self.rows[number] for number in self._behind]
        at = np.fromiter(self._behind, np.int64, len(rows))
        self.lon_deg[at] = [row[_LON] for row in rows]
        self.lat_deg[at] = [row[_LAT] for row in rows]
        self._received_at_ms[at] = [row[_RECEIVED_AT] for row in rows]
        self._speed_mps[at] = [np.nan if row[_SPEED] is None else row[_SPEED] for row in rows]
        self._state[at] = [self._code(row[_STATE]) for row in rows]
        self._duty[at] = [self._code(row[_DUTY]) for row in rows]
        self.changed[at] = tick
        self._behind.clear()

    def inside(self, box: Box) -> Mask:
        """Who is in a viewport."""
        lon_deg, lat_deg = self.lon_deg, self.lat_deg
        return (
            (lon_deg >= box.west)
            & (lon_deg <= box.east)
            & (lat_deg >= box.south)
            & (lat_deg <= box.north)
        )

    def rows_of(self, mask: Mask) -> list[Row]:
        """The rows of those drivers."""
        return [self.rows[number] for number in np.flatnonzero(mask).tolist()]

    def counts(self, now_ms: int) -> Counts:
        """How many drivers there are by state, duty and presence, and in all."""
        quiet_s = (now_ms - self._received_at_ms) / 1000
        lost = quiet_s > LOST_AFTER_S
        silent = (quiet_s > SILENT_AFTER_S) & ~lost
        stationary = (self._speed_mps < MOVING_MPS) & ~lost & ~silent
        presences = {
            name: int(np.count_nonzero(mask))
            for name, mask in (("lost", lost), ("silent", silent), ("stationary", stationary))
        }
        presences["online"] = len(self.lon_deg) - sum(presences.values())
        return {
            "state": self._tally(self._state),
            "duty": self._tally(self._duty),
            "presence": {name: count for name, count in presences.items() if count},
            "all": {"drivers": len(self.lon_deg)},
        }

    def _tally(self, codes: NDArray[np.int16]) -> dict[str, int]:
        counts = np.bincount(codes, minlength=len(self._codes)).tolist()
        return {name: counts[code] for name, code in self._codes.items() if counts[code]}

    def _code(self, name: str) -> int:
        return self._codes.setdefault(name, len(self._codes))

    def _grow(self) -> None:
        more = len(self.rows) - len(self.lon_deg)
        if not more:
            return
        for name in (
            "lon_deg",
            "lat_deg",
            "changed",
            "_received_at_ms",
            "_speed_mps",
            "_state",
            "_duty",
        ):
            column = getattr(self, name)
            setattr(self, name, np.concatenate([column, np.zeros(more, column.dtype)]))


def clusters(
    lon_deg: NDArray[np.float64], lat_deg: NDArray[np.float64], box: Box
) -> list[tuple[float, float, int]]:
    """Divide a viewport into cells: the mean place and the count of each that has a driver."""
    wide = (box.east - box.west) / CELLS or 1.0
    high = (box.north - box.south) / CELLS or 1.0
    columns = ((lon_deg - box.west) / wide).astype(np.int64)
    cells = columns * (CELLS + 1) + ((lat_deg - box.south) / high).astype(np.int64)
    counts = np.bincount(cells)
    held = np.flatnonzero(counts)
    counts = counts[held]
    lon_means = np.bincount(cells, lon_deg)[held] / counts
    lat_means = np.bincount(cells, lat_deg)[held] / counts
    return list(
        zip(lon_means.round(6).tolist(), lat_means.round(6).tolist(), counts.tolist(), strict=True)
    )
