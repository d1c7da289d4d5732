"""Series points: decoding, rules of age, dead letters. Pure: no seam is replaced."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from doorstep.errors import MalformedFix
from doorstep.series import Point, RefusedPoint, decode_points, name_of
from driver_events.batch import Record
from driver_events.series_batch import decode_series, series_to_dead_letters

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
NOON_MS = int(NOON.timestamp() * 1000)
WEEK = timedelta(days=7)


def record(value: object, key: bytes | None = b"box/t_c", arrived_s: float = 0) -> Record:
    payload = value if isinstance(value, bytes) else json.dumps(value).encode()
    return Record(key, payload, NOON_MS + int(arrived_s * 1000))


def test_decode_points__negative_and_tiny_values__keep_sign_and_size() -> None:
    wire = [{"at": NOON_MS, "value": value} for value in (-3.5, 0, -0.0, 5e-324, -7)]
    points = decode_points(json.dumps(wire).encode())
    assert [str(point.value) for point in points if isinstance(point, Point)] == [
        *("-3.5", "0.0", "-0.0", "5e-324", "-7.0")
    ]


def test_decode_points__rfc_3339_and_epoch_ms__are_one_instant() -> None:
    payload = b'[{"at":"2026-01-01T13:00:00+01:00","value":1},{"at":%d,"value":1}]' % NOON_MS
    assert decode_points(payload) == [Point(NOON, 1.0), Point(NOON, 1.0)]


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "empty"),
        (b"[]", "empty"),
        (b"{", "not_json"),
        (b"\xff", "not_utf8"),
        (b"[" * 10_000, "too_deep"),
        (b"[" + b",".join([b"1"] * 257) + b"]", "too_many_points"),
        (b" " * 65_537, "too_large"),
    ],
)
def test_decode_points__not_a_document__raises_with_its_reason(payload: bytes, reason: str) -> None:
    with pytest.raises(MalformedFix) as refusal:
        decode_points(payload)
    assert refusal.value.reason == reason


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (b"1", "wrong_shape"),
        (b'{"value":1}', "missing_field"),
        (b'{"at":1767268800000}', "missing_field"),
        (b'{"at":1767268800000,"value":"1"}', "wrong_type"),
        (b'{"at":1767268800000,"value":true}', "wrong_type"),
        (b'{"at":1767268800000,"value":null}', "wrong_type"),
        (b'{"at":1767268800000,"value":NaN}', "not_finite"),
        (b'{"at":1767268800000,"value":-Infinity}', "not_finite"),
        (b'{"at":1767268800000,"value":1e999}', "not_finite"),
        (b'{"at":1767268800000,"value":1,"value":2}', "duplicate_key"),
        (b'{"at":1767268800,"value":1}', "seconds_for_milliseconds"),
        (b'{"at":"2026-01-01T12:00:00","value":1}', "no_time_zone"),
    ],
)
def test_decode_points__bad_entry__is_refused_and_the_good_one_is_kept(
    entry: bytes, reason: str
) -> None:
    good = b'{"at":1767268800000,"value":1,"note":"unknown fields are ignored"}'
    refused, point = decode_points(b"[" + entry + b"," + good + b"]")
    assert isinstance(refused, RefusedPoint)
    assert (refused.n, refused.reason) == (0, reason)
    assert point == Point(NOON, 1.0)


@pytest.mark.parametrize("key", [None, b"", b"box", b"box/", b"a/b/c", b"b\xc3\xa9/x", b"a/b\n"])
def test_decode_series__key_not_a_name__is_a_dead_letter(key: bytes | None) -> None:
    batch = decode_series([record({"at": NOON_MS, "value": 1}, key)], WEEK)
    assert name_of(key) is None
    assert ([letter.reason for letter in batch.dead_letters()], batch.rows) == (["bad_id"], [])


def test_decode_series__instants__are_compared_with_the_arrival() -> None:
    week_s = WEEK.total_seconds()
    records = [
        record({"at": NOON_MS, "value": 1}, arrived_s=-121),
        record({"at": NOON_MS, "value": 2}, arrived_s=-119),
        record({"at": NOON_MS, "value": 3}, arrived_s=week_s - 1),
        record({"at": NOON_MS, "value": 4}, arrived_s=week_s + 1),
    ]
    batch = decode_series(records, WEEK)
    assert [row[3] for row in batch.rows] == [2.0, 3.0]
    assert [letter.reason for letter in batch.dead_letters()] == ["in_the_future", "too_old"]


def test_apply_outcomes__refused_by_the_database__is_counted_and_one_dead_letter() -> None:
    points = [{"at": NOON_MS + n, "value": n} for n in range(4)]
    batch = decode_series([record(points), record(b"x")], WEEK)
    batch.apply_outcomes([(0, "duplicate"), (1, "conflict"), (2, "too_many_series")])
    assert dict(batch.outcomes) == {
        "written": 1,
        "duplicate": 1,
        "conflict": 1,
        "too_many_series": 1,
        "not_json": 1,
    }
    letters = {letter.reason: letter for letter in batch.dead_letters()}
    assert set(letters) == {"not_json", "too_many_series"}
    assert letters["not_json"].payload == b"x"
    assert letters["not_json"].topic == "doorstep/v1/series/box/t_c"


def test_series_to_dead_letters__every_record__is_a_dead_letter_with_its_bytes() -> None:
    letters = series_to_dead_letters([record(b"1"), record(b"2")], "no room").dead_letters()
    assert [(one.payload, one.reason) for one in letters] == [
        (b"1", "refused_by_database"),
        (b"2", "refused_by_database"),
    ]
