"""The fast decoder returns only what the strict decoder returns. Pure: no seam is replaced."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doorstep.errors import MalformedFix
from doorstep.fix.encode import encode_fix, encode_position
from doorstep.fix.fast import decode_many, decode_position, decode_position_fast
from doorstep.fix.instants import EPOCH, MIN_EPOCH_MS, instant_of
from doorstep.fix.strict import RANGES, decode_position_strictly
from doorstep.fix.value import MAX_SEQ, Decoded, Fix

IDS = st.text("abcXYZ019_-", min_size=1, max_size=64)
INSTANTS = st.datetimes(
    datetime(1900, 1, 1),  # noqa: DTZ001 (Hypothesis wants naive bounds)
    datetime(2200, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)


def within(name: str) -> st.SearchStrategy[float]:
    least, most = RANGES[name]
    exclude = name == "heading_deg"
    return st.floats(least, most, exclude_max=exclude, allow_nan=False)


FIXES = st.builds(
    Fix,
    IDS,
    st.integers(1, MAX_SEQ),
    INSTANTS,
    within("lat_deg"),
    within("lon_deg"),
    *(st.none() | within(name) for name in list(RANGES)[2:]),
)

# Numbers and texts that sit on the borders of the contract, as they stand in JSON.
NUMBERS = """
0 -0 -0.0 1 1.0 1e0 1E400 -1e999 1e-999 90 90.0 90.00000000000001 180 -180.5 360 361 1e6 1000001
4611686018427387904 4611686018427387905 9223372036854775808 1790000000123 1790000000 99999999999
1790000000123.0 1790000000123.5 1.790000000123e12 1790000000.5 253402300799999.5
100000000000 253402300799999 253402300800000 NaN Infinity -Infinity 01 .5 1. +1 0x1
"""
TEXTS = r"""
"" "b1" "b1\n" "b:1" "b\u0031" "\u0000" "\ud800" "infinity" null true false [] {} [1] {"a":1}
"2026-09-21T14:13:20Z" "2026-09-21T14:13:20" "2026-02-30T14:13:20Z" "2026-09-21T14:13:20+23:59"
"2026-09-21T14:13:60Z" "2026-09-21T24:00:00Z" "2026-09-21T14:13:20+0530" "2026-09-21T14:13:20,5Z"
"9999-12-31T23:59:60Z" "2026-09-21T14:13:60.1-0100" "2026-09-21T14:13:20+25"
"""
SCALARS = st.one_of(
    st.sampled_from((NUMBERS + TEXTS).split()),
    st.floats().map(repr),
    st.integers().map(str),
    st.text(max_size=8).map(json.dumps),
)
KEYS = st.sampled_from(["boot", "seq", "fix_at", *RANGES, "void", "x", "se\\u0071", ""])
WHITE = st.sampled_from(["", "", " ", "\n"])


@st.composite
def objects(draw: st.DrawFn) -> str:
    """A JSON object near a fix: mostly good members, some doubled, missing, odd or wrong."""
    members: list[tuple[str, str]] = [
        ("boot", '"b1"'),
        ("seq", "7"),
        ("fix_at", "1790000000123"),
        ("lat_deg", "43.7"),
        ("lon_deg", "11.2"),
    ]
    for _ in range(draw(st.integers(0, 3))):
        change = (draw(KEYS), draw(SCALARS))
        if draw(st.booleans()):
            members.append(change)
        else:
            members[draw(st.integers(0, len(members) - 1))] = change
    gap = draw(WHITE)
    return gap + "{" + ",".join(f'"{key}"{gap}:{gap}{text}' for key, text in members) + "}" + gap


PAYLOADS = (
    objects().map(str.encode)
    | st.lists(objects(), max_size=4).map(lambda parts: f"[{','.join(parts)}]".encode())
    | st.tuples(objects(), st.integers(0, 99)).map(lambda cut: cut[0].encode()[: cut[1]])
    | st.binary(max_size=64)
)


def judged(payload: bytes, *, strictly: bool) -> Decoded | str:
    try:
        return (decode_position_strictly if strictly else decode_position)(payload)
    except MalformedFix as exc:
        return exc.reason


@settings(max_examples=2000, deadline=None)
@given(PAYLOADS)
def test_decode_position__any_payload__both_paths_agree(payload: bytes) -> None:
    assert judged(payload, strictly=False) == judged(payload, strictly=True)


@settings(max_examples=2000, deadline=None)
@given(st.integers(MIN_EPOCH_MS, 5 * 10**12))
def test_instant_of__any_milliseconds__are_exact(ms: int) -> None:
    assert instant_of(ms) == EPOCH + timedelta(milliseconds=ms)


@settings(max_examples=500, deadline=None)
@given(FIXES)
def test_decode_position__any_good_fix__is_decoded_fast_and_equal(fix: Fix) -> None:
    assert decode_position_fast(encode_fix(fix)) == [fix]
    assert decode_position_fast(encode_position([fix, fix])) == [fix, fix]
    assert decode_position_strictly(encode_fix(fix)) == [fix]


GOOD = b'{"boot":"b1","seq":1,"fix_at":1790000000123,"lat_deg":43.7,"lon_deg":11.2}'


GOOD_ARRAYS = st.lists(FIXES, min_size=1, max_size=3).map(encode_position)


@settings(max_examples=2000, deadline=None)
@given(
    st.lists(PAYLOADS | st.just(GOOD) | FIXES.map(encode_fix) | GOOD_ARRAYS, min_size=1, max_size=3)
)
def test_decode_many__any_payloads__are_accepted_only_if_the_strict_decoder_agrees(
    payloads: list[bytes],
) -> None:
    decoded = decode_many(payloads)
    if decoded is not None:
        strictly = [judged(payload, strictly=True) for payload in payloads]
        assert [Fix(*values) for values in decoded.values] == list(chain(*strictly))
        assert decoded.counts == [len(fixes) for fixes in strictly]


@settings(max_examples=1000, deadline=None)
@given(
    st.lists(st.integers(1, 2 * len(GOOD)), min_size=1, max_size=3),
    st.integers(1, 3),
    st.booleans(),
)
def test_decode_many__fixes_split_elsewhere__are_not_accepted(
    cuts: list[int], times: int, in_array: bool
) -> None:
    """A payload that holds the end of one fix and the beginning of the next must not pass."""
    text = b",".join([GOOD] * times)
    text = b"[%b]" % text if in_array else text
    ends = sorted({min(cut, len(text)) for cut in cuts} | {len(text)})
    parts = [text[a:b].strip(b",") for a, b in zip([0, *ends], ends, strict=False)]
    assert decode_many(parts) is None or parts in ([GOOD] * len(parts), [text])


@pytest.mark.parametrize(
    "payloads",
    [
        [b"[%b],[%b]" % (GOOD, GOOD), b"[%b]" % GOOD],
        [b"%b,%b" % (GOOD, GOOD)],
        [b"%b],[%b" % (GOOD, GOOD)],
        [b"[]", b"[%b]" % GOOD],
        [b"[[%b]]" % GOOD],
        [b'[{"boot":"x]', b'[y",%b]' % GOOD[13:]],
        [b"[%b]" % b",".join([GOOD] * 257)],
        [GOOD[:-1] + b" " * 1024 + b"}"],
        [GOOD, b"[%b]" % GOOD[:-1]],
    ],
)
def test_decode_many__payload_that_is_no_array_or_fix_by_itself__is_not_accepted(
    payloads: list[bytes],
) -> None:
    assert decode_many(payloads) is None
    assert decode_many([GOOD, *payloads]) is None


@settings(max_examples=500, deadline=None)
@given(st.lists(st.lists(FIXES, min_size=1, max_size=3), min_size=1, max_size=5))
def test_decode_many__any_good_fixes__are_decoded_equal(messages: list[list[Fix]]) -> None:
    payloads = [encode_fix(*one) if len(one) == 1 else encode_position(one) for one in messages]
    decoded = decode_many(payloads)
    assert decoded is not None
    assert [Fix(*values) for values in decoded.values] == list(chain(*messages))
    assert decoded.counts == [len(fixes) for fixes in messages]
