"""The loop that moves messages from MQTT to Kafka, and acknowledgements back."""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Mapping, Sequence

from bridge import metrics
from bridge.kafka_publisher import Publisher
from bridge.mqtt_packets import Arrival
from bridge.settings import BridgeSettings
from bridge.subscriber import DROPPED_TOPIC, Chunk, Subscriber
from doorstep.mqtt_topics import POSITION, PREFIX, SERIES_PREFIX, STATUS
from doorstep.telemetry import get_logger

# While something is in flight the loop turns at most every 10 ms: 100 turns of 100 µs a second are
# 1 % of a core, and chunks get larger with the load.
TURN_S = 0.01
IDLE_S = 0.05  # nothing in flight: as long as a finished connect or a SIGTERM may go unseen
STALLED_S = 30.0  # a turn takes milliseconds

_PREFIX = PREFIX.encode()
_POSITION = f"/{POSITION}".encode()
_KEY_FROM, _KEY_TO = len(_PREFIX), -len(_POSITION)
_STATUS = f"/{STATUS}".encode()
_SERIES_PREFIX = SERIES_PREFIX.encode()
_DROPPED = DROPPED_TOPIC.encode()
_POSITIONS = metrics.MESSAGES.labels(POSITION)
_OTHERS = metrics.MESSAGES.labels("other")


class Relay:
    """Turns between reading, producing, polling and acknowledging, all in one thread."""

    def __init__(
        self, settings: BridgeSettings, subscribers: Sequence[Subscriber], publisher: Publisher
    ) -> None:
        self._subscribers = subscribers
        self._publisher = publisher
        self._position_topic = settings.kafka_topic
        self._status_topic = settings.kafka_status_topic
        self._series_topic = settings.kafka_series_topic
        self._dead_letter_topic = settings.kafka_dead_letter_topic
        self._max_in_flight = settings.bridge_max_in_flight
        self._log = get_logger()
        self._turned_at = time.monotonic()

    def run(self, stopping: threading.Event) -> None:
        """Relay until `stopping`, then hand on what has arrived, acknowledge it and say goodbye."""
        while not stopping.is_set():
            self.turn()
        for subscriber in self._subscribers:
            self._hand_on(subscriber)
        left = self._publisher.flush()
        for subscriber in self._subscribers:
            subscriber.acknowledge()
            subscriber.close()
        self._publisher.close()
        self._log.info("stopped", unconfirmed=left)

    def ready(self) -> Mapping[str, bool]:
        """Whether each broker's session and Kafka are there."""
        sessions = {str(one.broker): one.is_subscribed for one in self._subscribers}
        return {**sessions, "kafka": self._publisher.is_reachable}

    def is_alive(self) -> bool:
        """Whether the loop still turns."""
        return time.monotonic() - self._turned_at < STALLED_S

    def turn(self) -> None:
        """Do one round: wait for bytes, hand them on, acknowledge what Kafka has confirmed."""
        started_s = self._turned_at = time.monotonic()
        busy = len(self._publisher) > 0
        self._exchange(TURN_S if busy else IDLE_S)
        for subscriber in self._subscribers:
            self._hand_on(subscriber)
        self._publisher.poll()
        for subscriber in self._subscribers:
            subscriber.acknowledge()
            subscriber.keep_up(started_s)
        if self._publisher.has_failed:
            self._publisher.reopen()
            for subscriber in self._subscribers:
                subscriber.reconnect("the Kafka producer failed")
        metrics.IN_FLIGHT.set(sum(subscriber.in_flight for subscriber in self._subscribers))
        if busy:
            time.sleep(max(0.0, started_s + TURN_S - time.monotonic()))

    def _exchange(self, timeout_s: float) -> None:
        """Wait until a socket is ready, and read or write it."""
        poller = select.poll()  # unlike select(), not bound to descriptors below 1024
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

    def _hand_on(self, subscriber: Subscriber) -> None:
        """Give Kafka what has arrived; what its queue has no room for goes on waiting."""
        waiting = subscriber.waiting
        if not waiting:
            return
        chunk = Chunk([])
        send, on_delivery = self._publisher.send, chunk.on_delivery
        overloaded = len(self._publisher) > self._max_in_flight
        sent = positions = 0
        for arrival in waiting:
            topic, payload, packet_id = arrival
            if overloaded and not packet_id and topic != _DROPPED:
                metrics.DROPPED.inc()  # QoS 0 promises nothing, and no limit of MQTT's holds it
                sent += 1
                continue
            try:
                if topic.endswith(_POSITION) and topic.startswith(_PREFIX):
                    key = topic[_KEY_FROM:_KEY_TO]
                    if not send(self._position_topic, key, payload, on_delivery):
                        break
                    chunk.waits_for += 1  # callbacks only run in poll(), so this is in time
                    positions += 1
                elif not self._send_other(subscriber, arrival, chunk):
                    break
            except Exception as exc:  # noqa: BLE001 - one message must not stop the others
                if not self._bury(arrival, exc, chunk):
                    break
            sent += 1
            if packet_id:
                chunk.packet_ids.append(packet_id)
        del waiting[:sent]
        _POSITIONS.inc(positions)
        if sent > positions:
            _OTHERS.inc(sent - positions)
        if chunk.packet_ids or chunk.waits_for:
            subscriber.expect(chunk)

    def _send_other(self, subscriber: Subscriber, arrival: Arrival, chunk: Chunk) -> bool:
        topic = arrival.topic
        if topic.endswith(_STATUS) and topic.startswith(_PREFIX):
            to, key = self._status_topic, topic[len(_PREFIX) : -len(_STATUS)]
        elif topic.startswith(_SERIES_PREFIX):
            to, key = self._series_topic, topic[len(_SERIES_PREFIX) :]
        elif topic == _DROPPED:
            subscriber.note_dropped(int(arrival.payload))
            return True
        else:
            raise ValueError("a topic that nobody asked for")
        if not self._publisher.send(to, key, arrival.payload, chunk.on_delivery):
            return False
        chunk.waits_for += 1
        return True

    def _bury(self, arrival: Arrival, error: Exception, chunk: Chunk) -> bool:
        """Make a dead letter of a message that can't be handled, so that it comes only once."""
        metrics.POISON.inc()
        self._log.error("poison_message", topic=repr(arrival.topic), error=repr(error))
        headers: list[tuple[str, str | bytes | None]] = [
            ("reason", b"bridge_error"),
            ("source", b"mqtt"),
            ("topic", arrival.topic),
            ("detail", repr(error).encode()[:200]),
            ("received_at_ms", str(round(time.time() * 1000))),
        ]
        if not self._publisher.send(
            self._dead_letter_topic, arrival.topic, arrival.payload, chunk.on_delivery, headers
        ):
            return False
        chunk.waits_for += 1
        return True
