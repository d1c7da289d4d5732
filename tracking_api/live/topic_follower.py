"""Kafka topics as resources: staff publish to the topics on a list, and follow them.

One consumer serves all followers in the process, and only while there are any. A follower that
starts in the past makes the consumer seek back; the other followers skip records that they have
had, by offset. A record's id lists the consumer's next offset in each partition after it
(`0:12,1:7,2:0`), so a follower that reconnects with it resumes there: at least once.

A keyed topic is one of our own: its followers get the records of one key, and only the latest of
them when they read too slowly. It is not on the list, so nothing is published to it here.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from doorstep.errors import DoorstepError, KafkaUnavailable, NotFound
from doorstep.kafka.access import KafkaAccess
from doorstep.telemetry import get_logger
from tracking_api.live.frames import Frame
from tracking_api.live.topic_offsets import (
    KAFKA_TIMEOUT_S,
    Offsets,
    encode_offsets,
    find_offsets,
)
from tracking_api.live.viewer import Viewer

CONSUME_MAX_RECORDS = 500
CONSUME_TIMEOUT_S = 0.1
MAX_QUEUED_RECORDS = 10_000  # for a slow viewer; then it is disconnected, and resumes

MakeFrame = Callable[[Message, str], Frame | None]
"""Makes the frame of a keyed topic's record, given its id; None if it is not to be shown."""

_ONE_LINE = bytes.maketrans(b"\r\n", b"  ")  # JSON has line breaks only between tokens
_encode = msgspec.json.Encoder().encode


class UnknownTopic(NotFound):
    """There is no such stream."""

    problem = "unknown-stream"


class Follower:
    """A viewer of one topic, or of one of its keys. `next`: the offset it needs, by partition."""

    __slots__ = ("key", "next", "topic", "viewer")

    def __init__(self, topic: str, key: bytes | None = None) -> None:
        self.topic = topic
        self.key = key
        self.next: Offsets = {}
        self.viewer: Viewer | None = None


class Record(NamedTuple):
    """A consumed record as a frame."""

    partition: int
    offset: int
    key: bytes | str | None
    frame: Frame


class FindOffsets(NamedTuple):
    """A request to the consumer's thread: where does this follower start?"""

    follower: Follower
    start: str
    found: Future[Offsets]


class SeekBack(NamedTuple):
    """A request to the consumer's thread: consume from where this follower starts."""

    follower: Follower


class Stop(NamedTuple):
    """A request to the consumer's thread: end."""


