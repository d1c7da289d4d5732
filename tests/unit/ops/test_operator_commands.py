"""`where` and `dead-letters`, what of them is pure: hashes, times, letters, verdicts."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime, timedelta

import pytest

from device.journal import SeqInBoot
from doorstep.fix import Fix, Refused
from doorstep.kafka.topic_reader import murmur2, partition_of
from doorstep.store.people import AuditEntry
from doorstep.store.records import Watermark
from ops.commands import audit_command, dead_letters_command, trace_command
from ops.commands.audit_command import line_of
from ops.commands.dead_letter_reader import (
    DeadLetterFilter,
    StoredDeadLetter,
    printable,
)
from ops.commands.dead_letter_replay import resend_of
from ops.commands.runner import BadArgument
from ops.commands.times import parse_time
from ops.commands.trace import (
    InHistory,
    InKafka,
    KnownBoot,
    Trace,
    choose_boots,
    concerns,
    entry_of,
)
from ops.commands.trace_report import steps_of, trace_result_of

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
FIX = b'{"boot":"b1","seq":7,"fix_at":1795262400000,"lat_deg":43.7,"lon_deg":11.2}'


def make_letter(
    payload: bytes = FIX, key: bytes | None = b"d1", offset: int = 17, **headers: str
) -> StoredDeadLetter:
    values = {"reason": "not_json", "source": "mqtt", "driver_id": "d1", **headers}
    return StoredDeadLetter(2, offset, 1_795_262_400_000, key, payload, values)


@pytest.mark.parametrize(
    ("key", "hashed"),  # from Kafka's own UtilsTest
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2__kafka_s_own_examples__hash_alike(key: bytes, hashed: int) -> None:
    assert murmur2(key) == hashed % 2**32
    assert 0 <= partition_of(key, 12) < 12


@pytest.mark.parametrize(
    ("text", "ago"),
    [("90s", 90), ("30min", 1800), ("30m", 1800), ("2h", 7200), ("1.5d", 129_600)],
)
def test_parse_time__an_age__is_subtracted_from_now(text: str, ago: float) -> None:
    assert parse_time(text, NOW) == (NOW - timedelta(seconds=ago)).timestamp() * 1000


def test_parse_time__an_instant__is_read_and_anything_else_refused() -> None:
    assert parse_time("2026-11-21T12:00:00+01:00", NOW) == (NOW.timestamp() - 3600) * 1000
    assert parse_time("9" * 300 + "d", NOW) == 0
    for text in ("", "2", "h", "-2h", "yesterday", "2026-11-21T12:00:00", "'; DROP TABLE x;--"):
        with pytest.raises(BadArgument):
            parse_time(text, NOW)


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("1h", datetime.now(UTC) - timedelta(hours=1, minutes=1)),
        ("2026-01-31T12:00Z", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2026-01-31T12:00:00.000Z", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
    ],
)
def test_audit__since_an_age_or_an_instant__is_read(text: str, after: datetime) -> None:
    parser = argparse.ArgumentParser()
    audit_command.add_arguments(parser)
    since = parser.parse_args(["--since", text]).since
    assert since - after >= timedelta()
    with pytest.raises(SystemExit):
        parser.parse_args(["--since", "yesterday"])


@pytest.mark.parametrize(
    "payload", [b"\x1b[31mred\x07", b"a\r\nb", b"\xff\xfe", b"\x00", "‮gpj".encode()]
)
def test_printable__any_bytes__contains_no_control_characters(payload: bytes) -> None:
    assert printable(payload).isprintable()


class StubMessage:
    """A Kafka record of the topic dead-letter. Replaces confluent_kafka.Message."""

    def __init__(self, **headers: bytes | None) -> None:
        self.found = list(headers.items())

    def headers(self) -> list[tuple[str, bytes | None]]:
        return self.found

    def partition(self) -> int:
        return 2

    def offset(self) -> int:
        return 17

    def timestamp(self) -> tuple[int, int]:
        return 1, 1_795_262_400_000

    def key(self) -> bytes:
        return b"\x1b[2J"

    def value(self) -> bytes:
        return b"\x1b[31m"


def test_dead_letter__escape_bytes_in_its_headers__never_reach_the_terminal() -> None:
    escapes = b"\x1b]0;title\x07\x9b2J\r\n\xff"
    names = ("reason", "source", "driver_id", "topic", "detail")
    message = StubMessage(**dict.fromkeys(names, escapes), received_at_ms=None)
    letter = StoredDeadLetter.of(message)

    assert all(value.isprintable() for value in letter.headers.values())
    assert letter.reason.startswith(r"\x1b]0;title\x07")
    assert all(line.isprintable() for line in dead_letters_command.table([letter]))
    assert all(
        str(value).isprintable() for value in letter.to_json().values() if value != "\x1b[31m"
    )
    trace = Trace("d1", 7, "b1", letters=[letter])
    steps = [*steps_of(trace), *trace_command.lines_of(trace, trace_result_of(trace))]
    assert all(str(one).isprintable() for one in steps)


def test_dead_letter__driver_id__is_from_a_header_or_the_topic() -> None:
    assert make_letter().driver_id == "d1"
    assert make_letter(driver_id="").driver_id is None
    topic = "doorstep/v1/drivers/anna/position"
    assert make_letter(driver_id="", topic=topic).driver_id == "anna"
    assert make_letter(driver_id="", topic="doorstep/v1/drivers/a/b/position").driver_id is None
    assert make_letter(driver_id="a b", topic="x").driver_id is None


def test_resend_of__a_letter_without_driver__is_refused() -> None:
    with pytest.raises(BadArgument, match="names no driver"):
        resend_of(make_letter(driver_id="", topic="doorstep/v1/drivers//position"))


def test_dead_letter__arrived_at__is_the_header_s_or_else_the_record_s() -> None:
    assert make_letter(received_at_ms="1795000000000").arrived_at_ms == 1_795_000_000_000
    assert make_letter(received_at_ms="soon").arrived_at_ms == make_letter().written_at_ms


def test_dead_letter_filter__one_field_differs__does_not_match() -> None:
    letter = make_letter()
    at_ms = letter.written_at_ms
    assert DeadLetterFilter().is_empty
    assert DeadLetterFilter(("not_json",), ("mqtt",), ("d1",), at_ms, at_ms + 1).matches(letter)
    for other in (
        DeadLetterFilter(reasons=("empty",)),
        DeadLetterFilter(sources=("parked",)),
        DeadLetterFilter(driver_ids=("d2",)),
        DeadLetterFilter(since_ms=at_ms + 1),
        DeadLetterFilter(until_ms=at_ms),
    ):
        assert not other.matches(letter)


def test_concerns__an_array__only_the_seqs_in_its_detail() -> None:
    array = b"[" + FIX + b"," + FIX.replace(b'"seq":7', b'"seq":8') + b"]"
    letter = make_letter(array, detail="seq 8; seq 9")
    assert not concerns(letter, "b1", 7)
    assert concerns(letter, "b1", 8)
    assert not concerns(letter, "b2", 8)
    assert concerns(make_letter(FIX), "b1", 7)
    assert not concerns(make_letter(b"hello 7"), "b1", 7)


def test_entry_of__another_boot_or_seq__is_none() -> None:
    found = entry_of(FIX, None, 7)
    assert isinstance(found, Fix)
    assert entry_of(FIX, "b1", 7) == found
    assert entry_of(FIX, "b2", 7) is None
    assert entry_of(FIX, "b1", 17) is None


def test_choose_boots__a_boot_with_the_seq__precedes_the_newest() -> None:
    boots = [KnownBoot("new", False, False, 3), KnownBoot("old", True, False, 50)]
    assert choose_boots(boots, [], 40) == ["old"]
    assert choose_boots(boots, [SeqInBoot("unseen", 60, True, False)], 40) == ["old", "unseen"]
    assert choose_boots(boots[:1], [], 60) == ["new"]
    assert choose_boots([], [], 1) == []


HISTORY = InHistory(
    NOW, NOW + timedelta(seconds=0.12), NOW + timedelta(seconds=0.3), 11.2, 43.7, None
)
GOOD = Fix("b1", 7, NOW, 43.7, 11.2)
UNREAD = InKafka(3, 9, 0, GOOD, is_consumed=False)
VOID = InKafka(3, 9, 0, Refused(0, "b1", 7, "void"), is_consumed=True)
REJECTED = KnownBoot("b1", False, True, 9)
MISSING = KnownBoot("b1", False, False, 9)


@pytest.mark.parametrize(
    ("findings", "word", "phrase"),
    [
        ({"history": HISTORY}, "committed", "0.12 s after it was due and 0.18 s after it arrived"),
        ({"known": KnownBoot("b1", True, False, 9)}, "committed", "no longer in the history"),
        ({"parked_at": NOW, "records": [UNREAD]}, "parked", "another transaction"),
        (
            {"letters": [make_letter(reason="latitude_out_of_range")], "known": REJECTED},
            "refused",
            "latitude_out_of_range; dead letter 2:17",
        ),
        ({"known": REJECTED}, "refused", "its dead letter has expired"),
        ({"known": REJECTED, "records": [VOID]}, "void", "closed by its device"),
        ({"records": [UNREAD], "lag": 1234}, "waiting", "1,234 records"),
        ({"records": [InKafka(3, 9, 0, GOOD, True)]}, "lost", "LOST"),
        ({"journal": SeqInBoot("b1", 9, True, False)}, "pending", "still in the device's journal"),
        ({"journal": SeqInBoot("b1", 9, False, True)}, "void", "not received yet"),
        ({"journal": SeqInBoot("b1", 9, False, False)}, "lost", "LOST"),
        ({"journal": SeqInBoot("b1", 6, False, False)}, "unknown", "newest seq of this boot is 6"),
        ({"known": MISSING}, "unknown", "7 is missing"),
        ({}, "unknown", "no boot of d1 has the seq 7"),
    ],
)
def test_trace_result__each_outcome__has_its_word_and_a_line_per_step(
    findings: dict[str, object], word: str, phrase: str
) -> None:
    trace = Trace("d1", 7, boot="b1")
    for name, value in findings.items():
        setattr(trace, name, value)
    result = trace_result_of(trace)
    assert result.word == word
    assert phrase in result.sentence
    assert len({step.part for step in steps_of(trace)}) >= 4
    assert all(line.isprintable() for line in trace_command.lines_of(trace, result))


def test_trace_result__a_fast_phone_clock__is_reported_instead_of_a_negative_time() -> None:
    ahead = InHistory(NOW + timedelta(seconds=90), NOW, NOW, 11.2, 43.7, "inaccurate")
    said = trace_result_of(Trace("d1", 7, boot="b1", history=ahead)).sentence
    assert "the phone's clock is 90.00 s ahead" in said
    assert "quarantine (inaccurate)" in said


@pytest.mark.parametrize(
    ("mark", "acknowledged"),
    [
        (None, False),
        (Watermark("d1", "b1", 6, []), False),
        (Watermark("d1", "b1", 7, []), True),
        (Watermark("d1", "b1", 9, [(6, 7)]), False),
    ],
)
def test_is_acknowledged__a_gap_or_a_lower_watermark__is_not(
    mark: Watermark | None, acknowledged: bool
) -> None:
    assert Trace("d1", 7, boot="b1", watermark=mark).is_acknowledged is acknowledged


@pytest.mark.parametrize(
    "arguments", [["anna"], ["anna", "0"], ["a/b", "1"], ["anna", "²"], ["anna", "1", "--boot", ""]]
)
def test_where__bad_arguments__exit_with_one_error_line(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        trace_command.main(arguments)
    assert stop.value.code == 2
    assert "./run where: error: " in capsys.readouterr().err


@pytest.mark.parametrize("main", [trace_command.main, dead_letters_command.main])
def test_help__has_examples(main: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert callable(main)
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    assert "examples:" in capsys.readouterr().out


def test_audit__control_characters_in_what_a_request_named__are_escaped() -> None:
    at = datetime(2026, 1, 2, tzinfo=UTC)
    entry = AuditEntry(at, "dina", "POST /streams/{topic}", "\x1b[2J\nboss", None)
    line = line_of(entry)
    assert line == r"2026-01-02T00:00:00Z dina POST /streams/{topic} \x1b[2J\nboss"
