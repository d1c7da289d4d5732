"""A viewer over a WebSocket: the same frames as JSON texts.

Frames are written straight to the connection. Received bytes (pongs, closes, other messages) go to
the sans-I/O protocol of `websockets`.
"""

from __future__ import annotations

import asyncio
import base64
import binascii

from starlette.requests import Request
from websockets.frames import CloseCode
from websockets.protocol import Protocol, Side, State
from websockets.utils import accept_key

from doorstep.errors import DoorstepError
from tracking_api.live.frames import WS_HEARTBEAT, Frame
from tracking_api.live.viewer import CLOSE_WITHIN_S, Viewer

MAX_MESSAGE_BYTES = 1024
MAX_MESSAGES = 20  # between two heartbeats (10 s); a browser sends one pong
MAX_UNANSWERED_PINGS = 3  # 30 s


class UpgradeRequired(DoorstepError):
    """A WebSocket: request it with Upgrade, Connection, Sec-WebSocket-Version 13 and a key."""

    status = 426
    problem = "upgrade-required"


def accept_handshake(request: Request) -> dict[str, str]:
    """Return the headers that accept a WebSocket. Raises UpgradeRequired."""
    headers = request.headers
    key = headers.get("sec-websocket-key", "")
    is_handshake = (
        headers.get("upgrade", "").lower() == "websocket"
        and "upgrade" in headers.get("connection", "").lower()
        and headers.get("sec-websocket-version") == "13"
    )
    try:
        is_handshake = is_handshake and len(base64.b64decode(key, validate=True)) == 16
    except binascii.Error:
        is_handshake = False
    if not is_handshake:
        raise UpgradeRequired
    return {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Accept": accept_key(key),
    }


class SocketViewer(Viewer):
    """A viewer over a WebSocket."""

    __slots__ = ("_messages", "_protocol", "_unanswered_pings")

    def attach(self, transport: asyncio.Transport, _: int) -> None:
        self.transport = transport
        self._protocol = Protocol(Side.SERVER, state=State.OPEN, max_size=MAX_MESSAGE_BYTES)
        self._messages = 0
        self._unanswered_pings = 0

    def encode(self, frame: Frame) -> bytes:
        return frame.ws

    def heartbeat(self) -> None:
        self._messages = 0
        self._unanswered_pings += 1
        if self._unanswered_pings > MAX_UNANSWERED_PINGS:
            self.disconnect()
        elif not self.paused:
            self.transport.write(WS_HEARTBEAT)

    def _close(self) -> None:
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(CloseCode.NORMAL_CLOSURE)
        self._flush()

    def data_received(self, data: bytes) -> None:
        protocol = self._protocol
        protocol.receive_data(data)
        self._unanswered_pings = 0
        self._messages += len(protocol.events_received())
        if self._messages > MAX_MESSAGES and protocol.state is State.OPEN:
            protocol.fail(CloseCode.POLICY_VIOLATION, "too many messages")
        self._flush()

    def _flush(self) -> None:
        """Write what the protocol has to send: pongs, and both halves of a close."""
        for piece in self._protocol.data_to_send():
            if piece:
                self.transport.write(piece)
            elif not self.transport.is_closing():
                self.transport.write_eof()
        if self._protocol.state is not State.OPEN and not self.closing:
            self.closing = True
            self._on_disconnect(self)
            asyncio.get_running_loop().call_later(CLOSE_WITHIN_S, self.disconnect)
