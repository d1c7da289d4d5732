"""One MQTT connection of one device, driven by the running asyncio event loop.

paho's own loop needs a thread per client and `select()`, which is limited to 1024 file descriptors.
Here hundreds of clients share one thread and the event loop's epoll. A `Connection` is used once:
a paho client that reconnects resends its unacknowledged messages, but the journal decides what to
resend.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from doorstep.errors import DoorstepError
from doorstep.settings import MqttBroker

CONNECT_TIMEOUT_S = 5.0
# Above the heartbeat and the longest batch (30 s each), so that no ping wakes the radio. Missing
# PUBACKs detect a dead peer sooner.
KEEPALIVE_S = 60


class ConnectionFailed(DoorstepError):
    """The broker cannot be reached, or refused the device."""

    retriable = True


@dataclass(frozen=True, slots=True)
class Login:
    """The broker, the credentials, and the topic of the last will (empty: no will)."""

    broker: MqttBroker
    username: str
    password: str
    will_topic: str
    mqtt_5: bool = False


class Connection:
    """A connection. `lost` is set when it has ended."""

    def __init__(
        self,
        login: Login,
        will: bytes,
        on_puback: Callable[[int], None],
        on_message: Callable[[str, bytes], None],
    ) -> None:
        self.lost = asyncio.Event()
        self._login = login
        self._loop = asyncio.get_running_loop()
        self._connack: asyncio.Future[ReasonCode] = self._loop.create_future()
        self._writing: Any = None  # the socket, while it has a writer in the loop
        protocol = MQTTProtocolVersion.MQTTv5 if login.mqtt_5 else MQTTProtocolVersion.MQTTv311
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=login.username,
            clean_session=None if login.mqtt_5 else True,
            protocol=protocol,
        )
        client.username_pw_set(login.username, login.password)
        if login.will_topic:
            client.will_set(login.will_topic, will, qos=1, retain=True)
        client.max_inflight_messages_set(0)  # no limit: the device has its own
        client.connect_timeout = CONNECT_TIMEOUT_S
        if login.broker.tls:
            client.tls_set()
        client.on_connect = self._on_connect
        client.on_publish = lambda _c, _u, mid, _r, _p: on_puback(mid)
        client.on_message = lambda _c, _u, message: on_message(
            message.topic, bytes(message.payload)
        )
        client.on_socket_close = self._on_socket_close
        self._client = client

    async def open(self) -> None:
        """Connect and wait for the CONNACK. Raises ConnectionFailed."""
        broker = self._login.broker
        try:
            await asyncio.to_thread(
                self._client.connect, broker.host, broker.port, keepalive=KEEPALIVE_S
            )
        except OSError as exc:
            raise ConnectionFailed(f"{broker}: {exc}") from exc
        sock: Any = self._client.socket()
        if sock is None:
            raise ConnectionFailed(f"{broker}: the connection was closed")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._loop.add_reader(sock, self._read)
        self._flush()
        try:
            reason = await asyncio.wait_for(self._connack, CONNECT_TIMEOUT_S)
        except TimeoutError:
            self.close()
            raise ConnectionFailed(f"{broker}: no CONNACK") from None
        if reason.is_failure:
            self.close()
            raise ConnectionFailed(f"{broker}: {reason}")

    def subscribe(self, topics: list[str]) -> None:
        """Subscribe with QoS 1."""
        self._client.subscribe([(topic, 1) for topic in topics])
        self._flush()

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> int:
        """Publish with QoS 1 and return the message id, which `on_puback` receives."""
        info = self._client.publish(topic, payload, qos=1, retain=retain)
        self._flush()
        return info.mid

    def tick(self) -> None:
        """Send keepalives. Call it every few seconds."""
        if self._client.loop_misc() != mqtt.MQTT_ERR_SUCCESS:
            self.close()
        self._flush()

    def close(self) -> None:
        """Close the socket without DISCONNECT: the broker publishes the last will."""
        sock = self._client.socket()
        if sock is not None:
            self._on_socket_close(self._client, None, sock)
            with contextlib.suppress(OSError):
                sock.close()
        self.lost.set()

    async def disconnect(self) -> None:
        """Send DISCONNECT: the broker discards the last will."""
        self._client.disconnect()
        self._flush()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.lost.wait(), 1.0)
        self.close()

    def _read(self) -> None:
        if self._client.loop_read() != mqtt.MQTT_ERR_SUCCESS:
            self.close()
        else:
            self._flush()

    def _write(self) -> None:
        if self._client.loop_write() != mqtt.MQTT_ERR_SUCCESS:
            self.close()
        else:
            self._flush()

    def _flush(self) -> None:
        """Write paho's output buffer; the loop writes the rest when the socket is writable."""
        if self._client.want_write() and self._writing is None:
            self._client.loop_write()
        sock: Any = self._client.socket()
        wants_write = self._client.want_write() and sock is not None
        if wants_write and self._writing is None:
            self._writing = sock
            self._loop.add_writer(sock, self._write)
        elif not wants_write and self._writing is not None:
            self._loop.remove_writer(self._writing)
            self._writing = None

    def _on_connect(
        self, _client: Any, _userdata: Any, _flags: Any, reason: ReasonCode, _properties: Any
    ) -> None:
        if not self._connack.done():
            self._connack.set_result(reason)

    def _on_socket_close(self, _client: Any, _userdata: Any, sock: Any) -> None:
        # connect()'s thread may call this before the socket has a reader in the loop.
        if self._loop.is_closed():
            return
        if sock.fileno() >= 0:
            self._loop.remove_reader(sock)
            self._loop.remove_writer(sock)
        self._writing = None
        self.lost.set()
