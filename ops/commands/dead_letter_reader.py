"""Dead letters as they lie in Kafka: found, filtered, shown."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import cast

from confluent_kafka import Message

from doorstep.errors import DoorstepError
from doorstep.fix import ID_PATTERN
from doorstep.fix.instants import instant_of
from doorstep.http.instants import format_instant
from doorstep.kafka.topic_reader import OffsetRange, TopicReader, place_of
from doorstep.mqtt_topics import POSITION, PREFIX
from ops.commands.runner import BadArgument

FIRST_BYTES = 48

_AGO = re.compile(r"([0-9]+(?:\.[0-9]+)?)(s|min|m|h|d)")
_UNIT_S = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}
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
        """Take a letter from its record."""
        headers: dict[str, str] = {}
        for name, value in cast("Iterable[tuple[str, bytes | None]]", message.headers() or ()):
            headers[name] = (value or b"").decode("utf-8", "replace")
        return cls(
            *place_of(message),
            message.timestamp()[1],
            message.key(),
            message.value() or b"",
            headers,
        )

    @property
    def letter_id(self) -> str:
        """Its place: `partition:offset`."""
        return f"{self.partition}:{self.offset}"

    @property
    def reason(self) -> str:
        return self.headers.get("reason", "")

    @property
    def source(self) -> str:
        return self.headers.get("source", "")

    @property
    def driver_id(self) -> str | None:
        """Whose it is, by its header or by the topic it came on; None if neither tells."""
        named = self.headers.get("driver_id", "")
        if re.fullmatch(ID_PATTERN, named):
            return named
        match = _POSITION_TOPIC.fullmatch(self.headers.get("topic", ""))
        return match[1] if match else None

    @property
    def arrived_at_ms(self) -> int:
        """When its input reached us; a letter that doesn't say was written right then."""
        told = self.headers.get("received_at_ms", "")
        return int(told) if told.isdecimal() else self.written_at_ms

    def first_bytes(self) -> str:
        """The beginning of its payload, fit for one line of a terminal."""
        return printable(self.payload[:FIRST_BYTES]) + (
            "…" if len(self.payload) > FIRST_BYTES else ""
        )

    def to_json(self) -> dict[str, object]:
        """All of it, as JSON values: the payload as text, or in hex where it is not UTF-8."""
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
class Wanted:
    """Which letters are asked for; an empty field asks for any."""

    reasons: Sequence[str] = ()
    sources: Sequence[str] = ()
    driver_ids: Sequence[str] = ()
    since_ms: int | None = None
    until_ms: int | None = None

    @property
    def is_any(self) -> bool:
        """Whether every letter fits."""
        return self == Wanted()

    def fits(self, letter: StoredDeadLetter) -> bool:
        """Whether a letter is asked for."""
        return (
            (not self.reasons or letter.reason in self.reasons)
            and (not self.sources or letter.source in self.sources)
            and (not self.driver_ids or letter.driver_id in self.driver_ids)
            and (self.since_ms is None or letter.written_at_ms >= self.since_ms)
            and (self.until_ms is None or letter.written_at_ms < self.until_ms)
        )


def find_letters(
    reader: TopicReader, wanted: Wanted, limit: int, say: Callable[[str], None] | None = None
) -> tuple[list[StoredDeadLetter], int]:
    """The newest letters that fit, the newest first, and how many fit in all.

    Reads the topic from `since` on, keeping only what is asked for.
    """
    stretches = reader.bounds() if wanted.since_ms is None else reader.since(wanted.since_ms)
    fitting = 0
    if wanted.is_any:  # the newest of each partition are enough
        fitting = sum(high - low for low, high in stretches.values())
        stretches = {one: (max(low, high - limit), high) for one, (low, high) in stretches.items()}
    newest: dict[int, deque[StoredDeadLetter]] = {one: deque(maxlen=limit) for one in stretches}
    for letter in map(StoredDeadLetter.of, reader.read(stretches, say)):
        if wanted.fits(letter):
            fitting += not wanted.is_any
            newest[letter.partition].append(letter)
    found = [letter for letters in newest.values() for letter in letters]
    found.sort(key=lambda one: (one.written_at_ms, one.partition, one.offset), reverse=True)
    return found[:limit], fitting


def read_letters(reader: TopicReader, letter_ids: Sequence[str]) -> list[StoredDeadLetter]:
    """Read letters by their ids. Raises BadArgument for one that is not there."""
    bounds = reader.bounds()
    return [_read_letter(reader, bounds, letter_id) for letter_id in dict.fromkeys(letter_ids)]


def _read_letter(
    reader: TopicReader, bounds: Mapping[int, OffsetRange], letter_id: str
) -> StoredDeadLetter:
    match = re.fullmatch(r"([0-9]{1,6}):([0-9]{1,18})", letter_id)
    if match is None:
        raise BadArgument(f"{letter_id!r} is no letter's id: `list` shows them, such as 2:17")
    partition, offset = int(match[1]), int(match[2])
    low, high = bounds.get(partition, (0, 0))
    if low <= offset < high:
        for message in reader.read({partition: (offset, offset + 1)}):
            return StoredDeadLetter.of(message)
    raise BadArgument(
        f"there is no letter {letter_id}: partition {partition} has {low} to {high - 1} now"
        if high > low
        else f"there is no letter {letter_id}: partition {partition} is empty"
    )


def letters_since(reader: TopicReader, starts: Mapping[int, int]) -> Iterator[StoredDeadLetter]:
    """Everything that was written from these offsets on."""
    bounds = reader.bounds()
    stretches = {one: (max(low, starts[one]), high) for one, (low, high) in bounds.items()}
    return map(StoredDeadLetter.of, reader.read(stretches))


def parse_time(text: str, now: datetime) -> int:
    """Read `2h`, `30min`, `3d` (ago) or an instant with its zone, as ms. Raises BadArgument."""
    match = _AGO.fullmatch(text)
    if match is not None:
        try:
            at = now - timedelta(seconds=float(match[1]) * _UNIT_S[match[2]])
        except OverflowError:
            at = datetime(1970, 1, 1, tzinfo=UTC)
        return max(0, round(at.timestamp() * 1000))
    try:
        return round(instant_of(text).timestamp() * 1000)
    except DoorstepError as exc:
        raise BadArgument(f"{text!r} is neither 2h, 30min, 3d nor an instant ({exc})") from exc


def time_text(ms: int) -> str:
    """An instant for people and programs."""
    return format_instant(datetime.fromtimestamp(ms / 1000, UTC))


def printable(data: bytes) -> str:
    """Bytes on one line, whatever they hold: nothing that a terminal would obey."""
    text = data.decode("utf-8", "backslashreplace")
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)
