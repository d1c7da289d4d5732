"""Run an application under uvicorn, with bounded connections, our logging and a clean stop.

The public listener serves the API. The internal one serves the same application, and alone
answers the operators' paths (`INTERNAL_PATHS`), unless `public_docs` opens the documentation.
"""

from __future__ import annotations

import resource
import signal
import socket

import uvicorn
from fastapi import FastAPI
from pydantic import field_validator
from starlette.types import ASGIApp, Receive, Scope, Send

from doorstep.errors import NotFound
from doorstep.http.guarded_protocol import (
    MAX_UNAUTHENTICATED,
    ConnectionLimits,
    GuardedProtocol,
    guarded,
)
from doorstep.http.problems import problem_response
from doorstep.http.stopping import AnswerWhenCutShort
from doorstep.settings import Bind, ListenerSettings
from doorstep.telemetry import get_logger

BACKLOG = 4096  # the kernel's usual bound; past it a client's connection waits 1 s, 3 s, 7 s
STOP_TIMEOUT_S = 5  # for requests under way; a supervisor usually waits 10 s before it kills
SPARE_FILES = 200  # descriptors for the database, Kafka, files and logs

DOCS_PATHS = frozenset({"/docs", "/docs.css", "/openapi.json"})
INTERNAL_PATHS = DOCS_PATHS | {"/metrics"}


class HttpSettings(ListenerSettings):
    """What every HTTP service reads from its environment."""

    trusted_proxies: str = ""
    public_docs: bool = False
    http_max_connections: int | None = None
    http_max_unauthenticated: int = MAX_UNAUTHENTICATED

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, value: str) -> str:
        ConnectionLimits(1, trusted_proxies=_listed(value))  # raises for what is no network
        return value

    def connection_limits(self) -> ConnectionLimits:
        """Build the bounds of this process's connections."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return ConnectionLimits(
            max_connections=self.http_max_connections or max(SPARE_FILES, soft - SPARE_FILES),
            max_unauthenticated=self.http_max_unauthenticated,
            trusted_proxies=_listed(self.trusted_proxies),
        )


class InternalPaths:
    """ASGI middleware: answer 404 to the operators' paths on any listener but the internal one."""

    def __init__(self, app: ASGIApp, internal_port: int, *, public_docs: bool) -> None:
        self._app = app
        self._internal_port = internal_port
        self._hidden = INTERNAL_PATHS - DOCS_PATHS if public_docs else INTERNAL_PATHS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] in self._hidden:
            server = scope.get("server")
            if server is not None and server[1] != self._internal_port:
                await problem_response(NotFound())(scope, receive, send)
                return
        await self._app(scope, receive, send)


def serve(
    app: FastAPI,
    bind: Bind,
    internal_bind: Bind,
    settings: HttpSettings,
    protocol: type[GuardedProtocol] = GuardedProtocol,
) -> int:
    """Serve until SIGTERM or SIGINT; answer what is under way, then return the exit status."""
    # uvicorn stops gracefully, then raises the signal again for the handlers that stood before
    # it: with these, a stop that was asked for is a success.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    limits = settings.connection_limits()
    log = get_logger()
    try:
        sockets = [_listen(bind), _listen(internal_bind)]
    except OSError as exc:
        log.error("bind_failed", bind=str(bind), internal_bind=str(internal_bind), error=str(exc))
        return 1
    app.add_middleware(
        InternalPaths,
        internal_port=sockets[1].getsockname()[1],
        public_docs=settings.public_docs,
    )
    server = uvicorn.Server(
        uvicorn.Config(
            AnswerWhenCutShort(app),
            loop="uvloop",
            http=guarded(limits, protocol),  # type: ignore[arg-type]
            ws="none",
            log_config=None,
            log_level="warning",
            backlog=BACKLOG,
            access_log=False,  # the metrics count requests; a log line each says no more
            server_header=False,
            proxy_headers=bool(limits.trusted_proxies),
            forwarded_allow_ips=list(limits.trusted_proxies),
            timeout_graceful_shutdown=STOP_TIMEOUT_S,
        )
    )
    log.info("starting", bind=str(bind), internal_bind=str(internal_bind))
    try:
        server.run(sockets=sockets)
    except SystemExit as exc:  # the application could not start
        return int(exc.code or 0)
    log.info("stopped")
    return 0


def _listen(bind: Bind) -> socket.socket:
    family = socket.AF_INET6 if ":" in bind.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((bind.host, bind.port))
    except OSError:
        listener.close()
        raise
    listener.set_inheritable(True)
    return listener


def _listed(text: str) -> tuple[str, ...]:
    return tuple(one.strip() for one in text.split(",") if one.strip())
