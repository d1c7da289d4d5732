"""uvicorn's HTTP protocol with bounds that hold before a request reaches the application.

What one connection may cost, for every client:

head                 32 KiB and 10 s, then 431 or 408 and the connection is closed
body                 30 s from the head's end to the last byte
framing of a body    512 KiB of chunk sizes, extensions and trailers
unread answer        30 s without room in the kernel's buffer
unauthenticated      50 connections per address; a connection stops to count with its first
                     good token (`note_good_token`)
all                  `max_connections`
beyond a number      503 with Retry-After to the first bytes; 100 at once wait for them, for 2 s at
                     most, others are closed at once

Addresses of trusted proxies are exempt from the bound per address: a proxy carries many clients.
"""

from __future__ import annotations

import asyncio
import socket
import weakref
from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from http import HTTPStatus
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from prometheus_client import Counter as Metric
from starlette.responses import Response
from starlette.types import Scope
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.utils import is_ssl
from uvicorn.server import ServerState

from doorstep.errors import TooManyConnections
from doorstep.http.problems import problem_response

EXTENSION = "doorstep.connection"

MAX_HEAD_BYTES = 32 * 1024
MAX_FRAMING_BYTES = 512 * 1024  # 64 KiB of body in chunks of one byte take 6 bytes each
HEAD_TIMEOUT_S = 10.0
BODY_TIMEOUT_S = 30.0
WRITE_TIMEOUT_S = 30.0
MAX_REFUSED = 100  # that wait for their 503; each holds a descriptor
REFUSED_TIMEOUT_S = 2.0
MAX_UNAUTHENTICATED = 50  # per address: a browser opens 6, an office behind one address a few dozen

CLOSED = Metric("doorstep_http_closed", "Connections that the server closed, and why.", ["reason"])


def _last_answer(answer: Response) -> bytes:
    """Return an answer as it is written to a connection that then closes."""
    status = HTTPStatus(answer.status_code)
    headers = [*answer.raw_headers, (b"connection", b"close")]
    head = b"".join(b"%b: %b\r\n" % one for one in headers)
    return b"HTTP/1.1 %d %b\r\n%b\r\n%b" % (
        status,
        status.phrase.encode(),
        head,
        bytes(answer.body),
    )


REFUSED_ANSWER = _last_answer(
    problem_response(TooManyConnections("too many connections wait for an answer; try again"))
)


