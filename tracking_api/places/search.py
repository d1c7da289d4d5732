"""The cities' places, loaded when they are first searched."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from data.cities import CityFolder
from tracking_api.places.index import PlaceIndex, load_places


@dataclass(slots=True)
class PlaceSearch:
    """One index per city that was searched. A changed city is loaded again."""

    _loads: dict[str, tuple[CityFolder, asyncio.Task[PlaceIndex]]] = field(default_factory=dict)

    async def index_of(self, city: CityFolder) -> PlaceIndex:
        """Return a city's index; loads it in another thread, once."""
        held = self._loads.get(city.name)
        if held is None or held[0] != city or _has_failed(held[1]):
            held = city, asyncio.create_task(asyncio.to_thread(load_places, city))
            self._loads[city.name] = held
        return await asyncio.shield(held[1])


def _has_failed(task: asyncio.Task[PlaceIndex]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)
