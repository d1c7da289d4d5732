"""Batches. Pure: no seam is replaced."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from doorstep.store.records import INCOMING_COLUMNS, Outcome
from driver_events import batch as batch_module
from driver_events.batch import Batch, Record, classify, decode_batch, to_dead_letters
from driver_events.positions import pack_positions

AT_MS = 1_790_000_000_000
AT = datetime.fromtimestamp(AT_MS / 1000, UTC)


def body(seq: int, **changes: object) -> dict[str, object]:
    return {
        "boot": "b1",
        "seq": seq,
        "fix_at": AT_MS + seq,
        "lat_deg": 43.7,
        "lon_deg": 11.2,
        **changes,
    }


def record(*bodies: object, driver_id: str = "d1", at_ms: int = AT_MS + 500) -> Record:
    value = bodies[0] if len(bodies) == 1 else list(bodies)
    payload = value if isinstance(value, bytes) else json.dumps(value).encode()
    return Record(driver_id.encode(), payload, at_ms)


def read(*records: Record) -> Batch:
    return decode_batch(records, 10_000)


def test_read_batch__a_fix__becomes_a_row_in_column_order() -> None:
    batch = read(record(body(3, accuracy_m=5, battery=1)))
    assert dict(zip(INCOMING_COLUMNS, batch.rows[0], strict=True)) == {
        "n": 0,
        "driver_id": "d1",
        "boot": "b1",
        "seq": 3,
        "fix_at": AT + timedelta(milliseconds=3),
        "received_at": AT + timedelta(milliseconds=500),
        "lon_deg": 11.2,
        "lat_deg": 43.7,
        "accuracy_m": 5.0,
        "speed_mps": None,
        "heading_deg": None,
        "altitude_m": None,
        "battery": 1.0,
        "reason": None,
    }


def test_read_batch__received_at__is_the_records_timestamp() -> None:
    batch = read(record(body(1), at_ms=AT_MS), record(body(2), at_ms=AT_MS + 7))
    assert [row[5] for row in batch.rows] == [AT, AT + timedelta(milliseconds=7)]


def test_read_batch__enough_rows__ends_with_a_whole_record() -> None:
    records = [record(*(body(k * 10 + n + 1) for n in range(10))) for k in range(5)]
    batch = decode_batch(records, 15)
    assert len(batch.records) == 2
    assert len(batch.rows) == 20


def test_read_batch__key_not_a_driver_id__is_refused() -> None:
    for key in (None, b"", b"a/b", b"\xff", b"x" * 65):
        result = classify(read(Record(key, b"{}", AT_MS)), [])
        [letter] = result.dead_letters
        assert (letter.reason, letter.driver_id) == ("bad_id", None)


def test_classify__no_outcomes__all_are_committed() -> None:
    batch = read(record(body(1), body(2)), record(body(1), driver_id="d2"))
    result = classify(batch, [])
    assert result.outcomes == {"committed": 3}
    assert result.boot_keys() == {("d1", "b1"), ("d2", "b1")}
    assert result.dead_letters == []
    assert [row[3] for row in result.positions()] == [2, 1]


def test_classify__several_fixes__the_newest_committed_is_the_position() -> None:
    batch = read(record(body(1), body(5), body(9), body(2)))
    result = classify(batch, [Outcome(2, "quarantined", "inaccurate")])
    assert [row[3] for row in result.positions()] == [5]
    assert result.outcomes == {"committed": 3, "quarantined": 1}
    assert result.reasons == {"inaccurate": 1}
    assert result.dead_letters == []


def test_classify__duplicate__is_acknowledged_and_no_position() -> None:
    result = classify(read(record(body(1))), [Outcome(0, "duplicate", None)])
    assert result.boot_keys() == {("d1", "b1")}
    assert result.positions() == []
    assert result.dead_letters == []


def test_classify__refused_by_a_rule__becomes_a_dead_letter_with_the_original_bytes() -> None:
    bad = record(body(1), body(2), body(3))
    result = classify(
        read(bad), [Outcome(0, "rejected", "too_old"), Outcome(2, "rejected", "too_old")]
    )
    [letter] = result.dead_letters
    assert letter.payload == bad.payload
    assert (letter.reason, letter.source, letter.driver_id) == ("too_old", "mqtt", "d1")
    assert letter.topic == "doorstep/v1/drivers/d1/position"
    assert letter.detail == "seq 1; seq 3"
    assert result.reasons == {"too_old": 2}


def test_classify__conflict__becomes_a_dead_letter_counted_by_reason() -> None:
    result = classify(read(record(body(1))), [Outcome(0, "conflict", None)])
    assert [letter.reason for letter in result.dead_letters] == ["conflict"]
    assert result.outcomes == {"conflict": 1}
    assert result.reasons == {"conflict": 1}


def test_classify__unreadable_entries__become_dead_letters_without_rows() -> None:
    result = classify(read(record(body(1, boot="a/b")), record(b"nonsense")), [])
    assert sorted(letter.reason for letter in result.dead_letters) == ["bad_id", "not_json"]
    assert result.outcomes == {"malformed": 2}
    assert result.boot_keys() == set()


def test_classify__refused_in_decoding__is_a_row_for_the_watermark_and_a_dead_letter() -> None:
    batch = read(record(body(4, lat_deg=91)))
    assert batch.rows[0][13] == "latitude_out_of_range"
    assert batch.rows[0][4] is None
    result = classify(batch, [Outcome(0, "rejected", "latitude_out_of_range")])
    assert [letter.reason for letter in result.dead_letters] == ["latitude_out_of_range"]
    assert result.boot_keys() == {("d1", "b1")}


@pytest.mark.parametrize(
    ("outcome", "reason"), [("dropped", "off_duty"), ("rejected", "forgotten")]
)
def test_classify__what_may_not_be_kept__is_acknowledged_without_a_dead_letter(
    outcome: str, reason: str
) -> None:
    batch = read(record(body(4)))
    result = classify(batch, [Outcome(0, outcome, reason)])
    assert result.dead_letters == []
    assert result.positions() == []
    assert result.boot_keys() == {("d1", "b1")}
    assert result.outcomes == {outcome: 1}


def test_classify__refused_before__is_no_second_dead_letter() -> None:
    batch = read(record(body(4, lat_deg=91)))
    assert classify(batch, [Outcome(0, "rejected", "rejected_before")]).dead_letters == []


def test_classify__void__is_no_dead_letter() -> None:
    batch = read(record({"boot": "b1", "seq": 4, "void": True}))
    result = classify(batch, [Outcome(0, "rejected", "void")])
    assert result.dead_letters == []
    assert result.reasons == {"void": 1}
    assert result.boot_keys() == {("d1", "b1")}


def test_classify__conflict__is_a_dead_letter() -> None:
    result = classify(read(record(body(1))), [Outcome(0, "conflict", None)])
    assert [letter.reason for letter in result.dead_letters] == ["conflict"]


def test_classify__parked__is_remembered_and_no_position() -> None:
    result = classify(read(record(body(1))), [Outcome(0, "parked", "locked")])
    assert result.parked == {("d1", "b1")}
    assert result.positions() == []
    assert result.dead_letters == []


def test_to_dead_letters__a_batch__has_dead_letters_and_no_rows() -> None:
    batch = to_dead_letters(read(record(body(1))), "out of range")
    assert batch.rows == []
    assert [letter.reason for letter in classify(batch, []).dead_letters] == ["refused_by_database"]


def test_pack_positions__rows__match_the_contract() -> None:
    batch = read(record(body(1, accuracy_m=5, speed_mps=4, heading_deg=90)))
    [value] = pack_positions(batch.rows)
    assert json.loads(value) == {
        "v": 1,
        "positions": [["d1", AT_MS + 1, AT_MS + 500, 11.2, 43.7, 5.0, 4.0, 90.0]],
    }


def test_pack_positions__over_5000__become_several_records() -> None:
    batch = read(*(record(body(1), driver_id=f"d{n}") for n in range(6000)))
    assert [len(json.loads(value)["positions"]) for value in pack_positions(batch.rows)] == [
        5000,
        1000,
    ]


def test_row_indexes__are_those_of_the_store_s_columns() -> None:
    indexes = {
        "driver_id": batch_module._DRIVER_ID,
        "boot": batch_module._BOOT,
        "seq": batch_module._SEQ,
        "fix_at": batch_module._FIX_AT,
        "reason": batch_module._REASON,
    }
    assert {name: INCOMING_COLUMNS.index(name) for name in indexes} == indexes
