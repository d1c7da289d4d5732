"""Run an application under uvicorn, with our logging and a clean stop."""

from __future__ import annotations

import asyncio
import signal

import uvicorn
from fastapi import FastAPI

from doorstep.settings import Bind
from doorstep.telemetry import get_logger

BACKLOG = 4096  # the kernel's usual bound; past it a client's connection waits 1 s, 3 s, 7 s
STOP_TIMEOUT_S = 5  # for requests under way; a supervisor usually waits 10 s before it kills


def serve(app: FastAPI, bind: Bind, http: type[asyncio.Protocol] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; answer what is under way, then return the exit status."""
    # uvicorn stops gracefully, then raises the signal again for the handlers that stood before
    # it: with these, a stop that was asked for is a success.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host=bind.host,
            port=bind.port,
            loop="uvloop",
            http=http or "httptools",
            ws="none",
            log_config=None,
            log_level="warning",
            backlog=BACKLOG,
            access_log=False,  # the metrics count requests; a log line each says no more
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=STOP_TIMEOUT_S,
        )
    )
    get_logger().info("starting", bind=str(bind))
    try:
        server.run()
    except SystemExit as exc:  # the address is taken, or the application could not start
        return int(exc.code or 0)
    get_logger().info("stopped")
    return 0
