"""Resends dead letters with their original bytes and arrival time, and follows the outcome."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg
from confluent_kafka import KafkaError, Message, Producer

from doorstep.errors import KafkaUnavailable, MalformedFix
from doorstep.fix import Decoded, decode_position
from doorstep.kafka.topic_reader import TopicReader, partition_and_offset
from doorstep.store.error_mapping import translated
from doorstep.store.offsets import read_offsets
from ops.commands.dead_letter_reader import StoredDeadLetter, letters_since
from ops.commands.runner import BadArgument
from sql import read_sql

DELIVERY_TIMEOUT_S = 10.0
POLL_S = 0.2

Identity = tuple[str, str, int]
"""(driver_id, boot, seq)"""


@dataclass(slots=True)
class Resent:
    """A dead letter that is sent again."""

    letter: StoredDeadLetter
    driver_id: str
    payload: bytes
    partition: int = -1
    offset: int = -1
    is_consumed: bool = False  # driver_events has committed its offset
    refused: list[str] = field(default_factory=list)  # reason and id of each new dead letter
    outcomes: Counter[str] = field(default_factory=Counter)

    @property
    def key(self) -> bytes:
        return self.driver_id.encode()

    def summary(self) -> str:
        """Describe the outcome in a few words."""
        if not self.is_consumed:
            return "not read yet: see ./run status"
        outcomes = [f"{count} {outcome}" for outcome, count in self.outcomes.items()]
        outcomes += [f"refused again: {one}" for one in self.refused]
        return ", ".join(outcomes) or "read, but nothing in it was kept"

    def to_json(self) -> dict[str, object]:
        return {
            "id": self.letter.letter_id,
            "record": f"{self.partition}:{self.offset}",
            "settled": self.is_consumed,
            "fates": dict(self.outcomes),
            "refused_again": self.refused,
        }


def resend_of(letter: StoredDeadLetter, payload: bytes | None = None) -> Resent:
    """Prepare a dead letter, optionally with another payload. Raises BadArgument."""
    if letter.driver_id is None:
        raise BadArgument(
            f"dead letter {letter.letter_id} names no driver (topic "
            f"{letter.headers.get('topic', '')!r}): it cannot be sent to driver-pos"
        )
    return Resent(letter, letter.driver_id, letter.payload if payload is None else payload)


def produce(bootstrap_servers: str, topic: str, resent: Sequence[Resent]) -> None:
    """Write the letters to the topic and wait for Kafka's acks. Raises KafkaUnavailable.

    Key, bytes and timestamp are the original's. The timestamp is the time of arrival that the
    rules use: a fix that was too old at arrival stays too old, and one that was refused by mistake
    does not become too old by waiting.
    """
    failures: list[KafkaError] = []

    def on_delivery(one: Resent) -> Callable[[KafkaError | None, Message], None]:
        def callback(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                failures.append(error)
            else:
                one.partition, one.offset = partition_and_offset(message)

        return callback

    producer = Producer(
        {
            "bootstrap.servers": bootstrap_servers,
            "client.id": "doorstep-dead-letters",
            "partitioner": "murmur2_random",
            "message.timeout.ms": round(DELIVERY_TIMEOUT_S * 1000),
            "log_level": 0,
        }
    )
    for one in resent:
        producer.produce(
            topic,
            one.payload,
            one.key,
            timestamp=one.letter.arrived_at_ms,
            headers=[("dead_letter", one.letter.letter_id)],
            on_delivery=on_delivery(one),
        )
        producer.poll(0)
    left = producer.flush(DELIVERY_TIMEOUT_S + 1)
    if failures or left:
        reason = failures[0].str() if failures else "no answer"
        raise KafkaUnavailable(f"{left + len(failures)} of {len(resent)} were not sent: {reason}")


def follow(
    resent: Sequence[Resent],
    conn: psycopg.Connection[Any],
    positions: TopicReader,
    letters: TopicReader,
    starts: Mapping[int, int],
    started_at: datetime,
    wait_s: float,
) -> None:
    """Wait until the letters are consumed, up to `wait_s`, and set the outcome of each.

    `starts` are the end offsets of the dead-letter topic, and `started_at` the database's time,
    before they were sent.
    """
    deadline = time.monotonic() + wait_s
    cluster_id, topic_id = positions.identify()
    while True:
        offsets = read_offsets(conn, cluster_id, topic_id)
        for one in resent:
            one.is_consumed = offsets.get(one.partition, 0) > one.offset
        waiting, _ = count_unpublished(conn)
        if (all(one.is_consumed for one in resent) and not waiting) or time.monotonic() > deadline:
            break
        time.sleep(POLL_S)
    by_input = {(one.key, one.payload): one for one in resent}
    for letter in letters_since(letters, starts):
        source = by_input.get((letter.key or b"", letter.payload))
        if source is not None:
            source.refused.append(f"{letter.reason} (dead letter {letter.letter_id})")
    known = read_known(conn, (found for one in resent for found in identities_of(one)))
    for one in resent:
        if one.is_consumed:
            outcomes = (_outcome(known[fix], started_at) for fix in identities_of(one))
            one.outcomes = Counter(outcome for outcome in outcomes if outcome)


def identities_of(one: Resent) -> list[Identity]:
    """Return the (driver_id, boot, seq) of every entry of a payload that has one."""
    decoded: Decoded
    try:
        decoded = decode_position(one.payload)
    except MalformedFix:
        return []
    return [
        (one.driver_id, entry.boot, entry.seq)
        for entry in decoded
        if entry.boot is not None and entry.seq is not None
    ]


@dataclass(frozen=True, slots=True)
class Known:
    """One seq in the database."""

    is_stored: bool
    is_rejected: bool
    is_parked: bool
    recorded_at: datetime | None


def read_known(
    conn: psycopg.Connection[Any], identities: Iterable[Identity]
) -> dict[Identity, Known]:
    """Read the state of some fixes."""
    asked = sorted(set(identities))
    parameters = {
        "driver_ids": [one[0] for one in asked],
        "boots": [one[1] for one in asked],
        "seqs": [one[2] for one in asked],
    }
    with translated():
        rows = conn.execute(read_sql("dead_letter_replay/seq_states.sql"), parameters).fetchall()
    return {tuple(row[:3]): Known(*row[3:]) for row in rows}


def count_unpublished(conn: psycopg.Connection[Any]) -> tuple[int, datetime]:
    """Count the dead letters that are not yet in Kafka; also returns the database's time."""
    with translated():
        row = conn.execute(read_sql("dead_letter_replay/pending_dead_letters.sql")).fetchone()
    assert row is not None  # noqa: S101 - a SELECT without FROM has one row
    return int(row[0]), row[1]


def _outcome(known: Known, started_at: datetime) -> str:
    if known.recorded_at is not None:
        return "committed" if known.recorded_at >= started_at else "known already"
    if known.is_parked:
        return "parked"
    if known.is_stored:
        return "known already"
    return "refused" if known.is_rejected else ""
