"""The stores of restaurants and reports in memory, in place of the database."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import UUID

from data import BUNDLED_CITY
from doorstep.credentials import token_sha256
from doorstep.errors import UnknownOrder, UnknownServiceArea
from tracking_api.reports.distance import Place
from tracking_api.reports.queries import Day, DriverFigures, Reason, RestaurantFigures
from tracking_api.reports.schemas import Stage
from tracking_api.restaurant.queries import RestaurantOrder, RestaurantSession

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
ORDER_ID = UUID(int=1)  # fixed: names of tests hold it


class MemoryReports:
    """Restaurant 1 with ORDER_ID and the token `tok-restaurant`; a report of `report_drivers`."""

    report_drivers: Sequence[str] = ("d1", "d2")

    async def find_restaurant_session(self, sha256: bytes) -> RestaurantSession | None:
        if sha256 != token_sha256("tok-restaurant"):
            return None
        return RestaurantSession("mario", 1, "Da Mario", None, "UTC", 11.0, 43.0, 900)

    async def read_restaurant_orders(self, sha256: bytes) -> list[RestaurantOrder]:
        return [await self.read_restaurant_order(sha256, ORDER_ID)]

    async def read_restaurant_order(self, sha256: bytes, order_id: UUID) -> RestaurantOrder:
        if order_id != ORDER_ID:
            raise UnknownOrder
        none = dict.fromkeys(RestaurantOrder._fields)
        known = {"order_id": order_id, "state": "created", "created_at": NOON, "pace": 1.0}
        return RestaurantOrder(**(none | known))

    async def confirm_as_restaurant(self, sha256: bytes, order_id: UUID, key: str | None) -> None:
        await self.read_restaurant_order(sha256, order_id)

    async def set_ready_at(self, sha256: bytes, order_id: UUID, ready_at: datetime) -> None:
        await self.read_restaurant_order(sha256, order_id)

    async def read_report_day(self, city: str, of_date: date) -> Day:
        if city != BUNDLED_CITY:
            raise UnknownServiceArea
        from_at = datetime.combine(of_date, time(), UTC)
        return Day("UTC", from_at, from_at + timedelta(days=1), NOON)

    async def read_report_restaurants(self, city: str, day: Day) -> list[RestaurantFigures]:
        counts, stages = (1, 0, 1, 0, 0, 1, 0, 0, 1, 300.0, 300.0, 0), len(Stage)
        times: Any = ([1] * stages, [60.0] * stages, [90.5] * stages)
        whose = ((None, None), (1, "=Da Mario"))
        return [RestaurantFigures._make((*one, *counts, *times)) for one in whose]

    async def read_report_reasons(self, city: str, day: Day) -> list[Reason]:
        return [Reason(1, "failed", "driver", "customer_absent", 2)]

    async def read_report_drivers(self, city: str, day: Day) -> list[DriverFigures]:
        return [DriverFigures(one, one, 3, 2, 1, 0, 0) for one in self.report_drivers]

    async def read_report_places(
        self, driver_ids: Sequence[str], day: Day
    ) -> dict[str, list[Place]]:
        places = [(NOON + timedelta(seconds=20 * n), 11.0, 43.0 + n * 0.001) for n in range(11)]
        return dict.fromkeys(driver_ids, places)
