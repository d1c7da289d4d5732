"""The classes of bad input for one fix or one payload. Tests are named by their numbers.

docs/reference/bad-input.md lists the numbers and the reasons. Each class is sent over MQTT, as a
message and in an array between two good fixes, and over HTTP, as a PATCH and in a POST of several.
"""

from __future__ import annotations

import gzip
import json
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

BOOT = "b1"
LON_DEG, LAT_DEG = 11.2628, 43.7748  # in Florence's service area
DAY_S = 86_400

# Harmful where text is concatenated into SQL, shell, a path, a page or a log line.
INJECTIONS = [
    "'; DROP TABLE orders;--",
    "d1' OR '1'='1",
    "1); DELETE FROM doorstep.driver_state;--",
    "' UNION SELECT token_sha256 FROM doorstep.access_token--",
    "$$; SELECT pg_sleep(10); $$",
    "\\'; SELECT 1;--",
    '"',
    "\\",
    "%00",
    "%s%n",
    "$1",
    "{}",
    "../../etc/passwd",
    "${jndi:ldap://x}",
    "<script>alert(1)</script>",
    "\r\nSet-Cookie: a=b",
    "é☃\U0001f600",
    "‮",
]


def ago_ms(seconds: float) -> int:
    """Return an instant so long ago, in epoch ms."""
    return round((time.time() - seconds) * 1000)


def fix_text(seq: int, /, **members: object) -> str:
    """Return a good fix with members replaced. None omits one; `bytes` are raw JSON."""
    good: dict[str, object] = {
        "boot": BOOT,
        "seq": seq,
        "fix_at": ago_ms(0),
        "lat_deg": LAT_DEG,
        "lon_deg": LON_DEG,
    }
    parts = []
    for name, value in (good | members).items():
        if value is not None:
            raw = value.decode() if isinstance(value, bytes) else json.dumps(value)
            parts.append(f"{json.dumps(name)}:{raw}")
    return "{" + ",".join(parts) + "}"


@dataclass(frozen=True)
class Case:
    """One bad input. `make(seq)` returns its bytes.

    `is_entry`: it can be an entry of an array. `has_identity`: its boot and seq are readable, so
    the watermark passes it. `alone` is its reason as a single payload, if that differs.
    """

    number: int
    slug: str
    make: Callable[[int], bytes]
    reason: str
    is_entry: bool = True
    has_identity: bool = True
    alone: str = ""
    over_http: str | None = None  # the reason over HTTP, if different; "": no such case

    @property
    def name(self) -> str:
        """The name in test ids: `01_not_json`."""
        return f"{self.number:02d}_{self.slug}"

    @property
    def reason_alone(self) -> str:
        return self.alone or self.reason


def _payload(number: int, slug: str, payload: bytes, reason: str, **more: str) -> Case:
    return Case(number, slug, lambda _: payload, reason, False, False, **more)  # type: ignore[arg-type]


def _fix(number: int, slug: str, reason: str, **members: object) -> Case:
    return Case(number, slug, lambda seq: fix_text(seq, **members).encode(), reason)


def _without_identity(number: int, slug: str, reason: str, **members: object) -> Case:
    """A fix with a bad boot or seq: its identity is unreadable."""
    return Case(
        number,
        slug,
        lambda seq: fix_text(seq, **members).encode(),
        reason,
        has_identity=False,
    )


def _dated(number: int, slug: str, reason: str, seconds_ago: float) -> Case:
    return Case(
        number, slug, lambda seq: fix_text(seq, fix_at=ago_ms(seconds_ago)).encode(), reason
    )


def _cut(seq: int) -> bytes:
    return fix_text(seq).encode()[:-9]


def _doubled(seq: int, key: str) -> bytes:
    return (fix_text(seq)[:-1] + f',"{key}":1}}').encode()


