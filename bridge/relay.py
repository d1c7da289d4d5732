"""The loop that forwards messages from MQTT to Kafka and acknowledgements back."""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Mapping, Sequence

from bridge import metrics
from bridge.kafka_publisher import Publisher
from bridge.publish_parser import ReceivedMessage
from bridge.settings import BridgeSettings
from bridge.subscriber import AckBatch, Subscriber
from doorstep.mqtt_topics import PHONE_PREFIX, POSITION, PREFIX, SERIES_PREFIX, STATUS
from doorstep.telemetry import get_logger

# With records in flight the loop runs at most every 10 ms: 100 iterations of 100 µs a second are
# 1 % of a core, and batches grow with the load.
LOOP_INTERVAL_S = 0.01
IDLE_TIMEOUT_S = 0.05  # nothing in flight: the delay of noticing a new connection or SIGTERM
STALLED_AFTER_S = 30.0  # an iteration takes milliseconds

_PREFIX = PREFIX.encode()
_POSITION = f"/{POSITION}".encode()
_KEY_START, _KEY_END = len(_PREFIX), -len(_POSITION)
_STATUS = f"/{STATUS}".encode()
_SERIES_PREFIX = SERIES_PREFIX.encode()
_PHONE_PREFIX = PHONE_PREFIX.encode()
_BROKER_PREFIX = b"$SYS/"
_POSITION_MESSAGES = metrics.MESSAGES.labels(POSITION)
_OTHER_MESSAGES = metrics.MESSAGES.labels("other")


