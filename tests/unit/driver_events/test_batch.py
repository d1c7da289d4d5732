"""Batches. Pure: no seam is replaced."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from doorstep.store.records import INCOMING_COLUMNS, Outcome
from driver_events.batch import Batch, Record, classify, read_batch, to_dead_letters
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
    return read_batch(records, 10_000)


def test_read_batch__a_fix__is_a_row_in_the_stores_order() -> None:
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


def test_read_batch__arrival__is_the_records_own_time() -> None:
    batch = read(record(body(1), at_ms=AT_MS), record(body(2), at_ms=AT_MS + 7))
    assert [row[5] for row in batch.rows] == [AT, AT + timedelta(milliseconds=7)]


def test_read_batch__enough_rows__ends_after_a_whole_record() -> None:
    records = [record(*(body(k * 10 + n + 1) for n in range(10))) for k in range(5)]
    batch = read_batch(records, 15)
    assert len(batch.records) == 2
    assert len(batch.rows) == 20


def test_read_batch__a_key_that_is_no_drivers_id__is_a_fault() -> None:
    for key in (None, b"", b"a/b", b"\xff", b"x" * 65):
        verdict = classify(read(Record(key, b"{}", AT_MS)), [])
        [letter] = verdict.letters
        assert (letter.reason, letter.driver_id) == ("bad_id", None)


def test_judge__nothing_named__all_is_committed() -> None:
    batch = read(record(body(1), body(2)), record(body(1), driver_id="d2"))
    verdict = classify(batch, [])
    assert verdict.outcomes == {"committed": 3}
    assert verdict.pairs() == {("d1", "b1"), ("d2", "b1")}
    assert verdict.letters == []
    assert [row[3] for row in verdict.positions()] == [2, 1]


def test_judge__the_newest_committed_fix__is_the_position() -> None:
    batch = read(record(body(1), body(5), body(9), body(2)))
    verdict = classify(batch, [Outcome(2, "quarantined", "inaccurate")])
    assert [row[3] for row in verdict.positions()] == [5]
    assert verdict.outcomes == {"committed": 3, "quarantined": 1}
    assert verdict.reasons == {"inaccurate": 1}
    assert verdict.letters == []


def test_judge__a_duplicate__is_acked_and_no_position() -> None:
    verdict = classify(read(record(body(1))), [Outcome(0, "duplicate", None)])
    assert verdict.pairs() == {("d1", "b1")}
    assert verdict.positions() == []
    assert verdict.letters == []


def test_judge__refused_by_a_rule__is_a_dead_letter_with_the_original_bytes() -> None:
    spoilt = record(body(1), body(2), body(3))
    verdict = classify(
        read(spoilt), [Outcome(0, "rejected", "too_old"), Outcome(2, "rejected", "too_old")]
    )
    [letter] = verdict.letters
    assert letter.payload == spoilt.payload
    assert (letter.reason, letter.source, letter.driver_id) == ("too_old", "mqtt", "d1")
    assert letter.topic == "doorstep/v1/drivers/d1/position"
    assert letter.detail == "seq 1; seq 3"
    assert verdict.reasons == {"too_old": 2}


def test_judge__a_conflict__is_a_dead_letter_and_counted_as_its_reason() -> None:
    verdict = classify(read(record(body(1))), [Outcome(0, "conflict", None)])
    assert [letter.reason for letter in verdict.letters] == ["conflict"]
    assert verdict.outcomes == {"conflict": 1}
    assert verdict.reasons == {"conflict": 1}


def test_judge__unreadable_entries__are_letters_though_no_row_names_them() -> None:
    verdict = classify(read(record(body(1, boot="a/b")), record(b"nonsense")), [])
    assert sorted(letter.reason for letter in verdict.letters) == ["bad_id", "not_json"]
    assert verdict.outcomes == {"malformed": 2}
    assert verdict.pairs() == set()


def test_judge__refused_in_decoding__is_a_row_for_the_watermark_and_a_letter() -> None:
    batch = read(record(body(4, lat_deg=91)))
    assert batch.rows[0][13] == "latitude_out_of_range"
    assert batch.rows[0][4] is None
    verdict = classify(batch, [Outcome(0, "rejected", "latitude_out_of_range")])
    assert [letter.reason for letter in verdict.letters] == ["latitude_out_of_range"]
    assert verdict.pairs() == {("d1", "b1")}


def test_judge__refused_before__is_no_second_letter() -> None:
    batch = read(record(body(4, lat_deg=91)))
    assert classify(batch, [Outcome(0, "rejected", "rejected_before")]).letters == []


def test_judge__a_void__is_no_letter() -> None:
    batch = read(record({"boot": "b1", "seq": 4, "void": True}))
    verdict = classify(batch, [Outcome(0, "rejected", "void")])
    assert verdict.letters == []
    assert verdict.reasons == {"void": 1}
    assert verdict.pairs() == {("d1", "b1")}


def test_judge__a_conflict__is_a_letter() -> None:
    verdict = classify(read(record(body(1))), [Outcome(0, "conflict", None)])
    assert [letter.reason for letter in verdict.letters] == ["conflict"]


def test_judge__parked__is_remembered_and_no_position() -> None:
    verdict = classify(read(record(body(1))), [Outcome(0, "parked", "locked")])
    assert verdict.parked == {("d1", "b1")}
    assert verdict.positions() == []
    assert verdict.letters == []


def test_bury__a_batch__is_letters_and_no_rows() -> None:
    batch = to_dead_letters(read(record(body(1))), "out of range")
    assert batch.rows == []
    assert [letter.reason for letter in classify(batch, []).letters] == ["refused_by_database"]


def test_pack_positions__rows__as_the_contract_has_them() -> None:
    batch = read(record(body(1, accuracy_m=5, speed_mps=4, heading_deg=90)))
    [value] = pack_positions(batch.rows)
    assert json.loads(value) == {
        "v": 1,
        "positions": [["d1", AT_MS + 1, AT_MS + 500, 11.2, 43.7, 5.0, 4.0, 90.0]],
    }


def test_pack_positions__very_many__are_several_records() -> None:
    batch = read(*(record(body(1), driver_id=f"d{n}") for n in range(6000)))
    assert [len(json.loads(value)["positions"]) for value in pack_positions(batch.rows)] == [
        5000,
        1000,
    ]
