"""How orders end, in memory: a part of MemoryStore."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from doorstep.errors import BadLink, UnknownOrder
from doorstep.photos import Photo
from doorstep.store.records import Order
from tracking_api.orders.end_queries import Failed, OpenReturn, OrderReturn
from tracking_api.orders.imports import ImportedOrder, NumberedOrder, apply_orders
from tracking_api.track.visibility import TrackLink

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
RETRY_ID = UUID(int=2)
ORDER = Order(
    UUID(int=1), "created", 0, None, 1, 1, 11.26, 43.78, None, 1, NOON, None, None, created=True
)


class MemoryEnds:
    """Keeps how orders were ended, and what was imported."""

    def __init__(self) -> None:
        self.failures: list[tuple[str, str | None, str | None]] = []
        self.endings: list[tuple[str, str | None]] = []
        self.imported: list[NumberedOrder] = []
        self.photo: Photo | None = None

    async def command_order(
        self,
        order_id: UUID,
        command: str,
        name: str,
        driver_id: str | None,
        idempotency_key: str | None,
    ) -> Order:
        raise NotImplementedError

    def _is_good(self, link: TrackLink) -> bool:
        raise NotImplementedError

    async def end_order(
        self,
        order_id: UUID,
        command: str,
        name: str,
        note: str | None,
        idempotency_key: str | None,
    ) -> Order:
        self.endings.append((command, note))
        return await self.command_order(order_id, command, name, None, idempotency_key)

    async def fail_order(
        self,
        order_id: UUID,
        name: str,
        *,
        reason: str | None,
        note: str | None,
        next_step: str | None,
        token_sha256: bytes,
        idempotency_key: str | None,
    ) -> Failed:
        self.failures.append((reason, note, next_step))
        order = await self.command_order(order_id, "fail", name, None, idempotency_key)
        return Failed(order, RETRY_ID if next_step == "retry" else None, idempotency_key is None)

    async def read_photo(self, order_id: UUID) -> Photo | None:
        return self.photo if order_id == ORDER.order_id else None

    async def read_photo_by_link(self, link: TrackLink) -> Photo | None:
        if not self._is_good(link):
            raise BadLink
        return self.photo

    async def end_return(self, order_id: UUID, name: str) -> OrderReturn:
        if order_id != ORDER.order_id:
            raise UnknownOrder
        return OrderReturn(order_id, "d1", NOON, NOON)

    async def list_returns(self, limit: int) -> list[OpenReturn]:
        return [OpenReturn(ORDER.order_id, "d1", NOON, 1, "Da Mario", "available")][:limit]

    async def import_orders(
        self, orders: Sequence[NumberedOrder], who: str, *, dry_run: bool
    ) -> list[ImportedOrder]:
        async def create(**values: Any) -> Order:
            return replace(ORDER, created=values["customer_name"] != "old")

        self.imported += orders
        return await apply_orders(create, orders, who)
