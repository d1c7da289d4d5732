"""The store of what admins set in memory, in place of the database."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from data import BUNDLED_CITY
from doorstep.administration.csv_table import CsvRow
from tracking_api.administration.imports import Imported
from tracking_api.administration.queries import Resource

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
KEYS: dict[str, list[Any]] = {
    "driver": ["d1", "d2"],
    "restaurant": [1, 2],
    "area": [BUNDLED_CITY],
    "policy": [1],
}
_RADII = ("enter_radius_m", "dwell_spread_m", "leave_radius_m", "arriving_radius_m")
_TIMES = ("dwell_min_s", "dwell_max_s", "leave_min_s", "leave_max_s", "arriving_min_s")
_OTHERS = (
    "dwell_max_mps",
    "worst_accuracy_m",
    "report_every_s",
    "pace",
    "offer_s",
    "nearby_m",
    "nearby_s",
)
ROWS: dict[str, dict[str, Any]] = {
    "driver": {
        "name": "Anna",
        "vehicle": "moped",
        "phone": "+39 055 1",
        "created_at": NOON,
        "retired_at": None,
    },
    "restaurant": {
        "name": "Da Mario",
        "lat_deg": 43.0,
        "lon_deg": 11.0,
        "address": None,
        "phone": None,
        "opening_hours": None,
        "preparation_s": None,
        "city": None,
        "retired_at": None,
    },
    "area": {
        "west": 11.1,
        "south": 43.7,
        "east": 11.4,
        "north": 43.9,
        "time_zone": "UTC",
        "retired_at": None,
    },
    "policy": {
        **dict.fromkeys((*_RADII, *_TIMES, *_OTHERS), 1.0),
        "name": "default",
        "created_at": NOON,
        "auto_offer": False,
        "is_default": True,
        "retired_at": None,
    },
}


class MemoryAdministration:
    """The rows of ROWS; changes are recorded in `people_changes`."""

    people_changes: list[tuple[str, str, str]]

    async def list_rows(
        self, resource: Resource, limit: int, after: Any = None, *, retired: bool = False
    ) -> list[dict[str, Any]]:
        rows = [ROWS[resource.name] | {resource.key: key} for key in KEYS[resource.name]]
        return [one for one in rows if after is None or one[resource.key] > after][:limit]

    async def read_row(self, resource: Resource, key: Any) -> dict[str, Any]:
        return ROWS[resource.name] | {resource.key: key}

    async def create_row(self, resource: Resource, values: Any, who: str) -> Any:
        self.people_changes.append((resource.name, "create", who))
        return KEYS[resource.name][0]

    async def change_row(self, resource: Resource, key: Any, values: Any, who: str) -> Any:
        self.people_changes.append((str(key), "change", who))
        return key

    async def retire_row(self, resource: Resource, key: Any, who: str) -> None:
        self.people_changes.append((str(key), "retire", who))

    async def set_default_policy(self, policy_id: int, who: str) -> None:
        self.people_changes.append((str(policy_id), "set_default", who))

    async def add_driver(self, driver_id: str, values: Any, secrets: Any, who: str) -> None:
        self.people_changes.append((driver_id, "add", who))

    async def import_rows(
        self, resource: Resource, rows: Sequence[CsvRow], who: str, *, dry_run: bool
    ) -> Imported:
        self.people_changes.append((resource.name, "dry run" if dry_run else "import", who))
        return Imported(created=[row.key for row in rows])
