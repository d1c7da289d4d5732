"""Dead letters in Kafka: the record, filters, and searches."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

from confluent_kafka import Message

from doorstep.fix import ID_PATTERN
from doorstep.http.instants import format_instant
from doorstep.kafka.topic_reader import OffsetRange, TopicReader, partition_and_offset
from doorstep.mqtt_topics import POSITION, PREFIX
from ops.commands.runner import BadArgument
from ops.console import Echo, escaped

PREVIEW_BYTES = 48

_POSITION_TOPIC = re.compile(f"{re.escape(PREFIX)}({ID_PATTERN})/{POSITION}")


@dataclass(frozen=True, slots=True)
class StoredDeadLetter:
    """One record of the topic dead-letter."""

    partition: int
    offset: int
    written_at_ms: int
    key: bytes | None
    payload: bytes
    headers: Mapping[str, str]

    @classmethod
    def of(cls, message: Message) -> StoredDeadLetter:
        """Read a dead letter from its Kafka record. Control characters in headers are escaped."""
        headers: dict[str, str] = {}
        for name, value in cast("Iterable[tuple[str, bytes | None]]", message.headers() or ()):
            headers[name] = printable(value or b"")
        return cls(
            *partition_and_offset(message),
            message.timestamp()[1],
            message.key(),
            message.value() or b"",
            headers,
        )

    @property
    def letter_id(self) -> str:
        """`partition:offset`."""
        return f"{self.partition}:{self.offset}"

    @property
    def reason(self) -> str:
        return self.headers.get("reason", "")

    @property
    def source(self) -> str:
        return self.headers.get("source", "")

    @property
    def driver_id(self) -> str | None:
        """The driver by the header, else by the MQTT topic; None if neither names one."""
        driver_id = self.headers.get("driver_id", "")
        if re.fullmatch(ID_PATTERN, driver_id):
            return driver_id
        match = _POSITION_TOPIC.fullmatch(self.headers.get("topic", ""))
        return match[1] if match else None

    @property
    def arrived_at_ms(self) -> int:
        """When the input arrived; without that header, when the dead letter was written."""
        received_at_ms = self.headers.get("received_at_ms", "")
        return int(received_at_ms) if received_at_ms.isdecimal() else self.written_at_ms

    def preview(self) -> str:
        """The start of the payload, printable, on one line."""
        return printable(self.payload[:PREVIEW_BYTES]) + (
            "…" if len(self.payload) > PREVIEW_BYTES else ""
        )

    def to_json(self) -> dict[str, object]:
        """All fields as JSON values: the payload as text, or in hex if it is not UTF-8."""
        try:
            payload = {"payload": self.payload.decode("utf-8")}
        except UnicodeDecodeError:
            payload = {"payload_hex": self.payload.hex()}
        return {
            "id": self.letter_id,
            "written_at": time_text(self.written_at_ms),
            "received_at": time_text(self.arrived_at_ms),
            "reason": self.reason,
            "source": self.source,
            "driver_id": self.driver_id,
            "topic": self.headers.get("topic", ""),
            "detail": self.headers.get("detail", ""),
            "bytes": len(self.payload),
            **payload,
        }


@dataclass(frozen=True, slots=True)
class DeadLetterFilter:
    """Selects dead letters. An empty field matches all."""

    reasons: Sequence[str] = ()
    sources: Sequence[str] = ()
    driver_ids: Sequence[str] = ()
    since_ms: int | None = None
    until_ms: int | None = None

    @property
    def is_empty(self) -> bool:
        """Whether every letter matches."""
        return self == DeadLetterFilter()

    def matches(self, letter: StoredDeadLetter) -> bool:
        """Whether all fields match."""
        return (
            (not self.reasons or letter.reason in self.reasons)
            and (not self.sources or letter.source in self.sources)
            and (not self.driver_ids or letter.driver_id in self.driver_ids)
            and (self.since_ms is None or letter.written_at_ms >= self.since_ms)
            and (self.until_ms is None or letter.written_at_ms < self.until_ms)
        )


def find_letters(
    reader: TopicReader, selection: DeadLetterFilter, limit: int, echo: Echo | None = None
) -> tuple[list[StoredDeadLetter], int]:
    """Return the newest matching letters, newest first, and the number of all matches.

    Scans the topic from `since_ms` on.
    """
    ranges = reader.bounds() if selection.since_ms is None else reader.since(selection.since_ms)
    matches = 0
    if selection.is_empty:  # the end of each partition suffices
        matches = sum(high - low for low, high in ranges.values())
        ranges = {one: (max(low, high - limit), high) for one, (low, high) in ranges.items()}
    newest: dict[int, deque[StoredDeadLetter]] = {one: deque(maxlen=limit) for one in ranges}
    for letter in map(StoredDeadLetter.of, reader.read(ranges, echo)):
        if selection.matches(letter):
            matches += not selection.is_empty
            newest[letter.partition].append(letter)
    found = [letter for letters in newest.values() for letter in letters]
    found.sort(key=lambda one: (one.written_at_ms, one.partition, one.offset), reverse=True)
    return found[:limit], matches


def read_letters(reader: TopicReader, letter_ids: Sequence[str]) -> list[StoredDeadLetter]:
    """Read letters by their ids. Raises BadArgument for one that does not exist."""
    bounds = reader.bounds()
    return [_read_letter(reader, bounds, letter_id) for letter_id in dict.fromkeys(letter_ids)]


def _read_letter(
    reader: TopicReader, bounds: Mapping[int, OffsetRange], letter_id: str
) -> StoredDeadLetter:
    match = re.fullmatch(r"([0-9]{1,6}):([0-9]{1,18})", letter_id)
    if match is None:
        raise BadArgument(
            f"{letter_id!r} is not a dead letter's id, such as 2:17: `list` shows them"
        )
    partition, offset = int(match[1]), int(match[2])
    low, high = bounds.get(partition, (0, 0))
    if low <= offset < high:
        for message in reader.read({partition: (offset, offset + 1)}):
            return StoredDeadLetter.of(message)
    raise BadArgument(
        f"there is no dead letter {letter_id}: partition {partition} holds {low} to {high - 1}"
        if high > low
        else f"there is no dead letter {letter_id}: partition {partition} is empty"
    )


def time_text(ms: int) -> str:
    """Format an instant."""
    return format_instant(datetime.fromtimestamp(ms / 1000, UTC))


def printable(data: bytes) -> str:
    """Escape bytes for one line of a terminal: no control characters remain."""
    return escaped(data.decode("utf-8", "backslashreplace"))