class TopicStreams:
    """The topics that may be published to and followed."""

    def __init__(
        self,
        kafka: KafkaAccess,
        names: Sequence[str],
        keyed: Mapping[str, MakeFrame] | None = None,
    ) -> None:
        self._servers = {**kafka.as_librdkafka_dict(), "log_level": 0}
        self._names = frozenset(names)
        self._requests: queue.Queue[FindOffsets | SeekBack | Stop] = queue.Queue()
        self._keyed = keyed or {}
        self._followers: dict[str, set[Follower]] = {name: set() for name in (*names, *self._keyed)}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._producer: Producer | None = None
        self._stopping = False

    def check(self, topic: str) -> None:
        """Raise UnknownTopic for a topic that is not on the list."""
        if topic not in self._names:
            raise UnknownTopic

    # -- publishing --------------------------------------------------------------------------

    async def publish(self, topic: str, key: str | None, value: bytes) -> tuple[int, int]:
        """Publish a record; return its partition and offset. Raises KafkaUnavailable."""
        self.check(topic)
        return await asyncio.to_thread(self._publish, topic, key, value)

    def _publish(self, topic: str, key: str | None, value: bytes) -> tuple[int, int]:
        if self._producer is None:
            timeout_ms = int(KAFKA_TIMEOUT_S * 1000)
            self._producer = Producer(
                self._servers
                | {"partitioner": "murmur2_random", "acks": "all", "message.timeout.ms": timeout_ms}
            )
        outcome: Future[tuple[int, int]] = Future()

        def on_delivery(error: KafkaError | None, message: Message) -> None:
            if error:
                outcome.set_exception(KafkaUnavailable())
            else:
                outcome.set_result((message.partition() or 0, message.offset() or 0))

        try:
            self._producer.produce(topic, value, key=key, on_delivery=on_delivery)
            self._producer.flush(KAFKA_TIMEOUT_S + 1)
        except (BufferError, KafkaException) as exc:
            raise KafkaUnavailable from exc
        if not outcome.done():
            raise KafkaUnavailable
        return outcome.result()

    # -- following ---------------------------------------------------------------------------

    async def open(self, topic: str, start: str, key: bytes | None = None) -> Follower:
        """Return a follower that starts at latest, recent, earliest, an offset or a record's id.

        Raises UnknownTopic, UnusableRequest, KafkaUnavailable.
        """
        if topic not in self._followers:
            raise UnknownTopic
        if self._thread is None:
            self._loop = asyncio.get_running_loop()
            self._thread = threading.Thread(target=self._run, name="topics", daemon=True)
            self._thread.start()
        follower = Follower(topic, key)
        found: Future[Offsets] = Future()
        self._requests.put(FindOffsets(follower, start, found))
        follower.next = await asyncio.wrap_future(found)
        return follower

    def subscribe(self, follower: Follower, viewer: Viewer) -> None:
        """Send a viewer the follower's records."""
        follower.viewer = viewer
        self._followers[follower.topic].add(follower)
        self._requests.put(SeekBack(follower))

    def unsubscribe(self, follower: Follower) -> None:
        """Remove a follower."""
        self._followers[follower.topic].discard(follower)

    def close(self) -> None:
        """Stop the thread."""
        self._stopping = True
        self._requests.put(Stop())
        if self._thread is not None:
            self._thread.join(timeout=5)

    def _deliver(self, topic: str, records: list[Record]) -> None:
        """Send records to the topic's followers, each once. Called in the event loop."""
        for follower in list(self._followers[topic]):
            viewer = follower.viewer
            if viewer is None or viewer.closing:
                continue
            for partition, offset, key, frame in records:
                if offset < follower.next.get(partition, 0):
                    continue
                follower.next[partition] = offset + 1
                if follower.key is None:
                    viewer.send(frame)
                elif follower.key == key:
                    viewer.send_latest(frame)
            if viewer.queue_length > MAX_QUEUED_RECORDS:
                viewer.disconnect()

    # -- the consumer's thread ---------------------------------------------------------------

    def _run(self) -> None:
        config = {
            "group.id": "tracking-api",  # required by librdkafka; no offsets are committed
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 50,
            "reconnect.backoff.max.ms": 1000,
        }
        consumer = Consumer(self._servers | config)
        consumed: dict[str, Offsets] = {}  # the consumer's next offsets, by topic
        while not self._stopping:
            try:
                self._handle_requests(consumer, consumed)
                unused = [topic for topic in consumed if not self._followers[topic]]
                for topic in unused:
                    consumer.incremental_unassign(
                        [TopicPartition(topic, partition) for partition in consumed.pop(topic)]
                    )
                if consumed:
                    messages = consumer.consume(CONSUME_MAX_RECORDS, CONSUME_TIMEOUT_S)
                    self._dispatch(messages, consumed)
            except Exception:  # noqa: BLE001 - a thread's boundary
                get_logger().exception("topics_defect")
                time.sleep(1)
        consumer.close()

    def _handle_requests(self, consumer: Consumer, consumed: dict[str, Offsets]) -> None:
        """Handle queued requests; block while there is nothing to consume."""
        while not self._stopping and not (consumed and self._requests.empty()):
            request = self._requests.get()
            if isinstance(request, Stop):
                return
            if isinstance(request, SeekBack):
                _seek_back(consumer, consumed, request.follower)
            else:
                _find_offsets(consumer, request)

    def _dispatch(self, messages: Sequence[Message], consumed: dict[str, Offsets]) -> None:
        records: dict[str, list[Record]] = {}
        keys = {one.key for topic in self._keyed for one in list(self._followers[topic])}
        for message in messages:
            topic, partition, offset = message.topic(), message.partition(), message.offset()
            if message.error() or topic not in consumed or partition is None or offset is None:
                continue
            consumed[topic][partition] = offset + 1
            make_frame = self._keyed.get(topic, record_frame)
            key = message.key()
            if topic in self._keyed and key not in keys:
                continue
            frame = make_frame(message, encode_offsets(consumed[topic]))
            if frame is not None:
                records.setdefault(topic, []).append(Record(partition, offset, key, frame))
        if self._loop is not None:
            for topic, some in records.items():
                self._loop.call_soon_threadsafe(self._deliver, topic, some)


def _find_offsets(consumer: Consumer, request: FindOffsets) -> None:
    try:
        offsets = find_offsets(consumer, request.follower.topic, request.start)
    except DoorstepError as exc:
        request.found.set_exception(exc)
    except KafkaException:
        request.found.set_exception(KafkaUnavailable())
    else:
        request.found.set_result(offsets)


def _seek_back(consumer: Consumer, consumed: dict[str, Offsets], follower: Follower) -> None:
    """Make the consumer's next offsets no greater than where a follower starts."""
    topic = follower.topic
    current = consumed.get(topic, {})
    earlier = {
        partition: offset
        for partition, offset in follower.next.items()
        if offset < current.get(partition, offset + 1)
    }
    if not earlier:
        return
    if current:
        consumer.incremental_unassign([TopicPartition(topic, one) for one in earlier])
    consumer.incremental_assign([TopicPartition(topic, *one) for one in earlier.items()])
    consumed[topic] = current | earlier


def record_frame(message: Message, record_id: str) -> Frame:
    """Return the frame of a listed topic's record."""
    value = message.value() or b""
    content: Any
    try:
        msgspec.json.decode(value)
        content = msgspec.Raw(value)
    except msgspec.DecodeError:
        content = value.decode(errors="replace")
    key = message.key()
    data = {
        "partition": message.partition(),
        "offset": message.offset(),
        "at_ms": message.timestamp()[1],
        "key": key.decode(errors="replace") if isinstance(key, bytes) else key,
        "value": content,
    }
    return Frame("record", _encode(data).translate(_ONE_LINE), record_id)
