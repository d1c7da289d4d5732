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
from bridge.publish_parser import ReceivedMessage
from doorstep.errors import MalformedPacket
from doorstep.mqtt_topics import (
    PHONE_FILTER,
    POSITION,
    SERIES_FILTER,
    SERIES_PREFIX,
    STATUS,
    filter_of,
)
from doorstep.settings import MqttBroker
from doorstep.telemetry import get_logger

if TYPE_CHECKING:
    from paho.mqtt.client import SocketLike

DROPPED_TOPIC = "$SYS/broker/publish/messages/dropped"
# The broker's own figures, published every sys_interval (10 s) when they change.
BROKER_GAUGES = {
    "$SYS/broker/clients/connected": metrics.BROKER_CLIENTS,
    "$SYS/broker/publish/messages/received": metrics.BROKER_RECEIVED,
    "$SYS/broker/store/messages/count": metrics.BROKER_STORED,
}
# Unlimited: a reload may corrupt Mosquitto's list of sessions that expire (mosquitto.conf).
SESSION_EXPIRY_S = 0xFFFFFFFF
KEEPALIVE_S = 15  # a dead connection is noticed within twice that
CONNECT_TIMEOUT_S = 5.0
MIN_BACKOFF_S = 0.25
MAX_BACKOFF_S = 5.0  # a broker that returns is found within this

_SERIES_PREFIX = SERIES_PREFIX.encode()


@dataclass(slots=True)
class AckBatch:
    """Messages that are acknowledged together, once Kafka has confirmed all their records."""

    packet_ids: list[bytes]
    unconfirmed: int = 0
    error: KafkaError | None = None

    def on_delivery(self, error: KafkaError | None, _message: Any) -> None:
        """Note that Kafka has confirmed or refused one of the records."""
        self.unconfirmed -= 1
        if error is not None:
            self.error = error


