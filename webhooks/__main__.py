"""`python -m webhooks`: run until SIGTERM or Ctrl-C."""

from __future__ import annotations

import asyncio
import signal

from doorstep.telemetry import configure_logging, get_logger
from webhooks.service import run_service
from webhooks.settings import WebhooksSettings


async def _run(settings: WebhooksSettings) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    get_logger().info("started")
    await run_service(settings, stopping)
    get_logger().info("stopped")


def main() -> None:
    """Read the settings and send until a signal."""
    settings = WebhooksSettings.load_or_exit()
    configure_logging("webhooks")
    asyncio.run(_run(settings))


if __name__ == "__main__":
    main()
