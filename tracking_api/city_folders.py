"""The folders of cities."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from data.cities import CityFolder, list_cities

FRESH_FOR_S = 5.0


class CityFolders:
    """The folders of cities, read again after some seconds."""

    def __init__(
        self, cities_dir: Path | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.cities_dir = cities_dir
        self._clock = clock
        self._read_s = float("-inf")
        self._folders: list[CityFolder] = []

    def all(self) -> list[CityFolder]:
        """Return all cities that have a folder."""
        now_s = self._clock()
        if now_s - self._read_s > FRESH_FOR_S:
            self._folders, self._read_s = list_cities(self.cities_dir), now_s
        return self._folders
