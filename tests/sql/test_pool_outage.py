"""A pool during and after an outage of the database."""

from __future__ import annotations

import asyncio
import time

from doorstep.errors import StoreUnavailable
from doorstep.store.deadline import is_available
from doorstep.store.pool import connection, open_pool
from ops.servers.postgres import running_cluster

OUTAGE_S = 8.0  # longer than the pool tries to connect by itself
WAIT_S = 0.02
BACK_WITHIN_S = 60.0


async def test_pool__more_requests_than_may_wait_during_an_outage__recovers_after_it() -> None:
    with running_cluster() as cluster:
        cluster.stop()
        pool = await open_pool(cluster.superuser_url(), 1)
        try:
            refused = 0
            until = time.monotonic() + OUTAGE_S
            while time.monotonic() < until:
                try:
                    async with connection(pool, WAIT_S):
                        pass
                except StoreUnavailable:
                    refused += 1
            assert refused > pool.max_waiting
            await asyncio.to_thread(cluster.start)
            deadline = time.monotonic() + BACK_WITHIN_S
            while not await is_available(pool):
                assert time.monotonic() < deadline, pool.get_stats()
        finally:
            await pool.close()
