"""Sends what customers asked to be notified of.

Events in tracking-updates name the orders to look at; the database decides what is due, and leases
each notification to one process before it is sent. After a crash, or without a report, it is sent
again when the lease ends, with the same topic and tag: the customer sees one notification. All
orders are looked at periodically, for lost events and ended leases.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Sequence
from uuid import UUID

from prometheus_client import Counter

from doorstep.errors import DoorstepError
from doorstep.telemetry import get_logger
from tracking_api.push.notifier import Notification, Notifier, Outcome
from tracking_api.push.queries import PushStore

SENT = Counter("doorstep_push_notifications", "Notifications.", ["kind", "outcome"])

PAUSE_S = 1.0  # between two looks at the database
SWEEP_S = 30.0
LEASE_S = 20.0  # above the 10 s of a request and the 5 s of a report
RETRIES_AFTER_S = (5.0, 30.0)
MAX_AT_ONCE = 200  # sockets; a customer chooses the endpoint, and it may answer slowly
MAX_OF_ORDER = 2  # so that no order takes the sockets of all


class PushWorker:
    """Takes due notifications, and sends them by a notifier."""

    def __init__(
        self,
        store: PushStore,
        notifier: Notifier,
        retries_after_s: Sequence[float] = RETRIES_AFTER_S,
        lease_s: float = LEASE_S,
        sweep_s: float = SWEEP_S,
    ) -> None:
        self._store = store
        self._notifier = notifier
        self._retries_after_s = retries_after_s
        self._lease_s = lease_s
        self._sweep_s = sweep_s
        self._changed: set[UUID] = set()
        self._is_sweep_due = True  # a process that died may have left something
        self._wake = asyncio.Event()
        self._sending: set[asyncio.Task[None]] = set()

    def orders_changed(self, order_ids: Iterable[UUID]) -> None:
        """Look at these orders soon."""
        self._changed.update(order_ids)
        if self._changed:
            self._wake.set()

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            if not self._is_sweep_due:
                try:
                    await asyncio.wait_for(self._wake.wait(), self._sweep_s)
                except TimeoutError:
                    self._is_sweep_due = True
            changed = self._take_changed()
            await self.send_due(None if self._is_sweep_due else changed)
            await asyncio.sleep(PAUSE_S)

    def _take_changed(self) -> set[UUID]:
        self._wake.clear()
        changed, self._changed = self._changed, set()
        return changed

    async def send_due(self, order_ids: Collection[UUID] | None) -> None:
        """Start to send what is due of these orders, or of all. A sweep repeats a failed read."""
        is_sweep = order_ids is None
        self._is_sweep_due &= not is_sweep
        room = MAX_AT_ONCE - len(self._sending)
        due: list[Notification] = []
        if room > 0:
            try:
                due = await self._store.claim(order_ids, room, MAX_OF_ORDER, self._lease_s)
            except DoorstepError as exc:
                get_logger().warning("push_not_taken", error=str(exc))
                return
        for notification in due:
            task = asyncio.create_task(self._send(notification))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)
        if len(due) >= room:  # look at the rest when one has ended
            self._is_sweep_due |= is_sweep
            self._changed.update(order_ids or ())

    async def finish(self) -> None:
        """Wait until everything taken is sent or given up."""
        await asyncio.gather(*self._sending)

    async def close(self) -> None:
        """Give up what is being sent; it is due again when its lease ends."""
        for task in self._sending:
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)
        await self._notifier.close()

    async def _send(self, notification: Notification) -> None:
        outcome = await self._notifier.send(notification)
        retry_in_s = self._pause_s(notification, outcome)
        if retry_in_s is None:
            SENT.labels(notification.kind, outcome).inc()
        try:
            await self._store.report(notification, retry_in_s)
            if outcome == "gone":
                await self._store.drop_subscription(notification.recipient.endpoint)
        except DoorstepError as exc:
            get_logger().warning("push_not_reported", error=str(exc))
        again = [notification.order_id]  # others of the order, and later ones, may be due
        asyncio.get_running_loop().call_later(retry_in_s or 0.0, self.orders_changed, again)

    def _pause_s(self, notification: Notification, outcome: Outcome) -> float | None:
        """Return the pause before the next attempt; None without one."""
        if outcome != "failed" or notification.attempt > len(self._retries_after_s):
            return None
        return self._retries_after_s[notification.attempt - 1]
