"""Kafka topics as resources: staff publish to those on a list, and follow them.

One consumer for the process, whoever follows, and only while somebody does. A follower that wants
the past makes the consumer go back; whoever has had those records already is passed over, by their
offsets. A record's id is where the consumer stands in each partition after it
(`0:12,1:7,2:0`), so that whoever comes back with it goes on from there: at least once.

A keyed topic is one of ours: who follows it gets the records of one key, and only the latest of
them when reading too slowly. It is not on the list, so nobody publishes to it here.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from doorstep.errors import KafkaUnavailable, NotFound
from doorstep.http.problems import UnusableRequest
from doorstep.kafka.access import KafkaAccess
from doorstep.telemetry import get_logger
from tracking_api.live.frames import Frame
from tracking_api.live.viewer import Viewer

CONSUME_AT_MOST = 500
CONSUME_WITHIN_S = 0.1
ANSWER_WITHIN_S = 3.0
RECENT_S = 10.0  # a stream that begins with `recent` overlaps with what the database had
MOST_WAITING = 10_000  # records for a viewer that reads too slowly; then it is cut, and resumes

Offsets = dict[int, int]
"""By partition."""

Found = tuple[int, int, bytes | None, Frame]
"""A record: its partition, offset, key and frame."""

MakeFrame = Callable[[Message, str], Frame | None]
"""A record of a keyed topic, and its id, as a frame; None for one that nobody should see."""

_ONE_LINE = bytes.maketrans(b"\r\n", b"  ")  # outside strings, where JSON has none, only space
_encode = msgspec.json.Encoder().encode


class UnknownTopic(NotFound):
    """There is no such stream."""

    problem = "unknown-stream"


class Follower:
    """A viewer of one topic, or of one of its keys. `next`: the offset it wants, by partition."""

    __slots__ = ("key", "next", "topic", "viewer")

    def __init__(self, topic: str, key: bytes | None = None) -> None:
        self.topic = topic
        self.key = key
        self.next: Offsets = {}
        self.viewer: Viewer | None = None


class Topics:
    """The topics that may be published to and followed."""

    def __init__(
        self,
        kafka: KafkaAccess,
        names: Sequence[str],
        keyed: Mapping[str, MakeFrame] | None = None,
    ) -> None:
        self._servers = {**kafka.as_librdkafka_dict(), "log_level": 0}
        self._names = frozenset(names)
        self._wishes: queue.Queue[tuple[Follower, str, Future[Offsets]] | None] = queue.Queue()
        self._keyed = keyed or {}
        self._followers: dict[str, set[Follower]] = {name: set() for name in (*names, *self._keyed)}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._producer: Producer | None = None
        self._stopping = False

    def check(self, topic: str) -> None:
        """Raises UnknownTopic for a topic that is not on the list."""
        if topic not in self._names:
            raise UnknownTopic

    # -- publishing --------------------------------------------------------------------------

    async def publish(self, topic: str, key: str | None, value: bytes) -> tuple[int, int]:
        """Publish a record; give its partition and offset. Raises KafkaUnavailable."""
        self.check(topic)
        return await asyncio.to_thread(self._publish, topic, key, value)

    def _publish(self, topic: str, key: str | None, value: bytes) -> tuple[int, int]:
        if self._producer is None:
            timeout_ms = int(ANSWER_WITHIN_S * 1000)
            self._producer = Producer(
                self._servers
                | {"partitioner": "murmur2_random", "acks": "all", "message.timeout.ms": timeout_ms}
            )
        outcome: Future[tuple[int, int]] = Future()

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error:
                outcome.set_exception(KafkaUnavailable())
            else:
                outcome.set_result((message.partition() or 0, message.offset() or 0))

        try:
            self._producer.produce(topic, value, key=key, on_delivery=delivered)
            self._producer.flush(ANSWER_WITHIN_S + 1)
        except (BufferError, KafkaException) as exc:
            raise KafkaUnavailable from exc
        if not outcome.done():
            raise KafkaUnavailable
        return outcome.result()

    # -- following ---------------------------------------------------------------------------

    async def find(self, topic: str, start: str, key: bytes | None = None) -> Follower:
        """Find where a follower begins: latest, recent, earliest, an offset, or a record's id.

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
        self._wishes.put((follower, start, found))
        follower.next = await asyncio.wrap_future(found)
        return follower

    def enter(self, follower: Follower, viewer: Viewer) -> None:
        """Begin to send."""
        follower.viewer = viewer
        self._followers[follower.topic].add(follower)
        self._wishes.put((follower, "", Future()))  # go back to where it begins

    def leave(self, follower: Follower) -> None:
        """The viewer is gone."""
        self._followers[follower.topic].discard(follower)

    def close(self) -> None:
        """Stop the thread."""
        self._stopping = True
        self._wishes.put(None)
        if self._thread is not None:
            self._thread.join(timeout=5)

    def _give(self, topic: str, records: list[Found]) -> None:
        """Give records to the topic's followers, each once. In the event loop."""
        for follower in list(self._followers[topic]):
            viewer = follower.viewer
            if viewer is None or viewer.closing:
                continue
            for partition, offset, key, frame in records:
                if offset < follower.next.get(partition, 0):
                    continue
                follower.next[partition] = offset + 1
                if follower.key is None:
                    viewer.tell(frame)
                elif follower.key == key:
                    viewer.show(frame)
            if viewer.waiting > MOST_WAITING:
                viewer.cut()

    # -- the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        config = {
            "group.id": "tracking-api",  # librdkafka wants one; nothing is ever committed to it
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 50,
            "reconnect.backoff.max.ms": 1000,
        }
        consumer = Consumer(self._servers | config)
        at: dict[str, Offsets] = {}  # where the consumer stands
        while not self._stopping:
            try:
                self._hear_wishes(consumer, at)
                idle = [topic for topic in at if not self._followers[topic]]
                for topic in idle:
                    consumer.incremental_unassign(
                        [TopicPartition(topic, partition) for partition in at.pop(topic)]
                    )
                if at:
                    self._read(consumer.consume(CONSUME_AT_MOST, CONSUME_WITHIN_S), at)
            except Exception:  # noqa: BLE001 - a thread's boundary
                get_logger().exception("topics_defect")
                time.sleep(1)
        consumer.close()

    def _hear_wishes(self, consumer: Consumer, at: dict[str, Offsets]) -> None:
        """Answer who asks where to begin, and go back for whoever enters."""
        while not self._stopping and not (at and self._wishes.empty()):
            wish = self._wishes.get()  # with nobody to serve there is nothing else to do
            if wish is None:
                return
            follower, start, found = wish
            if start:
                try:
                    found.set_result(_offsets(consumer, follower.topic, start))
                except UnusableRequest as exc:
                    found.set_exception(exc)
                except KafkaException:
                    found.set_exception(KafkaUnavailable())
            else:
                _stand(consumer, at, follower)

    def _read(self, messages: Sequence[Message], at: dict[str, Offsets]) -> None:
        records: dict[str, list[Found]] = {}
        wanted = {one.key for topic in self._keyed for one in list(self._followers[topic])}
        for message in messages:
            topic, partition, offset = message.topic(), message.partition(), message.offset()
            if message.error() or topic not in at or partition is None or offset is None:
                continue
            at[topic][partition] = offset + 1
            make = self._keyed.get(topic, _frame)
            key = message.key()
            if topic in self._keyed and key not in wanted:
                continue
            frame = make(message, _cursor(at[topic]))
            if frame is not None:
                records.setdefault(topic, []).append((partition, offset, key, frame))
        if self._loop is not None:
            for topic, some in records.items():
                self._loop.call_soon_threadsafe(self._give, topic, some)