CASES = [
    _payload(1, "not_json", b"hello", "not_json"),
    _payload(1, "json_with_a_tail", b"{} {}", "not_json"),
    _payload(1, "xml", b"<fix lat='43.7'/>", "not_json"),
    Case(2, "truncated", _cut, "not_json", False, False),
    _payload(2, "truncated_array", b'[{"boot":"b1","seq":2},', "not_json"),
    _payload(3, "empty", b"", "empty"),
    _payload(3, "spaces", b" \n ", "not_json"),
    _payload(3, "no_fixes", b"[]", "empty", over_http="wrong_shape"),
    _payload(4, "null", b"null", "wrong_shape"),
    _payload(4, "number", b"42", "wrong_shape"),
    _payload(4, "string", b'"fix"', "wrong_shape"),
    _payload(4, "array_in_an_array", b"[[]]", "wrong_shape"),
    Case(4, "null_in_an_array", lambda _: b"null", "wrong_shape", True, False),
    Case(4, "string_in_an_array", lambda _: b'"x"', "wrong_shape", True, False),
    Case(4, "empty_object", lambda _: b"{}", "missing_field", True, False),
    _without_identity(5, "no_boot", "missing_field", boot=None),
    _without_identity(5, "no_seq", "missing_field", seq=None),
    _fix(5, "no_instant", "missing_field", fix_at=None),
    _fix(5, "no_latitude", "missing_field", lat_deg=None),
    _fix(5, "no_longitude", "missing_field", lon_deg=None),
    _fix(6, "string_for_a_number", "wrong_type", lon_deg="11.2"),
    _without_identity(6, "string_for_seq", "wrong_type", seq="2"),
    _without_identity(6, "float_for_seq", "wrong_type", seq=2.5),
    _without_identity(6, "number_for_boot", "wrong_type", boot=7),
    _fix(6, "array_for_a_number", "wrong_type", lat_deg=[43.7]),
    _fix(6, "array_for_the_instant", "wrong_type", fix_at=[1795262400000]),
    _fix(7, "bool_for_a_number", "wrong_type", lat_deg=True),
    _fix(7, "bool_for_the_instant", "wrong_type", fix_at=True),
    _without_identity(7, "bool_for_seq", "wrong_type", seq=True),
    _fix(8, "nan", "not_finite", lat_deg=b"NaN"),
    _fix(8, "infinity", "not_finite", lat_deg=b"Infinity"),
    _fix(8, "minus_infinity", "not_finite", accuracy_m=b"-Infinity"),
    _fix(8, "1e999", "not_finite", lat_deg=b"1e999"),
    Case(9, "duplicate_key", lambda seq: _doubled(seq, "lat_deg"), "duplicate_key"),
    Case(9, "duplicate_seq", lambda seq: _doubled(seq, "seq"), "duplicate_key", True, False),
    _payload(
        10,
        "batch_of_257",
        f"[{','.join(fix_text(seq) for seq in range(100, 357))}]".encode(),
        "too_many_fixes",
        over_http="wrong_shape",
    ),
    _fix(11, "900_digits", "number_too_long", lat_deg=b"4" * 900),
    Case(
        11,
        "5000_digits",
        lambda seq: fix_text(seq, lat_deg=b"4" * 5000).encode(),
        "number_too_long",
        alone="too_large",
    ),
    _without_identity(11, "900_digits_for_seq", "number_too_long", seq=b"4" * 900),
    _fix(12, "33_levels", "too_deep", more=b"[" * 33 + b"]" * 33),
    _payload(12, "30000_levels", b"[" * 30_000 + b"]" * 30_000, "too_deep"),
    _payload(12, "60000_levels_of_objects", b'{"a":' * 12_000, "too_deep"),
    Case(
        13,
        "not_utf8",
        lambda seq: fix_text(seq).encode().replace(b"b1", b"b\xff"),
        "not_utf8",
        False,
        False,
    ),
    _payload(13, "utf16", fix_text(2).encode("utf-16"), "not_utf8"),
    _payload(13, "a_byte_order_mark", b"\xef\xbb\xbf" + fix_text(2).encode(), "not_json"),
    _without_identity(14, "nul_in_boot", "bad_text", boot=b'"b\\u0000"'),
    _fix(14, "nul_in_an_unknown_field", "bad_text", note=b'"\\u0000"'),
    _payload(14, "a_zero_byte", b"\0", "not_json"),
    _without_identity(15, "lone_surrogate_in_boot", "bad_text", boot=b'"\\ud800"'),
    _fix(15, "lone_surrogate_in_an_unknown_field", "bad_text", note=b'"\\udfff"'),
    _payload(16, "gzip", gzip.compress(fix_text(2).encode(), mtime=0), "not_utf8"),
    _payload(16, "zlib", zlib.compress(fix_text(2).encode()), "not_utf8"),
    _payload(16, "msgpack", b"\x82\xa4boot\xa2b1\xa3seq\x02", "not_utf8"),
    _fix(17, "latitude_above_90", "latitude_out_of_range", lat_deg=90.0001),
    _fix(17, "latitude_below_90", "latitude_out_of_range", lat_deg=-91),
    _fix(18, "longitude_above_180", "longitude_out_of_range", lon_deg=180.0001),
    _fix(18, "longitude_below_180", "longitude_out_of_range", lon_deg=-181),
    _fix(20, "no_zone", "no_time_zone", fix_at="2026-11-21T12:00:00"),
    Case(
        21,
        "seconds_for_milliseconds",
        lambda seq: fix_text(seq, fix_at=int(time.time())).encode(),
        "seconds_for_milliseconds",
    ),
    _fix(22, "infinity_for_the_instant", "bad_instant", fix_at="infinity"),
    _fix(22, "30_february", "bad_instant", fix_at="2026-02-30T12:00:00Z"),
    _fix(22, "second_61", "bad_instant", fix_at="2026-02-20T12:00:61Z"),
    _fix(22, "the_year_10000", "bad_instant", fix_at=253_402_300_800_000),
    _dated(23, "150_s_in_the_future", "in_the_future", -150),
    _dated(23, "a_day_in_the_future", "in_the_future", -DAY_S),
    _dated(24, "older_than_24_h", "too_old", DAY_S + 60),
    _fix(24, "the_year_2000", "too_old", fix_at="2000-01-01T00:00:00Z"),
    *(
        _without_identity(37, f"injection_{n}", "bad_id", boot=text)
        for n, text in enumerate(INJECTIONS, start=1)
    ),
    _without_identity(37, "boot_of_65_letters", "bad_id", boot="b" * 65),
    _without_identity(37, "boot_of_a_newline", "bad_id", boot="b1\n"),
    _without_identity(37, "seq_0", "bad_id", seq=0),
    _without_identity(37, "seq_beyond_62_bits", "bad_id", seq=2**62 + 1),
]