class Relay:
    """Reads from MQTT, produces to Kafka and acknowledges, all in one thread."""

    def __init__(
        self, settings: BridgeSettings, subscribers: Sequence[Subscriber], publisher: Publisher
    ) -> None:
        self._subscribers = subscribers
        self._publisher = publisher
        self._position_topic = settings.kafka_topic
        self._phone_topic = settings.kafka_phone_topic
        self._status_topic = settings.kafka_status_topic
        self._series_topic = settings.kafka_series_topic
        self._dead_letter_topic = settings.kafka_dead_letter_topic
        self._max_in_flight = settings.bridge_max_in_flight
        self._log = get_logger()
        self._last_run_s = time.monotonic()

    def run(self, stopping: threading.Event) -> None:
        """Relay until `stopping`, then forward and acknowledge what was received, and close."""
        while not stopping.is_set():
            self.run_once()
        for subscriber in self._subscribers:
            self._forward(subscriber)
        unconfirmed = self._publisher.flush()
        for subscriber in self._subscribers:
            subscriber.acknowledge()
            subscriber.close()
        self._publisher.close()
        self._log.info("stopped", unconfirmed=unconfirmed)

    def ready(self) -> Mapping[str, bool]:
        """Return whether each broker's session is subscribed and Kafka reachable."""
        sessions = {str(one.broker): one.is_subscribed for one in self._subscribers}
        return {**sessions, "kafka": self._publisher.is_reachable}

    def is_alive(self) -> bool:
        """True while the loop runs."""
        return time.monotonic() - self._last_run_s < STALLED_AFTER_S

    def run_once(self) -> None:
        """Run one iteration: wait for bytes, forward them, acknowledge what Kafka has confirmed."""
        started_s = self._last_run_s = time.monotonic()
        busy = len(self._publisher) > 0
        self._poll_sockets(LOOP_INTERVAL_S if busy else IDLE_TIMEOUT_S)
        for subscriber in self._subscribers:
            self._forward(subscriber)
        self._publisher.poll()
        for subscriber in self._subscribers:
            subscriber.acknowledge()
            subscriber.maintain_connection(started_s)
        if self._publisher.has_failed:
            self._publisher.reopen()
            for subscriber in self._subscribers:
                subscriber.reconnect("the Kafka producer failed")
        metrics.IN_FLIGHT.set(sum(subscriber.in_flight for subscriber in self._subscribers))
        if busy:
            time.sleep(max(0.0, started_s + LOOP_INTERVAL_S - time.monotonic()))

    def _poll_sockets(self, timeout_s: float) -> None:
        """Wait until a socket is ready, then read or write it."""
        poller = select.poll()  # unlike select(), not limited to descriptors below 1024
        by_fileno: dict[int, Subscriber] = {}
        for subscriber in self._subscribers:
            fileno = subscriber.fileno()
            if fileno is not None:
                by_fileno[fileno] = subscriber
                poller.register(fileno, select.POLLIN | select.POLLOUT * subscriber.wants_to_write)
        for fileno, event in poller.poll(timeout_s * 1000):
            if event & select.POLLOUT:
                by_fileno[fileno].write()
            if event & ~select.POLLOUT:
                by_fileno[fileno].read()

    def _forward(self, subscriber: Subscriber) -> None:
        """Produce the received messages; those beyond the producer's queue stay in `received`."""
        received = subscriber.received
        if not received:
            return
        batch = AckBatch([])
        produce, on_delivery = self._publisher.produce, batch.on_delivery
        overloaded = len(self._publisher) > self._max_in_flight
        forwarded = positions = 0
        for message in received:
            topic, payload, packet_id = message
            if overloaded and not packet_id and not topic.startswith(_BROKER_PREFIX):
                metrics.QOS0_DROPPED.inc()  # no Receive Maximum limits QoS 0
                forwarded += 1
                continue
            try:
                if topic.endswith(_POSITION) and topic.startswith(_PREFIX):
                    key = topic[_KEY_START:_KEY_END]
                    if not produce(self._position_topic, key, payload, on_delivery):
                        break
                    batch.unconfirmed += 1  # in time: callbacks run only in poll()
                    positions += 1
                elif not self._forward_other(subscriber, message, batch):
                    break
            except Exception as exc:  # noqa: BLE001 - one message must not stop the others
                if not self._to_dead_letters(message, exc, batch):
                    break
            forwarded += 1
            if packet_id:
                batch.packet_ids.append(packet_id)
        del received[:forwarded]
        _POSITION_MESSAGES.inc(positions)
        if forwarded > positions:
            _OTHER_MESSAGES.inc(forwarded - positions)
        if batch.packet_ids or batch.unconfirmed:
            subscriber.enqueue(batch)

    def _forward_other(
        self, subscriber: Subscriber, message: ReceivedMessage, batch: AckBatch
    ) -> bool:
        topic = message.topic
        if topic.endswith(_STATUS) and topic.startswith(_PREFIX):
            kafka_topic, key = self._status_topic, topic[len(_PREFIX) : -len(_STATUS)]
        elif topic.startswith(_PHONE_PREFIX):
            kafka_topic, key = self._phone_topic, topic.split(b"/")[1]
        elif topic.startswith(_SERIES_PREFIX):
            kafka_topic, key = self._series_topic, topic[len(_SERIES_PREFIX) :]
        elif topic.startswith(_BROKER_PREFIX):
            subscriber.update_broker_figure(topic.decode(), int(message.payload))
            return True
        else:
            raise ValueError("a topic outside the subscriptions")
        if not self._publisher.produce(kafka_topic, key, message.payload, batch.on_delivery):
            return False
        batch.unconfirmed += 1
        return True

    def _to_dead_letters(self, message: ReceivedMessage, error: Exception, batch: AckBatch) -> bool:
        """Produce a message that raised as a dead letter, so that it is not delivered again."""
        headers: list[tuple[str, str | bytes | None]] = [
            ("reason", b"bridge_error"),
            ("source", b"mqtt"),
            ("topic", message.topic),
            ("detail", repr(error).encode()[:200]),
            ("received_at_ms", str(round(time.time() * 1000))),
        ]
        if not self._publisher.produce(
            self._dead_letter_topic, message.topic, message.payload, batch.on_delivery, headers
        ):
            return False
        batch.unconfirmed += 1
        metrics.POISON.inc()
        self._log.error("poison_message", topic=repr(message.topic), error=repr(error))
        return True
