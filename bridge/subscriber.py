"""One persistent MQTT session on one broker."""

from __future__ import annotations

import random
import socket
import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from confluent_kafka import KafkaError
from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from bridge import metrics
from bridge.bulk_client import BulkClient
from bridge.mqtt_packets import Arrival, BrokenFrame
from doorstep.mqtt_topics import POSITION, SERIES_FILTER, STATUS, filter_of
from doorstep.settings import MqttBroker
from doorstep.telemetry import get_logger

if TYPE_CHECKING:
    from paho.mqtt.client import SocketLike

DROPPED_TOPIC = "$SYS/broker/publish/messages/dropped"
SESSION_EXPIRY_S = 7 * 86_400  # as long as the broker keeps a session
KEEPALIVE_S = 15  # a dead connection is noticed within twice that
CONNECT_TIMEOUT_S = 5.0
LEAST_WAIT_S = 0.25
MOST_WAIT_S = 5.0  # a broker that came back is found within this


@dataclass(slots=True)
class Chunk:
    """Messages that were handed to Kafka together and are acknowledged together."""

    packet_ids: list[bytes]
    waits_for: int = 0
    error: KafkaError | None = None

    def on_delivery(self, error: KafkaError | None, _message: Any) -> None:
        """Note that Kafka has confirmed, or refused, one record. Shared by all of them."""
        self.waits_for -= 1
        if error is not None:
            self.error = error


