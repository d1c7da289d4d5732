"""A viewer over a WebSocket: the same frames as JSON texts.

What is sent goes straight to the connection; what comes in (pongs, closes, and whatever a client
thinks it should say) is read by `websockets`' protocol, which does no I/O of its own.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from urllib.parse import urlsplit

from starlette.requests import Request
from websockets.frames import CloseCode
from websockets.protocol import Protocol, Side, State
from websockets.utils import accept_key

from doorstep.errors import DoorstepError, Forbidden
from tracking_api.live.frames import WS_HEARTBEAT, Frame
from tracking_api.live.viewer import CLOSE_WITHIN_S, Viewer

MOST_MESSAGE_BYTES = 1024
MOST_MESSAGES = 20  # between two heartbeats (10 s); a browser sends one pong
UNANSWERED_PINGS = 3  # 30 s


class UpgradeRequired(DoorstepError):
    """This is a WebSocket: ask with Upgrade, Connection, Sec-WebSocket-Version 13 and a key."""

    status = 426
    problem = "upgrade-required"


class ForeignOrigin(Forbidden):
    """Another site's page may not open this with the cookie of its visitor."""

    problem = "foreign-origin"


def shake_hands(request: Request) -> dict[str, str]:
    """Give the headers that accept a WebSocket. Raises UpgradeRequired."""
    headers = request.headers
    key = headers.get("sec-websocket-key", "")
    asked = (
        headers.get("upgrade", "").lower() == "websocket"
        and "upgrade" in headers.get("connection", "").lower()
        and headers.get("sec-websocket-version") == "13"
    )
    try:
        asked = asked and len(base64.b64decode(key, validate=True)) == 16
    except binascii.Error:
        asked = False
    if not asked:
        raise UpgradeRequired
    return {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Accept": accept_key(key),
    }


def check_origin(request: Request, public_url: str) -> None:
    """Let only our own pages open a WebSocket with a cookie. Raises ForeignOrigin.

    A browser says where its page came from; a script with a bearer token need not.
    """
    origin = request.headers.get("origin")
    if origin is None:
        if "authorization" not in request.headers:
            raise ForeignOrigin
        return
    if urlsplit(origin).netloc not in (urlsplit(public_url).netloc, request.headers.get("host")):
        raise ForeignOrigin


class SocketViewer(Viewer):
    """A viewer over a WebSocket."""

    __slots__ = ("_messages", "_protocol", "_unanswered")

    def begin(self, transport: asyncio.Transport, _: int) -> None:
        self.transport = transport
        self._protocol = Protocol(Side.SERVER, state=State.OPEN, max_size=MOST_MESSAGE_BYTES)
        self._messages = 0
        self._unanswered = 0

    def bytes_of(self, frame: Frame) -> bytes:
        return frame.ws

    def heartbeat(self) -> None:
        self._messages = 0
        self._unanswered += 1
        if self._unanswered > UNANSWERED_PINGS:
            self.cut()
        elif not self.paused:
            self.transport.write(WS_HEARTBEAT)

    def _close(self) -> None:
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(CloseCode.NORMAL_CLOSURE)
        self._flush()

    def data_received(self, data: bytes) -> None:
        protocol = self._protocol
        protocol.receive_data(data)
        self._unanswered = 0
        self._messages += len(protocol.events_received())
        if self._messages > MOST_MESSAGES and protocol.state is State.OPEN:
            protocol.fail(CloseCode.POLICY_VIOLATION, "too many messages")
        self._flush()

    def _flush(self) -> None:
        """Send what the protocol wants sent: pongs, and the two halves of a close."""
        for piece in self._protocol.data_to_send():
            if piece:
                self.transport.write(piece)
            elif not self.transport.is_closing():
                self.transport.write_eof()
        if self._protocol.state is not State.OPEN and not self.closing:
            self.closing = True
            self._on_gone(self)
            asyncio.get_running_loop().call_later(CLOSE_WITHIN_S, self.cut)
