"""Logs, metrics and health endpoints, the same for every service.

Normal operation logs nothing per fix; counters do. A log line is an event name with fields, one
JSON object per line on stderr.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol, cast

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, generate_latest

from doorstep.settings import Bind

Readiness = Callable[[], Mapping[str, bool]]
"""Maps each dependency to whether it is available. Called per request; must not block."""


IGNORED_FIELDS = Counter(
    "doorstep_ignored_fields",
    "Optional fields of a fix that were not usable; the fix was kept",
    ["field"],
)
READY = Gauge("doorstep_ready", "1 while a dependency is available, as in /readyz", ["dependency"])


class Logger(Protocol):
    """The part of structlog's logger that the services use."""

    def debug(self, event: str, **fields: Any) -> Any: ...
    def info(self, event: str, **fields: Any) -> Any: ...
    def warning(self, event: str, **fields: Any) -> Any: ...
    def error(self, event: str, **fields: Any) -> Any: ...
    def exception(self, event: str, **fields: Any) -> Any: ...


def get_logger(**fields: Any) -> Logger:
    """Return a logger that adds `fields` to each line."""
    return cast("Logger", structlog.get_logger(**fields))


def configure_logging(service: str) -> None:
    """Send structlog and the standard library's logging to stderr. Only `__main__` calls it.

    LOG_LEVEL sets the level (INFO); LOG_FORMAT=console prints text instead of JSON.
    """
    level = logging.getLevelNamesMapping().get(os.environ.get("LOG_LEVEL", "").upper(), 20)

    def add_service(
        _: Any, __: str, fields: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        fields["service"] = service  # not a context variable: those do not reach threads
        return fields

    shared: list[structlog.typing.Processor] = [
        add_service,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
    ]
    as_text = os.environ.get("LOG_FORMAT") == "console"
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if as_text else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
            foreign_pre_chain=shared,
        )
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)


def count_ignored(fields: Mapping[str, int]) -> None:
    """Count optional fields of fixes that were ignored, by name."""
    for field, times in fields.items():
        IGNORED_FIELDS.labels(field).inc(times)


def is_ready(dependencies: Mapping[str, bool]) -> bool:
    """True if every dependency is available."""
    return all(dependencies.values())


def read_metrics(dependencies: Mapping[str, bool]) -> bytes:
    """Return the body of /metrics, after updating each dependency's readiness."""
    for name, is_available in dependencies.items():
        READY.labels(name).set(is_available)
    return generate_latest()


class TelemetryServer:
    """/healthz, /readyz and /metrics of a service without an HTTP server of its own.

    /healthz answers 200 as long as `alive()` holds; /readyz 200 or 503 with each dependency.
    """

    def __init__(self, bind: Bind, ready: Readiness, alive: Callable[[], bool]) -> None:
        self._server = ThreadingHTTPServer((bind.host, bind.port), _handler(ready, alive))
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="telemetry", daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        """The port it listens on, for binds to port 0."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def serve_telemetry(
    bind: Bind, ready: Readiness, alive: Callable[[], bool] = lambda: True
) -> TelemetryServer:
    """Serve a service's health and metrics from a thread. Raises OSError if the port is taken."""
    return TelemetryServer(bind, ready, alive)


def _handler(ready: Readiness, alive: Callable[[], bool]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/metrics":
                self._answer(200, CONTENT_TYPE_LATEST, read_metrics(ready()))
            elif self.path == "/healthz":
                self._answer_json(200 if alive() else 503, {"alive": alive()})
            elif self.path == "/readyz":
                dependencies = dict(ready())
                ok = is_ready(dependencies)
                self._answer_json(200 if ok else 503, {"ready": ok, **dependencies})
            else:
                self._answer_json(404, {"paths": ["/healthz", "/readyz", "/metrics"]})

        def _answer_json(self, status: int, body: Mapping[str, object]) -> None:
            self._answer(status, "application/json", json.dumps(body).encode())

        def _answer(self, status: int, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing: probes come every few seconds."""

    return Handler
