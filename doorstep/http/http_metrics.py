"""Health, readiness and metrics of an HTTP service.

/healthz  200 while the process runs
/readyz   200, or 503 while a required dependency is unavailable; lists each dependency
/metrics  Prometheus
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, Histogram
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from doorstep.telemetry import is_ready, read_metrics

Observer = Callable[[float], None]
Dependencies = Callable[[], Awaitable[Mapping[str, bool]]]
"""Returns within 2 s each dependency and whether it is available."""

_REQUEST_SECONDS = Histogram(
    "doorstep_http_request_seconds",
    "Time from a request's head to the end of its answer.",
    ["method", "route", "status"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
_METHODS = frozenset({"GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS"})
_UNOBSERVED = frozenset({"/healthz", "/readyz", "/metrics"})


async def _none() -> Mapping[str, bool]:
    return {}


def health_routes(required: Dependencies, optional: Dependencies = _none) -> APIRouter:
    """Return the three routes that every service has. `optional` ones are only reported."""
    router = APIRouter(include_in_schema=False)

    @router.get("/healthz")
    async def healthz() -> JSONResponse:
        return JSONResponse({"alive": True})

    @router.get("/readyz")
    async def readyz() -> JSONResponse:
        found = dict(await required())
        ready = is_ready(found)
        headers = {"Cache-Control": "no-store"} | ({} if ready else {"Retry-After": "2"})
        found |= await optional()
        return JSONResponse({"ready": ready, **found}, 200 if ready else 503, headers)

    @router.get("/metrics")
    async def metrics() -> Response:
        return Response(read_metrics(await required()), media_type=CONTENT_TYPE_LATEST)

    return router


class RequestMetrics:
    """ASGI middleware: one observation per request, labelled by the route's template.

    Labels never contain an id: an unknown path is `(none)`, an unknown method `(other)`.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._observers: dict[tuple[str, str, int], Observer] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _UNOBSERVED:
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500

        async def send_and_record(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_record)
        finally:
            method = scope["method"] if scope["method"] in _METHODS else "(other)"
            route = getattr(scope.get("route"), "path", None) or "(none)"
            labels = method, route, status
            observe = self._observers.get(labels)
            if observe is None:
                child = _REQUEST_SECONDS.labels(method, route, str(status))
                observe = self._observers[labels] = child.observe
            observe(time.perf_counter() - started)
