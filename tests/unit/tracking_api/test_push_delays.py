"""A push service that a customer chose, and that never ends its answer, delays only their order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from doorstep.outbound.destination import DestinationRules
from tests.unit.doorstep.http_peer import DRIPPING_HEAD, Peer, answering, peer
from tests.unit.tracking_api.test_push import CONTACT, KEY, FakeStore, attempt_of, browser
from tracking_api.push.notifier import Notification
from tracking_api.push.web_push import WebPushNotifier
from tracking_api.push.worker import MAX_AT_ONCE, MAX_OF_ORDER, PushWorker

SUBSCRIPTIONS = 5  # of a link, in the database
ATTACKERS = 40  # with all slots of all subscriptions, if an order's slots were not bounded
LONG_S = 600.0


def pushes(of: int, to: Peer, count: int = 1) -> list[Notification]:
    recipient = browser()[2]._replace(endpoint=to.url)
    return [attempt_of(UUID(int=of), "nearby", recipient)] * count


@asynccontextmanager
async def sending(*due: Notification, timeout_s: float = LONG_S) -> AsyncIterator[PushWorker]:
    rules = DestinationRules(allow_loopback=True)
    notifier = WebPushNotifier(KEY, CONTACT, rules, timeout_s)
    worker = PushWorker(FakeStore(*due), notifier, retries_after_s=())
    await worker.send_due(None)
    try:
        yield worker
    finally:
        await worker.close()


async def test_push__while_endpoints_drip__another_customers_push_arrives():
    async with peer(DRIPPING_HEAD) as slow, peer(answering(201)) as quick:
        dripping = [one for n in range(ATTACKERS) for one in pushes(n, slow, SUBSCRIPTIONS)]
        assert len(dripping) >= MAX_AT_ONCE
        async with sending(*dripping, *pushes(ATTACKERS, quick)):
            await quick.until(lambda one: one.replies_ended == 1)
            await slow.until(lambda one: len(one.requests) == ATTACKERS * MAX_OF_ORDER)
            assert slow.replies_ended == 0


async def test_push__while_endpoints_drip__other_work_in_threads_goes_on():
    async with peer(DRIPPING_HEAD) as slow:
        dripping = [one for n in range(ATTACKERS) for one in pushes(n, slow)]
        async with sending(*dripping):
            await slow.until(lambda one: len(one.requests) == ATTACKERS)
            assert await asyncio.to_thread(int) == 0
            assert slow.replies_ended == 0


async def test_push__endpoint_drips__gives_its_order_up_after_the_time_out():
    async with peer(DRIPPING_HEAD) as slow:
        async with sending(*pushes(1, slow, SUBSCRIPTIONS), timeout_s=0.2) as worker:
            for _ in range(SUBSCRIPTIONS):
                await worker.finish()
                await worker.send_due(None)
        assert len(slow.requests) == SUBSCRIPTIONS


async def test_push__worker_closes_meanwhile__ends_the_connections():
    async with peer(DRIPPING_HEAD) as slow:
        async with sending(*pushes(1, slow)):
            await slow.until(lambda one: len(one.requests) == 1)
        await slow.until(lambda one: one.replies_ended == 1)
        assert len(slow.requests) == 1
