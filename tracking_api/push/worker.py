"""Sends what customers asked to be notified of.

Events in tracking-updates name the orders to look at; the database decides what is due, and gives
each notification to one process once. All orders are looked at periodically, for lost events.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from contextlib import suppress
from uuid import UUID
from weakref import WeakValueDictionary

from prometheus_client import Counter

from doorstep.errors import DoorstepError
from doorstep.telemetry import get_logger
from tracking_api.push.notifier import Notification, Notifier
from tracking_api.push.queries import PushStore

SENT = Counter("doorstep_push_notifications", "Notifications.", ["kind", "outcome"])

PAUSE_S = 1.0  # between two looks at the database
SWEEP_S = 30.0
RETRIES_AFTER_S = (5.0, 30.0)
MAX_AT_ONCE = 200  # sockets; a customer chooses the endpoint, and it may answer slowly
MAX_OF_ORDER = 2


class PushWorker:
    """Takes due notifications, and sends them by a notifier."""

    def __init__(
        self,
        store: PushStore,
        notifier: Notifier,
        retries_after_s: Collection[float] = RETRIES_AFTER_S,
    ) -> None:
        self._store = store
        self._notifier = notifier
        self._retries_after_s = retries_after_s
        self._changed: set[UUID] = set()
        self._wake = asyncio.Event()
        self._slots = asyncio.Semaphore(MAX_AT_ONCE)
        self._order_slots: WeakValueDictionary[UUID, asyncio.Semaphore] = WeakValueDictionary()
        self._sending: set[asyncio.Task[None]] = set()

    def orders_changed(self, order_ids: Iterable[UUID]) -> None:
        """Look at these orders soon."""
        self._changed.update(order_ids)
        if self._changed:
            self._wake.set()

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            is_sweep = True
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), SWEEP_S)
                is_sweep = False
            await self.send_due(None if is_sweep else self._take_changed())
            await asyncio.sleep(PAUSE_S)

    def _take_changed(self) -> set[UUID]:
        self._wake.clear()
        changed, self._changed = self._changed, set()
        return changed

    async def send_due(self, order_ids: Collection[UUID] | None) -> None:
        """Start to send what is due of these orders, or of all. A sweep repeats a failed read."""
        try:
            due = await self._store.take_due(order_ids)
        except DoorstepError as exc:
            get_logger().warning("push_not_taken", error=str(exc))
            return
        for notification in due:
            task = asyncio.create_task(self._send(notification))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def finish(self) -> None:
        """Wait until everything taken is sent or given up."""
        await asyncio.gather(*self._sending)

    async def close(self) -> None:
        """Give up what is being sent."""
        for task in self._sending:
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)
        await self._notifier.close()

    async def _send(self, notification: Notification) -> None:
        # its order's slot first, so that no order waits in the slots of all
        order_slots = self._order_slots.setdefault(
            notification.order_id, asyncio.Semaphore(MAX_OF_ORDER)
        )
        for pause_s in (*self._retries_after_s, None):
            async with order_slots, self._slots:
                outcome = await self._notifier.send(notification)
            if outcome != "failed" or pause_s is None:
                break
            await asyncio.sleep(pause_s)
        SENT.labels(notification.kind, outcome).inc()
        if outcome == "gone":
            with suppress(DoorstepError):
                await self._store.drop_subscription(notification.recipient.endpoint)
