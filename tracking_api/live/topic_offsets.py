"""Offsets of a topic's partitions, and the ids and start points that stand for them."""

from __future__ import annotations

import time

from confluent_kafka import Consumer, TopicPartition

from doorstep.http.problems import UnusableRequest

KAFKA_TIMEOUT_S = 3.0
RECENT_S = 10.0  # a stream that starts with `recent` overlaps with the history read before it
ALL_PARTITIONS = -1

Offsets = dict[int, int]
"""By partition."""


def encode_offsets(offsets: Offsets) -> str:
    """Return a record's id: the next offset of each partition."""
    return ",".join(f"{partition}:{offset}" for partition, offset in sorted(offsets.items()))


def find_offsets(consumer: Consumer, topic: str, start: str) -> Offsets:
    """Return where to start: latest, recent, earliest, an offset, or after a record's id.

    Offsets outside a partition's bounds are moved to the nearer bound. Raises UnusableRequest,
    KafkaException.
    """
    partitions = consumer.list_topics(topic, timeout=KAFKA_TIMEOUT_S).topics[topic].partitions
    if start == "recent":
        since_ms = round((time.time() - RECENT_S) * 1000)
        times = [TopicPartition(topic, partition, since_ms) for partition in partitions]
        recent = consumer.offsets_for_times(times, timeout=KAFKA_TIMEOUT_S)
        requested = {one.partition: one.offset for one in recent if one.offset >= 0}
    else:
        requested = _parse_start(start)
    found: Offsets = {}
    for partition in partitions:
        low, high = consumer.get_watermark_offsets(
            TopicPartition(topic, partition), timeout=KAFKA_TIMEOUT_S
        )
        if requested:
            offset = requested.get(partition, requested.get(ALL_PARTITIONS, high))
            found[partition] = min(max(offset, low), high)
        else:
            found[partition] = low if start == "earliest" else high
    return found


def _parse_start(start: str) -> Offsets:
    """Parse an offset (of ALL_PARTITIONS) or a record's id."""
    if start in ("latest", "earliest"):
        return {}
    try:
        if ":" not in start:
            return {ALL_PARTITIONS: int(start)}
        pairs = (one.partition(":") for one in start.split(","))
        return {int(partition): int(offset) for partition, _, offset in pairs}
    except ValueError as exc:
        complaint = {
            "loc": "query.from",
            "msg": "not latest, earliest, an offset, or a record's id",
            "reason": "bad_cursor",
        }
        raise UnusableRequest([complaint]) from exc