@dataclass(slots=True)
class ConnectionLimits:
    """The bounds of one server and what counts against them.

    `trusted_proxies` are addresses or networks in CIDR notation.
    """

    max_connections: int
    max_unauthenticated: int = MAX_UNAUTHENTICATED
    trusted_proxies: tuple[str, ...] = ()
    head_timeout_s: float = HEAD_TIMEOUT_S
    body_timeout_s: float = BODY_TIMEOUT_S
    write_timeout_s: float = WRITE_TIMEOUT_S
    open_connections: int = 0
    refused: int = 0  # that are still open
    unauthenticated: Counter[str] = field(default_factory=Counter)
    _networks: tuple[IPv4Network | IPv6Network, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Parse the networks once: each connection is compared. Raises ValueError."""
        self._networks = tuple(ip_network(one, strict=False) for one in self.trusted_proxies)

    def is_trusted(self, address: str) -> bool:
        """Return whether an address belongs to a trusted proxy."""
        if not self._networks:
            return False
        try:
            parsed = ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._networks)

    def refusal(self, address: str) -> str | None:
        """Return why one more connection from this address is refused, or None."""
        if self.open_connections >= self.max_connections:
            return "too_many"
        if self.unauthenticated[address] >= self.max_unauthenticated:
            return "too_many_unauthenticated"
        return None


class GuardedProtocol(HttpToolsProtocol):
    """One connection within `limits`."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: ConnectionLimits,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._limits = limits
        self._is_counted = False
        self._counted_address: str | None = None
        self._is_refused = False
        self._is_answered = False  # of a refused one
        self._is_reading_head = True
        self._unframed_bytes = 0  # received since the last head or body byte
        self._deadline: asyncio.TimerHandle | None = None
        self._write_deadline: asyncio.TimerHandle | None = None

    # -- connection -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        # as uvicorn does, but with one socket object: uvloop makes one for each address
        self.connections.add(self)
        self.transport = transport
        self.flow = FlowControl(transport)
        self.server, self.client = _addresses(transport)
        self.scheme = "https" if is_ssl(transport) else "http"
        address = self.client[0] if self.client else ""
        is_trusted = self._limits.is_trusted(address)
        refusal = self._limits.refusal("" if is_trusted else address)
        if refusal is not None:
            CLOSED.labels(refusal).inc()
            self._await_refused_request()
            return
        self._is_counted = True
        self._limits.open_connections += 1
        if not is_trusted and address:
            self._counted_address = address
            self._limits.unauthenticated[address] += 1
        self._arm(self._limits.head_timeout_s, "slow_head")

    def _await_refused_request(self) -> None:
        """Wait a moment for the request, so that its client reads an answer and no reset."""
        if self._limits.refused >= MAX_REFUSED:
            self.transport.abort()
            return
        self._is_refused = True
        self._limits.refused += 1
        self._deadline = self.loop.call_later(REFUSED_TIMEOUT_S, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self.stop_deadlines()
        self.release()
        super().connection_lost(exc)

    def authenticate(self) -> None:
        """Stop counting this connection against its address."""
        address, self._counted_address = self._counted_address, None
        if address is not None:
            self._limits.unauthenticated[address] -= 1
            if self._limits.unauthenticated[address] <= 0:
                del self._limits.unauthenticated[address]

    def release(self) -> None:
        """Stop counting this connection at all."""
        self.authenticate()
        if self._is_refused:
            self._is_refused = False
            self._limits.refused -= 1
        if self._is_counted:
            self._is_counted = False
            self._limits.open_connections -= 1

    # -- what arrives -----------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self.parser is None or self.transport.is_closing():
            return
        if self._is_refused:
            self._answer_refused()
            return
        if self._deadline is None and self._is_reading_head:
            self._arm(self._limits.head_timeout_s, "slow_head")
        self._unframed_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._is_reading_head and self._unframed_bytes > MAX_HEAD_BYTES:
            self._refuse(b"431 Request Header Fields Too Large", "large_head")
        elif self._unframed_bytes > MAX_FRAMING_BYTES:
            self._refuse(b"400 Bad Request", "large_framing")

    def _answer_refused(self) -> None:
        """Answer 503 once, and ignore the rest until the client closes."""
        if self._is_answered:
            return
        self._is_answered = True
        self.transport.write(REFUSED_ANSWER)
        if self.transport.can_write_eof():
            self.transport.write_eof()  # a close would reset what the client still sends
        else:
            self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        # weak: the protocol holds the scope, and a cycle would outlive every request
        self.scope["extensions"] = {EXTENSION: weakref.ref(self)}  # type: ignore[dict-item]

    def on_headers_complete(self) -> None:
        self._is_reading_head = False
        self._unframed_bytes = 0
        self._arm(self._limits.body_timeout_s, "slow_body")
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unframed_bytes = max(0, self._unframed_bytes - len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._is_reading_head = True
        self._unframed_bytes = 0
        self._disarm()
        super().on_message_complete()

    # -- what leaves ------------------------------------------------------------------------

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stop_write_deadline()
        self._write_deadline = self.loop.call_later(
            self._limits.write_timeout_s, self._abort, "slow_reader"
        )

    def resume_writing(self) -> None:
        self._stop_write_deadline()
        super().resume_writing()

    # -- deadlines --------------------------------------------------------------------------

    def _arm(self, timeout_s: float, reason: str) -> None:
        self._disarm()
        self._deadline = self.loop.call_later(timeout_s, self._on_deadline, reason)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def stop_deadlines(self) -> None:
        """Stop all timers: another protocol takes the connection over."""
        self._disarm()
        self._stop_write_deadline()

    def _stop_write_deadline(self) -> None:
        if self._write_deadline is not None:
            self._write_deadline.cancel()
            self._write_deadline = None

    def _on_deadline(self, reason: str) -> None:
        self._deadline = None
        is_unanswered = self.cycle is None or self.cycle.response_complete
        if is_unanswered and self._unframed_bytes:
            self._refuse(b"408 Request Timeout", reason)
        else:
            self._abort(reason)

    def _refuse(self, status: bytes, reason: str) -> None:
        """Answer with a bare status line where no answer is under way, and close."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._abort(reason)
            return
        CLOSED.labels(reason).inc()
        self._disarm()
        answer = b"HTTP/1.1 %b\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        self.transport.write(answer % status)
        self.transport.close()

    def _abort(self, reason: str) -> None:
        if self.transport.is_closing():
            return
        CLOSED.labels(reason).inc()
        self._disarm()
        self.transport.abort()


def _addresses(
    transport: asyncio.Transport,
) -> tuple[tuple[str, int] | None, tuple[str, int] | None]:
    """Return a connection's own address and its peer's. None for those that it does not have."""
    found: Any = transport.get_extra_info("socket")
    if found is None or found.family not in (socket.AF_INET, socket.AF_INET6):
        return None, None
    connection = socket.socket(found.family, found.type, found.proto, found.fileno())
    try:
        return connection.getsockname()[:2], connection.getpeername()[:2]
    except OSError:  # it is closed already
        return None, None
    finally:
        connection.detach()


def guarded(
    limits: ConnectionLimits, protocol: type[GuardedProtocol] = GuardedProtocol
) -> Callable[..., GuardedProtocol]:
    """Return a factory of protocols that share these limits, as uvicorn's `http` setting."""

    def make(*args: Any, **kwargs: Any) -> GuardedProtocol:
        return protocol(*args, limits=limits, **kwargs)

    return make


def connection_of(scope: Scope) -> GuardedProtocol | None:
    """Return the connection of a request; None under a test client or once it is closed."""
    holder = scope.get("extensions", {}).get(EXTENSION)
    return holder() if holder is not None else None


# The request that this task answers; the middleware TokenGuessing sets it.
request_scope: ContextVar[Scope | None] = ContextVar("request_scope", default=None)


def note_good_token() -> None:
    """Stop counting the connection of the present request: its token was found to be good.

    A status does not show that: pages, health and refused bodies are answered to any token.
    """
    scope = request_scope.get()
    connection = connection_of(scope) if scope is not None else None
    if connection is not None:
        connection.authenticate()
