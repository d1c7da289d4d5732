"""Builds the parts of webhooks, and runs them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from doorstep.outbound.destination import DestinationRules
from doorstep.store.pool import open_pool
from doorstep.telemetry import serve_telemetry
from webhooks.dispatcher import Dispatcher
from webhooks.queue import DatabaseQueue
from webhooks.retries import RetrySchedule
from webhooks.sender import Sender
from webhooks.settings import WebhooksSettings

POOL_SIZE = 4  # reports are short
STALE_AFTER_S = 60.0  # above the longest claim (4 s) by far


async def run_service(settings: WebhooksSettings, stopping: asyncio.Event) -> None:
    """Run until `stopping`."""
    url = settings.database_url.get_secret_value()
    pool = await open_pool(url, POOL_SIZE, application_name="webhooks", autocommit=True)
    rules = DestinationRules(settings.webhook_allowed_networks, settings.webhook_allow_loopback)
    sender = Sender(rules, settings.webhook_timeout_s, settings.webhook_concurrency)
    dispatcher = Dispatcher(
        DatabaseQueue(pool),
        sender,
        RetrySchedule(settings.webhook_first_pause_s, settings.webhook_retry_for_s),
        timeout_s=settings.webhook_timeout_s,
        concurrency=settings.webhook_concurrency,
    )

    def ready() -> Mapping[str, bool]:
        return {"database": dispatcher.is_healthy}

    telemetry = serve_telemetry(
        settings.webhooks_bind,
        ready,
        lambda: time.monotonic() - dispatcher.last_run_s < STALE_AFTER_S,
    )
    try:
        await dispatcher.run(stopping)
    finally:
        telemetry.close()
        await sender.close()
        await pool.close()
