"""Dead letters sent again: as their bytes came, as of when they came, and what became of each."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg
from confluent_kafka import KafkaError, Message, Producer

from doorstep.errors import MalformedFix
from doorstep.fix import Decoded, decode_position
from doorstep.kafka.topic_reader import KafkaUnavailable, TopicReader, place_of
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
    """One letter on its way again."""

    letter: StoredDeadLetter
    driver_id: str
    payload: bytes
    partition: int = -1
    offset: int = -1
    is_settled: bool = False
    refused: list[str] = field(default_factory=list)  # reason and id of each new letter
    fates: Counter[str] = field(default_factory=Counter)

    @property
    def key(self) -> bytes:
        return self.driver_id.encode()

    def summary(self) -> str:
        """What became of it, in a few words."""
        if not self.is_settled:
            return "not read yet: ./run status"
        parts = [f"{count} {fate}" for fate, count in self.fates.items()]
        parts += [f"refused again: {one}" for one in self.refused]
        return ", ".join(parts) or "read, and nothing in it was kept"

    def to_json(self) -> dict[str, object]:
        return {
            "id": self.letter.letter_id,
            "record": f"{self.partition}:{self.offset}",
            "settled": self.is_settled,
            "fates": dict(self.fates),
            "refused_again": self.refused,
        }


def resend_of(letter: StoredDeadLetter, payload: bytes | None = None) -> Resent:
    """Prepare a letter, with another payload where one is given. Raises BadArgument."""
    if letter.driver_id is None:
        raise BadArgument(
            f"letter {letter.letter_id} names no driver (topic "
            f"{letter.headers.get('topic', '')!r}), so it has no place in driver-pos"
        )
    return Resent(letter, letter.driver_id, letter.payload if payload is None else payload)


def produce(bootstrap_servers: str, topic: str, resent: Sequence[Resent]) -> None:
    """Write the letters into the topic and wait until Kafka has them. Raises KafkaUnavailable.

    Key and bytes are the original's, and so is the record's timestamp: it is the time of arrival
    by which a fix is judged. A fix that was too old when it came stays too old, and one that was
    refused by mistake is not too old only because it had to wait.
    """
    failures: list[KafkaError] = []

    def noting(one: Resent) -> Callable[[KafkaError | None, Message], None]:
        def note(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                failures.append(error)
            else:
                one.partition, one.offset = place_of(message)

        return note

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
            on_delivery=noting(one),
        )
        producer.poll(0)
    left = producer.flush(DELIVERY_TIMEOUT_S + 1)
    if failures or left:
        why = failures[0].str() if failures else "no answer"
        raise KafkaUnavailable(f"{left + len(failures)} of {len(resent)} were not sent: {why}")


def follow(
    resent: Sequence[Resent],
    conn: psycopg.Connection[Any],
    positions: TopicReader,
    letters: TopicReader,
    starts: Mapping[int, int],
    began_at: datetime,
    wait_s: float,
) -> None:
    """Wait until the letters are worked off, for `wait_s` at most, and note what became of each.

    `starts` is where the dead letters ended, and `began_at` the database's time, before they were
    sent.
    """
    deadline = time.monotonic() + wait_s
    cluster_id, topic_id = positions.identify()
    while True:
        reached = read_offsets(conn, cluster_id, topic_id)
        for one in resent:
            one.is_settled = reached.get(one.partition, 0) > one.offset
        waiting, _ = waiting_letters(conn)
        if (all(one.is_settled for one in resent) and not waiting) or time.monotonic() > deadline:
            break
        time.sleep(POLL_S)
    by_input = {(one.key, one.payload): one for one in resent}
    for letter in letters_since(letters, starts):
        again = by_input.get((letter.key or b"", letter.payload))
        if again is not None:
            again.refused.append(f"{letter.reason} (dead letter {letter.letter_id})")
    known = read_known(conn, (found for one in resent for found in identities_of(one)))
    for one in resent:
        if one.is_settled:
            one.fates = Counter(
                _fate(known[identity], began_at)
                for identity in identities_of(one)
                if _fate(known[identity], began_at)
            )


def identities_of(one: Resent) -> list[Identity]:
    """The (driver_id, boot, seq) of everything in a payload that has one."""
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
    """What the database knows of one seq."""

    is_stored: bool
    is_rejected: bool
    is_parked: bool
    recorded_at: datetime | None


def read_known(
    conn: psycopg.Connection[Any], identities: Iterable[Identity]
) -> dict[Identity, Known]:
    """Look some fixes up."""
    asked = sorted(set(identities))
    parameters = {
        "driver_ids": [one[0] for one in asked],
        "boots": [one[1] for one in asked],
        "seqs": [one[2] for one in asked],
    }
    with translated():
        rows = conn.execute(read_sql("dead_letter_replay/seq_states.sql"), parameters).fetchall()
    return {tuple(row[:3]): Known(*row[3:]) for row in rows}


def waiting_letters(conn: psycopg.Connection[Any]) -> tuple[int, datetime]:
    """How many dead letters wait for Kafka, and the database's time."""
    with translated():
        row = conn.execute(read_sql("dead_letter_replay/pending_dead_letters.sql")).fetchone()
    assert row is not None  # noqa: S101 - a SELECT without FROM has one row
    return int(row[0]), row[1]


def _fate(known: Known, began_at: datetime) -> str:
    if known.recorded_at is not None:
        return "committed" if known.recorded_at >= began_at else "known already"
    if known.is_parked:
        return "parked"
    if known.is_stored:
        return "known already"
    return "refused" if known.is_rejected else ""