class Subscriber:
    """A session that survives both ends: clean start off, manual PUBACKs, QoS 1.

    Messages are acknowledged in the order received (MQTT 4.6), chunk by chunk. A new connection
    forgets the chunks of the old one: the broker delivers again what was not acknowledged, and
    late confirmations touch only the forgotten chunks.
    """

    def __init__(
        self,
        broker: MqttBroker,
        *,
        client_id: str,
        username: str,
        password: str,
        receive_maximum: int,
    ) -> None:
        self.broker = broker
        self.waiting: list[Arrival] = []
        self.is_subscribed = False
        self._log = get_logger(broker=str(broker))
        self._chunks: deque[Chunk] = deque()
        self._receive_maximum = receive_maximum
        self._connector: threading.Thread | None = None
        self._retry_at = 0.0
        self._wait_s = LEAST_WAIT_S
        self._said_waiting = False
        self._dropped = 0
        self._client = self._make_client(client_id, username, password)

    def _make_client(self, client_id: str, username: str, password: str) -> BulkClient:
        client = BulkClient(
            CallbackAPIVersion.VERSION2, client_id=client_id, protocol=MQTTProtocolVersion.MQTTv5
        )
        client.username_pw_set(username, password)
        if self.broker.tls:
            client.tls_set()
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.on_socket_open = _send_at_once
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_disconnect = self._on_disconnect
        return client

    # ---- connecting -------------------------------------------------------------------------

    def keep_up(self, now_s: float) -> None:
        """Connect when it is time to, and send pings. Call it often; it never blocks."""
        if self._connector is not None:
            if self._connector.is_alive():
                return
            self._connector = None
        if self._client.socket() is not None:
            self._client.loop_misc()
        elif now_s >= self._retry_at:
            self._forget()
            self._retry_at = now_s + self._wait_s * random.uniform(0.8, 1.2)
            self._wait_s = min(MOST_WAIT_S, 2 * self._wait_s)
            self._connector = threading.Thread(
                target=self._connect, name=f"connect-{self.broker}", daemon=True
            )
            self._connector.start()

    def _connect(self) -> None:
        """Open the connection, in a thread of its own: a name or a dead host may take seconds."""
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = SESSION_EXPIRY_S
        properties.ReceiveMaximum = self._receive_maximum
        try:
            self._client.connect(
                self.broker.host,
                self.broker.port,
                keepalive=KEEPALIVE_S,
                clean_start=False,
                properties=properties,
            )
        except (OSError, ValueError) as exc:
            if not self._said_waiting:
                self._said_waiting = True
                self._log.warning("waiting_for_mqtt", error=str(exc))

    def reconnect(self, reason: str) -> None:
        """Drop the connection, so that the broker delivers again what was not acknowledged."""
        self._log.warning("mqtt_reconnecting", reason=reason)
        self._drop()

    def _drop(self) -> None:
        self._client.drop()
        self._forget()

    def _forget(self) -> None:
        self.is_subscribed = False
        metrics.CONNECTED.labels(str(self.broker)).set(0)
        self.waiting.clear()
        self._chunks.clear()

    def _on_connect(
        self,
        client: Client,
        _userdata: object,
        flags: ConnectFlags,
        code: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if code.is_failure:
            self._log.error("mqtt_refused", reason=str(code))
            return
        metrics.CONNECTIONS.labels(str(self.broker)).inc()
        self._log.info("mqtt_connected", session_present=flags.session_present)
        # Retained states come once, when the subscription is made, not with each connection.
        options = SubscribeOptions(qos=1, retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB)
        filters = (filter_of(POSITION), filter_of(STATUS), SERIES_FILTER)
        client.subscribe([(one, options) for one in filters])
        client.subscribe(DROPPED_TOPIC, options=SubscribeOptions(qos=0))

    def _on_subscribe(
        self,
        _client: Client,
        _userdata: object,
        _packet_id: int,
        codes: list[ReasonCode],
        _properties: Properties,
    ) -> None:
        if len(codes) == 1:
            return  # the broker's own counter: good to have, and not needed
        if any(code.is_failure for code in codes):
            self._log.error("mqtt_subscription_refused", reasons=[str(code) for code in codes])
            self._client.drop()
            return
        self.is_subscribed = True
        self._wait_s = LEAST_WAIT_S
        self._said_waiting = False
        metrics.CONNECTED.labels(str(self.broker)).set(1)

    def _on_disconnect(
        self,
        _client: Client,
        _userdata: object,
        _flags: DisconnectFlags,
        code: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        self._log.info("mqtt_disconnected", reason=str(code))
        self._forget()

    # ---- messages ---------------------------------------------------------------------------

    def fileno(self) -> int | None:
        """The socket to wait on; None while there is none, or another thread opens it."""
        sock = None if self._connector is not None else self._client.socket()
        return None if sock is None else sock.fileno()

    @property
    def wants_to_write(self) -> bool:
        """Whether bytes wait for room in the socket."""
        return self._client.want_write()

    def write(self) -> None:
        """Write what waits."""
        self._client.loop_write()

    def read(self) -> None:
        """Read once; complete messages go to `waiting`. A lost connection is noted, not raised."""
        try:
            self.waiting.extend(self._client.receive())
        except (OSError, BrokenFrame) as exc:
            self.reconnect(str(exc))

    def note_dropped(self, count: int) -> None:
        """Note the broker's own count of messages that it has dropped after its PUBACK."""
        metrics.BROKER_DROPPED.labels(str(self.broker)).set(count)
        if count > self._dropped:
            # the devices, which keep each fix until it is committed, send them again
            self._log.error("broker_drops_messages", dropped=count, hint="max_queued_messages")
        self._dropped = count  # less than before: the broker has started anew

    @property
    def in_flight(self) -> int:
        """How many messages wait for Kafka or for the acknowledgement of an earlier one."""
        return len(self.waiting) + sum(len(chunk.packet_ids) for chunk in self._chunks)

    def expect(self, chunk: Chunk) -> None:
        """Acknowledge this chunk after those before it, once Kafka has all of it."""
        self._chunks.append(chunk)

    def acknowledge(self) -> None:
        """Send the PUBACKs that are due; after a delivery error, reconnect instead."""
        due: list[bytes] = []
        while self._chunks and self._chunks[0].waits_for == 0:
            chunk = self._chunks.popleft()
            if chunk.error is not None:
                metrics.DELIVERY_ERRORS.inc()
                self.reconnect(f"kafka: {chunk.error.str()}")
                return
            due += chunk.packet_ids
        if due:
            self._client.acknowledge(due)
            metrics.ACKED.inc(len(due))

    def close(self) -> None:
        """Say goodbye; the broker keeps the session, and what comes meanwhile."""
        if self._connector is not None:
            self._connector.join(2 * CONNECT_TIMEOUT_S)
        if self._client.socket() is not None:
            self._client.disconnect()
            self._client.loop_write()
        self._drop()


def _send_at_once(_client: Client, _userdata: object, sock: SocketLike) -> None:
    cast("socket.socket", sock).setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
