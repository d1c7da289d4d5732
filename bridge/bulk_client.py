"""A paho client that reads and acknowledges in bulk.

It uses private members of paho, whose version is therefore pinned: `_sock_recv` (served from a
buffer that one `recv` fills), `_packet_queue` (many PUBACKs in one write, sent immediately as long
as neither a thread nor `on_socket_register_write` is set) and `_sock_close`.
"""

from __future__ import annotations

from paho.mqtt.client import Client
from paho.mqtt.enums import MQTTErrorCode

from bridge.publish_parser import (
    PUBACK_HEAD,
    ReceivedMessage,
    is_whole_packet,
    parse_publishes,
)
from doorstep.errors import MalformedPacket
from doorstep.mqtt_packets import PUBLISH

RECEIVE_BYTES = 256 * 1024  # about 1,000 fixes


class BulkClient(Client):
    """A paho client for an external loop: `receive()`, `acknowledge()`, `loop_misc()`.

    `receive()` returns PUBLISH packets; `on_message` is never called.
    """

    retained: set[bytes]  # topics whose message the broker may keep
    _buffer: bytes = b""
    _consumed: int = 0

    def receive(self) -> list[ReceivedMessage]:
        """Read once from the socket and return the complete messages.

        Other packets go through paho and its callbacks. Raises MalformedPacket, OSError;
        ConnectionError when the broker has closed the connection.
        """
        messages: list[ReceivedMessage] = []
        try:
            fresh = super()._sock_recv(RECEIVE_BYTES)
        except BlockingIOError:
            return messages
        if not fresh:
            raise ConnectionResetError("closed by the broker")
        data = self._buffer[self._consumed :] + fresh
        self._buffer, self._consumed = data, 0
        while True:
            self._consumed = parse_publishes(data, self._consumed, messages, self.retained)
            if self._consumed == len(data) or not is_whole_packet(data, self._consumed):
                return messages
            if data[self._consumed] & 0xF0 == PUBLISH:
                raise MalformedPacket  # complete, yet not parsed: it would block the buffer
            if self.loop_read() != MQTTErrorCode.MQTT_ERR_SUCCESS or self.socket() is None:
                raise ConnectionResetError("the connection has ended")
            data = self._buffer  # a callback may have reconnected

    def acknowledge(self, packet_ids: list[bytes]) -> None:
        """Send the PUBACKs of these messages, which must be in the order received."""
        packet = PUBACK_HEAD + PUBACK_HEAD.join(packet_ids)
        self._packet_queue(PUBACK_HEAD[0], packet, 0, 0)

    def abort(self) -> None:
        """Close the connection without a DISCONNECT. `connect()` opens a new one."""
        self._sock_close()

    def _sock_recv(self, bufsize: int) -> bytes:
        if self._consumed == len(self._buffer):
            raise BlockingIOError
        part = self._buffer[self._consumed : self._consumed + bufsize]
        self._consumed += len(part)
        return part

    def reconnect(self) -> MQTTErrorCode:
        """Connect again and discard what the old connection received."""
        self._buffer, self._consumed = b"", 0
        return super().reconnect()
