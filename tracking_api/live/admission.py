"""Admits customers' streams in batches, without a task or an ASGI call per viewer.

After a restart thousands of viewers reconnect within seconds. `offer` takes a connection whose
request follows an order; a worker reads the orders of the pending links in one statement, which
checks the links too, and writes each viewer its head and snapshot. Viewers of one link share the
read. Heads are parsed and snapshots written in slices, between which other requests run: a request
such as GET /track takes about twelve turns of the loop, so slices are short while one is answered.

Only what succeeds is answered here. Every other request, such as one with a bad link or of staff,
runs through the application, which gives the same answer as ever.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import Callable, Collection
from functools import partial
from typing import NamedTuple
from uuid import UUID

from starlette.requests import cookie_parser

from doorstep.credentials import token_sha256
from doorstep.errors import DoorstepError
from doorstep.http.headers import secured
from doorstep.http.http_metrics import observer
from doorstep.http.tokens import parse_bearer
from doorstep.telemetry import get_logger
from tracking_api.live.connection_manager import ConnectionManager
from tracking_api.live.detachable_protocol import DetachableProtocol, detach_from
from tracking_api.live.hub import Hub
from tracking_api.live.order_channel import OrderChannel
from tracking_api.live.response import SSE_HEADERS
from tracking_api.live.viewer import Viewer
from tracking_api.track.links import COOKIE
from tracking_api.track.visibility import TrackLink

MAX_BATCH_LINKS = 400  # read in one statement: their snapshots are written within 0.3 s
BATCH_INTERVAL_S = 0.05  # between two statements, so that batches fill up
SLICE_S = 0.005
SHORT_SLICE_S = 0.0005  # while other requests are answered
MAX_HEAD_BYTES = 8 * 1024  # half of what the application accepts
MAX_EVENT_ID = 40  # characters of a cursor
OFFERED_S = "offered_s"  # in a request's state: a refusal takes the same time from then on

_PATH = re.compile(r"/track/([0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})/stream")
_ROUTE = "/track/{order_id}/stream"
_UNUSUAL = frozenset({b"content-length", b"transfer-encoding", b"expect", b"upgrade"})
_HEADERS = secured([(name.lower().encode(), text.encode()) for name, text in SSE_HEADERS.items()])
_HEAD_END = (
    b"".join(b"%b: %b\r\n" % one for one in _HEADERS) + b"transfer-encoding: chunked\r\n\r\n"
)

RawHeaders = list[tuple[bytes, bytes]]


class Request(NamedTuple):
    """What a request to follow an order consists of."""

    link: TrackLink
    cursor: str | None


class Pending(NamedTuple):
    """A viewer that waits for its link's read."""

    protocol: DetachableProtocol
    cursor: str | None
    offered_s: float
    run_application: Callable[[], None]