class Subscriber:
    """A persistent session: clean start off, manual PUBACKs, QoS 1.

    Messages are acknowledged in the order received (MQTT 4.6), batch by batch. A new connection
    discards the batches of the old one: the broker delivers the unacknowledged messages again, and
    late confirmations reach only the discarded batches.
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
        self.received: list[ReceivedMessage] = []
        self.is_subscribed = False
        self._log = get_logger(broker=str(broker))
        self._batches: deque[AckBatch] = deque()
        self._receive_maximum = receive_maximum
        self._connector: threading.Thread | None = None
        self._retry_at_s = 0.0
        self._backoff_s = MIN_BACKOFF_S
        self._logged_waiting = False
        self._broker_dropped = 0
        self._client = self._make_client(client_id, username, password)

    def _make_client(self, client_id: str, username: str, password: str) -> BulkClient:
        client = BulkClient(
            CallbackAPIVersion.VERSION2, client_id=client_id, protocol=MQTTProtocolVersion.MQTTv5
        )
        client.retained = set()
        client.username_pw_set(username, password)
        if self.broker.tls:
            client.tls_set()
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.on_socket_open = _disable_nagle
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_disconnect = self._on_disconnect
        return client

    def maintain_connection(self, now_s: float) -> None:
        """Connect after the backoff, and send pings. Call it often; it never blocks."""
        if self._connector is not None:
            if self._connector.is_alive():
                return
            self._connector = None
        if self._client.socket() is not None:
            self._client.loop_misc()
        elif now_s >= self._retry_at_s:
            self._reset()
            self._retry_at_s = now_s + self._backoff_s * random.uniform(0.8, 1.2)
            self._backoff_s = min(MAX_BACKOFF_S, 2 * self._backoff_s)
            self._connector = threading.Thread(
                target=self._connect, name=f"connect-{self.broker}", daemon=True
            )
            self._connector.start()

    def _connect(self) -> None:
        """Open the connection in a separate thread: name resolution may block for seconds."""
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
            if not self._logged_waiting:
                self._logged_waiting = True
                self._log.warning("waiting_for_mqtt", error=str(exc))

    def reconnect(self, reason: str) -> None:
        """Drop the connection, so that the broker redelivers the unacknowledged messages."""
        self._log.warning("mqtt_reconnecting", reason=reason)
        self._abort()

    def _abort(self) -> None:
        self._client.abort()
        self._reset()

    def _reset(self) -> None:
        self.is_subscribed = False
        metrics.CONNECTED.labels(str(self.broker)).set(0)
        self.received.clear()
        self._batches.clear()

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
        # Retained messages are delivered once per subscription, not on each connection.
        options = SubscribeOptions(qos=1, retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB)
        filters = (filter_of(POSITION), filter_of(STATUS))
        # A source may have many topics: what it lets the broker keep is seen and cleared.
        series_options = SubscribeOptions(
            qos=1,
            noLocal=True,
            retainAsPublished=True,
            retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB,
        )
        # Phone apps retain their last position: a new session has had it, or it is too old.
        phone_options = SubscribeOptions(qos=1, retainHandling=SubscribeOptions.RETAIN_DO_NOT_SEND)
        client.subscribe(
            [
                *((one, options) for one in filters),
                (SERIES_FILTER, series_options),
                (PHONE_FILTER, phone_options),
            ]
        )
        for topic in (DROPPED_TOPIC, *BROKER_GAUGES):  # each alone: `_on_subscribe` counts codes
            client.subscribe(topic, options=SubscribeOptions(qos=0))

    def _on_subscribe(
        self,
        _client: Client,
        _userdata: object,
        _packet_id: int,
        codes: list[ReasonCode],
        _properties: Properties,
    ) -> None:
        if len(codes) == 1:
            return  # $SYS: optional
        if any(code.is_failure for code in codes):
            self._log.error("mqtt_subscription_refused", reasons=[str(code) for code in codes])
            self._client.abort()
            return
        self.is_subscribed = True
        self._backoff_s = MIN_BACKOFF_S
        self._logged_waiting = False
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
        self._reset()

    def fileno(self) -> int | None:
        """The socket's descriptor; None while there is none or another thread is connecting."""
        sock = None if self._connector is not None else self._client.socket()
        return None if sock is None else sock.fileno()

    @property
    def wants_to_write(self) -> bool:
        """True while paho has unsent bytes."""
        return self._client.want_write()

    def write(self) -> None:
        """Write the unsent bytes."""
        self._client.loop_write()

    def read(self) -> None:
        """Read once and append complete messages to `received`. A lost connection reconnects."""
        try:
            self.received.extend(self._client.receive())
            if self._client.retained:
                self._clear_retained()
        except (OSError, MalformedPacket) as exc:
            self.reconnect(str(exc))

    def _clear_retained(self) -> None:
        """Let the broker forget retained points: otherwise it keeps 64 KiB for each topic.

        A device keeps one retained status and at most one position.
        """
        for topic in self._client.retained:
            if topic.startswith(_SERIES_PREFIX):
                self._client.publish(topic.decode(), b"", retain=True)
                metrics.RETAINED_CLEARED.inc()
        self._client.retained.clear()

    def update_broker_figure(self, topic: str, value: int) -> None:
        """Update the gauge of one of the broker's own figures."""
        if topic == DROPPED_TOPIC:
            self.update_broker_dropped(value)
        elif topic in BROKER_GAUGES:
            BROKER_GAUGES[topic].labels(str(self.broker)).set(value)

    def update_broker_dropped(self, count: int) -> None:
        """Update the broker's count of messages dropped after its PUBACK."""
        metrics.BROKER_DROPPED.labels(str(self.broker)).set(count)
        if count > self._broker_dropped:
            # devices resend them from their journals
            self._log.error("broker_drops_messages", dropped=count, hint="max_queued_messages")
        self._broker_dropped = count  # a lower count means that the broker has restarted

    @property
    def in_flight(self) -> int:
        """The number of messages received and not yet acknowledged."""
        return len(self.received) + sum(len(batch.packet_ids) for batch in self._batches)

    def enqueue(self, batch: AckBatch) -> None:
        """Acknowledge this batch after the earlier ones, once Kafka has confirmed all of it."""
        self._batches.append(batch)

    def acknowledge(self) -> None:
        """Send the PUBACKs of confirmed batches; after a delivery error, reconnect instead."""
        due: list[bytes] = []
        while self._batches and self._batches[0].unconfirmed == 0:
            batch = self._batches.popleft()
            if batch.error is not None:
                metrics.DELIVERY_ERRORS.inc()
                self.reconnect(f"kafka: {batch.error.str()}")
                return
            due += batch.packet_ids
        if due:
            self._client.acknowledge(due)
            metrics.ACKED.inc(len(due))

    def close(self) -> None:
        """Disconnect; the broker keeps the session and queues new messages."""
        if self._connector is not None:
            self._connector.join(2 * CONNECT_TIMEOUT_S)
        if self._client.socket() is not None:
            self._client.disconnect()
            self._client.loop_write()
        self._abort()


def _disable_nagle(_client: Client, _userdata: object, sock: SocketLike) -> None:
    cast("socket.socket", sock).setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