def _stand(consumer: Consumer, at: dict[str, Offsets], follower: Follower) -> None:
    """Make the consumer stand no further than where a follower begins."""
    topic = follower.topic
    standing = at.get(topic, {})
    back = {
        partition: offset
        for partition, offset in follower.next.items()
        if offset < standing.get(partition, offset + 1)
    }
    if not back:
        return
    if standing:
        consumer.incremental_unassign([TopicPartition(topic, one) for one in back])
    consumer.incremental_assign([TopicPartition(topic, *one) for one in back.items()])
    at[topic] = standing | back


def _cursor(standing: Offsets) -> str:
    return ",".join(f"{partition}:{offset}" for partition, offset in sorted(standing.items()))


def _frame(message: Message, cursor: str) -> Frame:
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
    return Frame("record", _encode(data).translate(_ONE_LINE), cursor)


def _offsets(consumer: Consumer, topic: str, start: str) -> Offsets:
    known = consumer.list_topics(topic, timeout=ANSWER_WITHIN_S).topics[topic].partitions
    if start == "recent":
        since_ms = round((time.time() - RECENT_S) * 1000)
        times = [TopicPartition(topic, partition, since_ms) for partition in known]
        recent = consumer.offsets_for_times(times, timeout=ANSWER_WITHIN_S)
        asked = {one.partition: one.offset for one in recent if one.offset >= 0}
    else:
        asked = _asked(start)
    found: Offsets = {}
    for partition in known:
        low, high = consumer.get_watermark_offsets(
            TopicPartition(topic, partition), timeout=ANSWER_WITHIN_S
        )
        wish = asked.get(partition, asked.get(-1, high)) if asked else None
        if wish is None:
            found[partition] = low if start == "earliest" else high
        else:
            found[partition] = min(max(wish, low), high)
    return found


def _asked(start: str) -> Offsets:
    """Read an offset (of every partition, under -1) or a record's id."""
    if start in ("latest", "earliest"):
        return {}
    try:
        if ":" not in start:
            return {-1: int(start)}
        return {int(p): int(o) for p, _, o in (one.partition(":") for one in start.split(","))}
    except ValueError as exc:
        complaint = {
            "loc": "query.from",
            "msg": "not latest, earliest, an offset, or a record's id",
            "reason": "bad_cursor",
        }
        raise UnusableRequest([complaint]) from exc