class StreamAdmission:
    """The viewers of customers that are to be admitted to `hub`."""

    def __init__(self, hub: Hub, connections: ConnectionManager) -> None:
        self._hub = hub
        self._connections = connections
        self._pending: dict[TrackLink, list[Pending]] = {}
        self._held: deque[DetachableProtocol] = deque()
        self._will_parse = False
        self._worker: asyncio.Task[None] | None = None
        self._next_batch_s = 0.0
        self._default_headers: RawHeaders | None = None
        self._head = b""
        self._observe = observer("GET", _ROUTE, 200)
        self._requests: Collection[object] = ()  # that the application answers just now

    def offer(self, protocol: DetachableProtocol, run_application: Callable[[], None]) -> bool:
        """Take a connection whose request is a customer's plain one to follow an order.

        `run_application` is called later for one that is not admitted.
        """
        request = parse(protocol)
        if request is None:
            return False
        one = Pending(protocol, request.cursor, time.perf_counter(), run_application)
        self._pending.setdefault(request.link, []).append(one)
        self._requests = protocol.server_state.tasks
        loop = asyncio.get_running_loop()
        protocol.scope["state"][OFFERED_S] = loop.time()
        if self._worker is None:
            self._worker = loop.create_task(self._work())
        return True

    def hold(self, protocol: DetachableProtocol) -> None:
        """Parse a connection's request in turn."""
        self._held.append(protocol)
        self._requests = protocol.server_state.tasks
        self._parse_soon()

    def _parse_soon(self) -> None:
        if self._held and not self._will_parse:
            self._will_parse = True
            asyncio.get_running_loop().call_soon(self._parse_held)

    def _slice_end_s(self) -> float:
        return time.perf_counter() + (SHORT_SLICE_S if self._requests else SLICE_S)

    def _parse_held(self) -> None:
        """Parse held requests for one slice."""
        self._will_parse = False
        slice_end_s = self._slice_end_s()
        try:
            while self._held:
                self._held.popleft().release_held()
                if time.perf_counter() > slice_end_s:
                    break
        finally:
            self._parse_soon()

    @property
    def pending_viewers(self) -> int:
        """How many viewers wait for a read."""
        return sum(map(len, self._pending.values()))

    @property
    def is_busy(self) -> bool:
        """Whether viewers are being admitted, or were a second ago."""
        return (
            self._worker is not None
            or bool(self._held)
            or time.monotonic() < self._next_batch_s + 1
        )

    def close(self) -> None:
        """Stop admitting."""
        if self._worker is not None:
            self._worker.cancel()

    async def _work(self) -> None:
        """Admit batch after batch until none is pending."""
        try:
            while self._pending:
                await asyncio.sleep(max(0.0, self._next_batch_s - time.monotonic()))
                self._next_batch_s = time.monotonic() + BATCH_INTERVAL_S
                links = list(self._pending)[:MAX_BATCH_LINKS]
                batch = {link: self._pending.pop(link) for link in links}
                try:
                    await self._admit_batch(batch)
                except DoorstepError:
                    pass  # the application answers that the database is unavailable
                except Exception:  # noqa: BLE001 - the task's boundary
                    get_logger().exception("live_admission_defect")
                finally:
                    for waiting in batch.values():
                        for one in waiting:
                            if not one.protocol.transport.is_closing():
                                one.run_application()
        finally:
            self._worker = None

    async def _admit_batch(self, batch: dict[TrackLink, list[Pending]]) -> None:
        """Admit the viewers of good links, and remove them from the batch."""
        slice_end_s = self._slice_end_s()
        async with self._hub.open_channels(list(batch)) as channels:
            for channel in channels:
                waiting = batch[channel.link]
                on_disconnect = partial(self._hub.unsubscribe, channel)
                refused: list[Pending] = []
                while waiting:
                    one = waiting.pop()
                    if not self._admit(one, channel, on_disconnect):
                        refused.append(one)
                    if time.perf_counter() > slice_end_s:
                        await asyncio.sleep(0)
                        slice_end_s = self._slice_end_s()
                waiting += refused

    def _admit(
        self, one: Pending, channel: OrderChannel, on_disconnect: Callable[[Viewer], None]
    ) -> bool:
        """Send one viewer its head and its snapshot. Returns False if it is not admitted."""
        protocol = one.protocol
        if protocol.transport.is_closing():
            return True
        sha256 = channel.link.token_sha256 or b""
        try:
            self._connections.check_capacity(sha256, staff=False)
        except DoorstepError:
            return False
        if channel.has_seen_end(one.cursor):
            return False
        frames = self._hub.first_frames(channel, one.cursor)
        viewer = Viewer(self._connections, sha256, on_disconnect)
        viewer.is_polled = True
        transport = detach_from(protocol, viewer)
        self._connections.add(viewer)
        viewer.attach(transport, self._head_of(protocol), frames)
        self._hub.follow(channel, viewer)
        self._observe(time.perf_counter() - one.offered_s)
        return True

    def _head_of(self, protocol: DetachableProtocol) -> bytes:
        """Return the answer's head. The server's own headers have the date: they are replaced."""
        headers = protocol.server_state.default_headers
        if headers is not self._default_headers:
            self._default_headers = headers
            lines = b"".join(b"%b: %b\r\n" % one for one in headers)
            self._head = b"HTTP/1.1 200 OK\r\n" + lines + _HEAD_END
        return self._head


def parse(protocol: DetachableProtocol) -> Request | None:
    """Parse a request to follow an order. None for another one, and one that is unusual."""
    scope = protocol.scope
    match = _PATH.fullmatch(scope["path"])
    if match is None or scope["method"] != "GET" or scope["query_string"]:
        return None
    if scope["http_version"] != "1.1" or not protocol.cycle.keep_alive:
        return None
    values: dict[bytes, bytes] = {}
    size = 0
    for name, value in scope["headers"]:
        size += len(name) + len(value)
        values.setdefault(name, value)
    if size > MAX_HEAD_BYTES or not _UNUSUAL.isdisjoint(values):
        return None
    token = _token_of(values)
    if token is None:
        return None
    cursor = values.get(b"last-event-id")
    if cursor is not None and len(cursor) > MAX_EVENT_ID:
        return None
    link = TrackLink(UUID(match[1]), token_sha256(token))
    return Request(link, cursor.decode("latin-1") if cursor else None)


def _token_of(headers: dict[bytes, bytes]) -> str | None:
    """Return the bearer token, or the cookie of the customer's page."""
    authorization = headers.get(b"authorization")
    if authorization is not None:
        return parse_bearer(authorization.decode("latin-1"))
    cookie = headers.get(b"cookie")
    return cookie_parser(cookie.decode("latin-1")).get(COOKIE) if cookie is not None else None