@dataclass(frozen=True)
class Kept:
    """A fix that is committed although something of it is odd.

    `odd` replaces members of a good fix (raw JSON); `ignored` names the fields that are dropped.
    `fix_at` is the instant that is stored, if `odd` has one.
    """

    number: int
    slug: str
    odd: Callable[[], dict[str, bytes]]
    ignored: tuple[str, ...] = ()
    fix_at: Callable[[], datetime] | None = None

    @property
    def name(self) -> str:
        return f"{self.number:02d}_{self.slug}"

    def make(self, seq: int) -> bytes:
        """Return a fix with all optional fields, some of its members replaced."""
        return fix_text(seq, **OPTIONAL | self.odd()).encode()

    @property
    def stored(self) -> tuple[float | None, ...]:
        """The optional fields as they are stored, in their order."""
        return tuple(None if name in self.ignored else value for name, value in OPTIONAL.items())


def _kept(number: int, slug: str, *ignored: str, **odd: bytes) -> Kept:
    return Kept(number, slug, lambda: odd, ignored)


NOW = datetime.now(UTC).replace(microsecond=0)
TODAY = NOW - timedelta(hours=2)
YESTERDAY_S_LAST = NOW.replace(hour=0, minute=0, second=0) - timedelta(seconds=1)
OPTIONAL = {
    "accuracy_m": 5.5,
    "speed_mps": 4.0,
    "heading_deg": 270.5,
    "altitude_m": 50.0,
    "battery": 0.8,
}


def _instant(slug: str, text: str, stored: datetime) -> Kept:
    return Kept(22, slug, lambda: {"fix_at": text.encode()}, (), lambda: stored)


KEPT = [
    _kept(6, "string_for_an_optional_number", "speed_mps", speed_mps=b'"4"'),
    _kept(
        6,
        "null_for_optional_numbers",
        *OPTIONAL,
        **dict.fromkeys(OPTIONAL, b"null"),
    ),
    _kept(6, "object_for_an_optional_number", "battery", battery=b'{"level":0.5}'),
    _kept(7, "bool_for_an_optional_number", "battery", battery=b"true"),
    _kept(9, "duplicate_optional_key", "speed_mps", speed_mps=b'4,"speed_mps":5'),
    _kept(9, "duplicate_key_inside_an_unknown_field", more=b'{"a":1,"a":2}'),
    _kept(9, "duplicate_unknown_key", more=b'1,"more":2'),
    _kept(
        19,
        "speed_and_heading_of_minus_1",
        "speed_mps",
        "heading_deg",
        speed_mps=b"-1",
        heading_deg=b"-1",
    ),
    _kept(19, "accuracy_of_minus_1", "accuracy_m", accuracy_m=b"-1"),
    _kept(19, "accuracy_of_the_earth", "accuracy_m", accuracy_m=b"6371000"),
    _kept(19, "battery_of_minus_1", "battery", battery=b"-1"),
    _kept(19, "battery_of_87_percent", "battery", battery=b"87"),
    _kept(19, "altitude_of_30000", "altitude_m", altitude_m=b"30000"),
    _kept(19, "speed_of_600", "speed_mps", speed_mps=b"600"),
    _kept(19, "heading_of_361", "heading_deg", heading_deg=b"361"),
    _instant(
        "basic_offset", f'"{TODAY:%Y-%m-%dT%H:%M:%S}.999+0000"', TODAY.replace(microsecond=999_000)
    ),
    _instant(
        "basic_offset_of_india", f'"{TODAY + timedelta(minutes=330):%Y-%m-%dT%H:%M:%S}+0530"', TODAY
    ),
    _instant("comma", f'"{TODAY:%Y-%m-%dT%H:%M:%S},250Z"', TODAY.replace(microsecond=250_000)),
    _instant(
        "second_60",
        f'"{YESTERDAY_S_LAST:%Y-%m-%dT%H:%M}:60Z"',
        YESTERDAY_S_LAST + timedelta(seconds=1),
    ),
    _instant(
        "float_milliseconds",
        f"{round(TODAY.timestamp() * 1000) + 123}.5",
        TODAY.replace(microsecond=123_000),
    ),
]

# Stored in quarantine: no evidence is drawn from them.
DOUBTFUL = [
    (25, "null_island", {"lat_deg": 0, "lon_deg": 0}, "null_island"),
    (26, "swapped", {"lat_deg": LON_DEG, "lon_deg": LAT_DEG}, "swapped"),
    (26, "inaccurate", {"accuracy_m": 201}, "inaccurate"),
]


def each(cases: Sequence[Case | Kept]) -> list[object]:
    """Return the cases as parameters of a test, with their names."""
    return [pytest.param(one, id=one.name) for one in cases]
