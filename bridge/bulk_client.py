"""paho's client with reading and acknowledging in bulk.

Some of paho's private parts are used, so its version is pinned: `_sock_recv` (fed from a buffer
that one `recv` fills), `_packet_queue` (many PUBACKs in one write, at once as long as neither a
thread nor `on_socket_register_write` is set) and `_sock_close`.
"""

from __future__ import annotations

from paho.mqtt.client import Client
from paho.mqtt.enums import MQTTErrorCode

from bridge.mqtt_packets import PUBACK_HEAD, Arrival, BrokenFrame, is_whole_packet, take_publishes

RECEIVE_BYTES = 256 * 1024  # about 1,000 fixes


class BulkClient(Client):
    """A paho client for a loop of our own: `receive()`, `acknowledge()`, `loop_misc()`.

    PUBLISH packets come out of `receive()`, never through `on_message`.
    """

    _received: bytes = b""
    _taken: int = 0

    def receive(self) -> list[Arrival]:
        """Read once from the socket and return the messages that are complete.

        Other packets go through paho and its callbacks on the way. Raises BrokenFrame, OSError;
        ConnectionError when the broker has closed.
        """
        arrivals: list[Arrival] = []
        try:
            fresh = super()._sock_recv(RECEIVE_BYTES)
        except BlockingIOError:
            return arrivals
        if not fresh:
            raise ConnectionResetError("closed by the broker")
        data = self._received[self._taken :] + fresh
        self._received, self._taken = data, 0
        while True:
            self._taken = take_publishes(data, self._taken, arrivals)
            if self._taken == len(data) or not is_whole_packet(data, self._taken):
                return arrivals
            if data[self._taken] & 0xF0 == 0x30:
                raise BrokenFrame  # complete, and yet not taken: it would stay for ever
            if self.loop_read() != MQTTErrorCode.MQTT_ERR_SUCCESS or self.socket() is None:
                raise ConnectionResetError("the connection has ended")
            data = self._received  # a callback may have reconnected

    def acknowledge(self, packet_ids: list[bytes]) -> None:
        """Send the PUBACKs of these messages, which must be in the order received."""
        packet = PUBACK_HEAD + PUBACK_HEAD.join(packet_ids)
        self._packet_queue(PUBACK_HEAD[0], packet, 0, 0)

    def drop(self) -> None:
        """Close the connection without a DISCONNECT. `connect()` opens a new one."""
        self._sock_close()

    def _sock_recv(self, bufsize: int) -> bytes:
        if self._taken == len(self._received):
            raise BlockingIOError
        part = self._received[self._taken : self._taken + bufsize]
        self._taken += len(part)
        return part

    def reconnect(self) -> MQTTErrorCode:
        """Connect again; what was received on the old connection is forgotten."""
        self._received, self._taken = b"", 0
        return super().reconnect()
