"""The contract of a fix. Pure: no seam is replaced."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime, timedelta, timezone

import pytest

from doorstep.errors import MalformedFix
from doorstep.fix import (
    Fix,
    Refused,
    decode_fix,
    decode_fixes,
    decode_position,
    encode_fix,
    encode_position,
    encode_void,
)
from doorstep.fix.fast import decode_many
from doorstep.fix.strict import decode_position_strictly

GOOD: dict[str, object] = {
    "boot": "b1",
    "seq": 7,
    "fix_at": 1_790_000_000_123,
    "lat_deg": 43.7696,
    "lon_deg": 11.2558,
}
AT = datetime(2026, 9, 21, 14, 13, 20, 123_000, tzinfo=UTC)


def body(**changes: object) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


def body_without(name: str) -> bytes:
    return json.dumps({key: value for key, value in GOOD.items() if key != name}).encode()


def raw(**changes: str) -> bytes:
    """A fix whose named fields hold raw JSON text."""
    members = {key: json.dumps(value) for key, value in GOOD.items()} | changes
    return ("{" + ",".join(f'"{key}":{text}' for key, text in members.items()) + "}").encode()


def only(payload: bytes) -> Fix | Refused:
    (entry,) = decode_position(payload)
    return entry


def refused(payload: bytes) -> Refused:
    entry = only(payload)
    assert isinstance(entry, Refused)
    return entry


def test_decode_position__good_fix__has_every_field() -> None:
    payload = body(
        accuracy_m=5, speed_mps=3.5, heading_deg=359.9, altitude_m=-2, battery=1, colour="red"
    )
    assert only(payload) == Fix("b1", 7, AT, 43.7696, 11.2558, 5.0, 3.5, 359.9, -2.0, 1.0)


@pytest.mark.parametrize(
    ("fix_at", "expected"),
    [
        (1_790_000_000_123, AT),
        ("2026-09-21T14:13:20.123Z", AT),
        ("2026-09-21t14:13:20.123z", AT),
        ("2026-09-21 16:13:20.123+02:00", AT),
        ("2026-09-21T14:13:20Z", AT.replace(microsecond=0)),
        ("2026-09-21T14:13:20.123456789-00:00", AT.replace(microsecond=123_456)),
        ("2026-09-21T14:13:20.123+0000", AT),
        ("2026-09-21T19:43:20.123+0530", AT),
        ("2026-09-21T16:13:20.123+02", AT),
        ("2026-09-21T14:13:20,123Z", AT),
        ("2026-09-21T14:12:60.5Z", AT.replace(minute=13, second=0, microsecond=500_000)),
        ("2026-09-20T23:59:60Z", AT.replace(hour=0, minute=0, second=0, microsecond=0)),
        (1_790_000_000_123.0, AT),
        (1_790_000_000_123.999, AT),
    ],
)
def test_decode_position__instants_with_a_zone__are_utc(fix_at: object, expected: datetime) -> None:
    fix = only(body(fix_at=fix_at))
    assert isinstance(fix, Fix)
    assert fix.fix_at == expected
    assert fix.fix_at.utcoffset() == timedelta(0)


def test_decode_position__heading_360__is_north() -> None:
    fix = only(body(heading_deg=360))
    assert isinstance(fix, Fix)
    assert fix.heading_deg == 0.0


IGNORED = [
    pytest.param(raw(speed_mps="-1", heading_deg="-1"), "speed_mps heading_deg", id="ios-unknown"),
    pytest.param(raw(accuracy_m="-1"), "accuracy_m", id="accuracy"),
    pytest.param(raw(speed_mps="501"), "speed_mps", id="speed"),
    pytest.param(raw(heading_deg="360.1"), "heading_deg", id="heading"),
    pytest.param(raw(altitude_m="30000"), "altitude_m", id="altitude"),
    pytest.param(raw(battery="87"), "battery", id="battery-percent"),
    pytest.param(raw(battery="null"), "battery", id="null"),
    pytest.param(raw(battery="true"), "battery", id="bool"),
    pytest.param(raw(speed_mps='"4"'), "speed_mps", id="string"),
    pytest.param(raw(speed_mps="[]"), "speed_mps", id="array"),
    pytest.param(raw(speed_mps='4,"speed_mps":4'), "speed_mps", id="twice"),
    pytest.param(raw(x='{"a":[{"b":1,"b":2}]}'), "", id="twice-in-an-unknown-field"),
    pytest.param(raw(x='1,"x":2'), "", id="unknown-field-twice"),
]


@pytest.mark.parametrize(("payload", "names"), IGNORED)
def test_decode__unusable_optional_field__keeps_the_fix_and_names_the_field(
    payload: bytes, names: str
) -> None:
    wanted = Fix("b1", 7, AT, 43.7696, 11.2558, ignored=tuple(names.split()))
    assert only(payload) == wanted
    assert decode_position_strictly(payload) == [wanted]
    assert decode_position(b"[" + body() + b"," + payload + b"]") == [only(body()), wanted]
    assert decode_fix(payload) == wanted
    assert decode_fixes(b'{"fixes":[' + payload + b"]}") == [wanted]
    assert decode_many([payload, body()]) is None


BAD_ENTRIES = [
    # class of FAULTS "Bad input", payload, reason, whether boot and seq can still be read
    pytest.param(body_without("lat_deg"), "missing_field", True, id="5-lat_deg"),
    pytest.param(body_without("fix_at"), "missing_field", True, id="5-fix_at"),
    pytest.param(body_without("seq"), "missing_field", False, id="5-seq"),
    pytest.param(body_without("boot"), "missing_field", False, id="5-boot"),
    pytest.param(body(lat_deg="43.7"), "wrong_type", True, id="6-lat_deg"),
    pytest.param(body(seq="7"), "wrong_type", False, id="6-seq"),
    pytest.param(body(seq=7.0), "wrong_type", False, id="6-seq-float"),
    pytest.param(body(boot=7), "wrong_type", False, id="6-boot"),
    pytest.param(body(lon_deg=True), "wrong_type", True, id="7-lon_deg"),
    pytest.param(body(seq=True), "wrong_type", False, id="7-seq"),
    pytest.param(body(fix_at=True), "wrong_type", True, id="7-fix_at"),
    pytest.param(raw(lat_deg="NaN"), "not_finite", True, id="8-NaN"),
    pytest.param(raw(lat_deg="-Infinity"), "not_finite", True, id="8-Infinity"),
    pytest.param(raw(lat_deg="1e999"), "not_finite", True, id="8-1e999"),
    pytest.param(raw(battery="1e-1", x="[NaN]"), "not_finite", True, id="8-unknown-field"),
    pytest.param(raw()[:-1] + b',"lat_deg":1}', "duplicate_key", True, id="9-lat_deg"),
    pytest.param(raw()[:-1] + b',"seq":8}', "duplicate_key", False, id="9-seq"),
    pytest.param(raw()[:-1] + b',"se\\u0071":8}', "duplicate_key", False, id="9-escaped"),
    pytest.param(raw(x='"' + "x" * 1024 + '"'), "too_large", True, id="10-one-fix"),
    pytest.param(raw(lat_deg="4" * 900), "number_too_long", True, id="11-lat_deg"),
    pytest.param(raw(seq="4" * 900), "number_too_long", False, id="11-seq"),
    pytest.param(raw(x="[" * 99 + "]" * 99), "too_deep", True, id="12-shallow"),
    pytest.param(raw(boot='"b\\u0000"'), "bad_text", False, id="14-boot"),
    pytest.param(raw(x='"\\u0000"'), "bad_text", True, id="14-unknown-field"),
    pytest.param(raw(x='{"\\ud800":1}'), "bad_text", True, id="15-key"),
    pytest.param(raw(fix_at='"\\udfff"'), "bad_text", True, id="15-fix_at"),
    pytest.param(body(lat_deg=90.0001), "latitude_out_of_range", True, id="17"),
    pytest.param(body(lat_deg=-91), "latitude_out_of_range", True, id="17-south"),
    pytest.param(body(lon_deg=180.0001), "longitude_out_of_range", True, id="18"),
    pytest.param(body(lon_deg=-181), "longitude_out_of_range", True, id="18-west"),
    pytest.param(body(fix_at="2026-09-21T14:13:20"), "no_time_zone", True, id="20"),
    pytest.param(body(fix_at=1_790_000_000), "seconds_for_milliseconds", True, id="21"),
    pytest.param(body(fix_at="infinity"), "bad_instant", True, id="22-infinity"),
    pytest.param(body(fix_at="2026-02-30T00:00:00Z"), "bad_instant", True, id="22-february"),
    pytest.param(body(fix_at=10**15), "bad_instant", True, id="22-year-10000"),
    pytest.param(body(fix_at="9999-12-31T23:59:59-14:00"), "bad_instant", True, id="22-overflow"),
    pytest.param(body(fix_at="2026-09-21T14:13:20Z\n"), "bad_instant", True, id="22-newline"),
    pytest.param(body(boot=""), "bad_id", False, id="id-empty"),
    pytest.param(body(boot="a/b"), "bad_id", False, id="id-slash"),
    pytest.param(body(boot="b1\n"), "bad_id", False, id="id-newline"),
    pytest.param(body(boot="b" * 65), "bad_id", False, id="id-long"),
    pytest.param(body(boot="'; DROP TABLE driver; --"), "bad_id", False, id="id-sql"),
    pytest.param(body(seq=0), "bad_id", False, id="seq-0"),
    pytest.param(body(seq=2**62 + 1), "bad_id", False, id="seq-2^62"),
    pytest.param(body(void=False), "wrong_type", True, id="void-false"),
]


@pytest.mark.parametrize(("payload", "reason", "identified"), BAD_ENTRIES)
def test_decode_position__bad_entry__is_refused_and_its_neighbours_are_kept(
    payload: bytes, reason: str, identified: bool
) -> None:
    alone = refused(payload)
    assert (alone.n, alone.reason) == (0, reason)
    assert (alone.boot, alone.seq) == (("b1", 7) if identified else (None, None))

    if reason == "too_large":
        return  # an entry of an array has no limit of its own
    first, middle, last = decode_position(
        b"[" + body(seq=6) + b"," + payload + b"," + body(seq=8) + b"]"
    )
    assert isinstance(first, Fix)
    assert isinstance(last, Fix)
    assert (first.seq, last.seq) == (6, 8)
    assert isinstance(middle, Refused)
    assert (middle.n, middle.reason) == (1, reason)
    assert (middle.boot, middle.seq) == (alone.boot, alone.seq)


BAD_PAYLOADS = [
    pytest.param(b"hello", "not_json", id="1"),
    pytest.param(b"\xef\xbb\xbf" + body(), "not_json", id="1-byte-order-mark"),
    pytest.param(body() + b"x", "not_json", id="1-trailing"),
    pytest.param(b'{"boot":"\n"}', "not_json", id="1-control-character"),
    pytest.param(body()[:-5], "not_json", id="2"),
    pytest.param(b"[" + body() + b",", "not_json", id="2-array"),
    pytest.param(b"", "empty", id="3"),
    pytest.param(b"[]", "empty", id="3-array"),
    pytest.param(b"   ", "not_json", id="3-blank"),
    pytest.param(b"null", "wrong_shape", id="4-null"),
    pytest.param(b"7", "wrong_shape", id="4-number"),
    pytest.param(b'"fix"', "wrong_shape", id="4-string"),
    pytest.param(b"[" + b",".join([body()] * 257) + b"]", "too_many_fixes", id="10"),
    pytest.param(b"[" + b",".join([body(x="y" * 500)] * 200) + b"]", "too_large", id="10-bytes"),
    pytest.param(b"[" * 50_000 + b"]" * 10_000, "too_deep", id="12-array"),
    # whatever the depth of the stack that calls: Python's own limit depends on it
    pytest.param(b"[" * 201, "too_deep", id="12-just-too-deep"),
    pytest.param(b"[" * 200, "not_json", id="12-and-not-closed"),
    pytest.param(b'"' + b"[" * 300, "not_json", id="12-in-a-string"),
    pytest.param(b'{"a":' * 12_000 + b"}" * 4_000, "too_deep", id="12-object"),
    pytest.param(b"[" * 100_000, "too_large", id="12-100000"),
    pytest.param(body(boot="b").replace(b'"b"', b'"\xff"'), "not_utf8", id="13"),
    pytest.param(raw(x='"x"').replace(b'"x"', b'"\xed\xa0\x80"'), "not_utf8", id="15-raw"),
    pytest.param(gzip.compress(body()), "not_utf8", id="16-gzip"),
    pytest.param(bytes(range(256)), "not_utf8", id="16-binary"),
    pytest.param(body().decode().encode("utf-16"), "not_utf8", id="16-utf-16"),
]


@pytest.mark.parametrize(("payload", "reason"), BAD_PAYLOADS)
def test_decode_position__unusable_payload__is_malformed(payload: bytes, reason: str) -> None:
    with pytest.raises(MalformedFix) as caught:
        decode_position(payload)
    assert caught.value.reason == reason


def test_decode_position__5000_digits_in_an_array__refuse_one_entry() -> None:
    payload = b"[" + raw(lat_deg="4" * 5000) + b"," + body() + b"]"
    long, good = decode_position(payload)
    assert isinstance(long, Refused)
    assert (long.reason, long.boot, long.seq) == ("number_too_long", "b1", 7)
    assert isinstance(good, Fix)


def test_decode_position__256_fixes__are_all_decoded() -> None:
    payload = b"[" + b",".join(body(seq=n + 1) for n in range(256)) + b"]"
    decoded = decode_position(payload)
    assert [entry.seq for entry in decoded] == list(range(1, 257))


def test_decode_position__many_duplicate_keys__are_refused_in_linear_time() -> None:
    payload = (
        b'[{"boot":"b1",' + b",".join(b'"k%d":1' % n for n in range(4000)) + b',"void":1,"void":2}]'
    )
    assert refused(payload).reason == "duplicate_key"


def test_decode_position__entry_not_an_object__is_refused_alone() -> None:
    decoded = decode_position(b"[null," + body() + b",3,[]]")
    assert [type(entry) for entry in decoded] == [Refused, Fix, Refused, Refused]
    assert {entry.reason for entry in decoded if isinstance(entry, Refused)} == {"wrong_shape"}


def test_decode_position__void__is_refused_with_its_seq() -> None:
    void = refused(encode_void("b1", 9))
    assert void == Refused(0, "b1", 9, "void", "closed by the device")
    assert void.is_void


def test_decode_fix__without_boot_and_seq__is_a_fix() -> None:
    payload = b'{"fix_at":"2026-09-21T14:13:20.123Z","lat_deg":1,"lon_deg":2}'
    assert decode_fix(payload) == Fix(None, None, AT, 1.0, 2.0)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (body_without("seq"), "missing_field"),
        (body_without("boot"), "missing_field"),
        (b"[" + body() + b"]", "wrong_shape"),
        (body(lat_deg=91), "latitude_out_of_range"),
        (body(x="y" * 1024), "too_large"),
        (b'{"void":true,"fix_at":1790000000123,"lat_deg":1,"lon_deg":2}', "wrong_type"),
    ],
)
def test_decode_fix__anything_else__is_malformed(payload: bytes, reason: str) -> None:
    with pytest.raises(MalformedFix) as caught:
        decode_fix(payload)
    assert caught.value.reason == reason


def test_decode_fixes__good_and_bad__keeps_the_good() -> None:
    good, bad = decode_fixes(b'{"fixes":[' + body() + b"," + body(lat_deg=91) + b"]}")
    assert isinstance(good, Fix)
    assert bad == Refused(1, "b1", 7, "latitude_out_of_range", "lat_deg must be from -90 to 90")


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"[]", "wrong_shape"),
        (b"{}", "missing_field"),
        (b'{"fixes":{}}', "wrong_type"),
        (b'{"fixes":[]}', "empty"),
        (b'{"fixes":[],"fixes":[]}', "duplicate_key"),
        (b'{"fixes":[' + b",".join([body()] * 257) + b"]}", "too_many_fixes"),
    ],
)
def test_decode_fixes__not_a_list_of_fixes__is_malformed(payload: bytes, reason: str) -> None:
    with pytest.raises(MalformedFix) as caught:
        decode_fixes(payload)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "fix",
    [
        Fix("b1", 7, AT, 43.7, 11.2),
        Fix("b1", 7, AT + timedelta(microseconds=1), -0.5, 0.0, 1.0, 2.0, 3.0, 4.0, 0.5),
        Fix("b1", 7, AT.astimezone(timezone(timedelta(hours=2))), 43.7, 11.2, battery=0.0),
        Fix("b1", 7, datetime(1970, 1, 1, tzinfo=UTC), 43.7, 11.2),
    ],
)
def test_encode__decoded_again__is_the_same(fix: Fix) -> None:
    assert only(encode_fix(fix)) == fix
    assert decode_position(encode_position([fix, fix])) == [fix, fix]
