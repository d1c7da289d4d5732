"""Decoding and batching under generated payloads: no exception but MalformedFix, no good fix lost.

In this process, without servers; `test_pipe.py` sends the same through all of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from hypothesis import example, given, settings
from hypothesis import strategies as st

from doorstep.errors import MalformedFix
from doorstep.fix import (
    MAX_FIXES,
    Decoded,
    Fix,
    Refused,
    decode_fix,
    decode_fixes,
    decode_position,
)
from doorstep.fix.strict import RANGES, decode_position_strictly
from driver_events.batch import Record, classify, decode_batch, to_dead_letters
from ops.commands.dead_letter_reader import printable
from tests.fuzz.payloads import CASES, entries, good_fix, near_fixes, payloads

FUZZ = settings(max_examples=CASES, deadline=None)
NOW_MS = 1_795_262_400_000

# The words of docs/reference/bad-input.md that a decoder may use.
REASONS = {
    "empty",
    "not_utf8",
    "not_json",
    "too_deep",
    "number_too_long",
    "bad_text",
    "duplicate_key",
    "not_finite",
    "too_large",
    "too_many_fixes",
    "wrong_shape",
    "missing_field",
    "wrong_type",
    "bad_id",
    "latitude_out_of_range",
    "longitude_out_of_range",
    "bad_instant",
    "no_time_zone",
    "seconds_for_milliseconds",
    "void",
}


def judged(payload: bytes, *, strictly: bool) -> Decoded | str:
    try:
        return (decode_position_strictly if strictly else decode_position)(payload)
    except MalformedFix as exc:
        return exc.reason


@FUZZ
@given(payloads)
@example(b"")
@example(b"\xff")
@example(b"[" * 60_000)
def test_decode_position__any_payload__both_decoders_agree_on_the_contracts_reasons(
    payload: bytes,
) -> None:
    found = judged(payload, strictly=False)
    assert found == judged(payload, strictly=True)
    if isinstance(found, str):
        assert found in REASONS
        return
    assert 1 <= len(found) <= MAX_FIXES
    for n, entry in enumerate(found):
        if isinstance(entry, Refused):
            assert entry.reason in REASONS
            assert (entry.boot is None) == (entry.seq is None)
            assert entry.n == n
        else:
            check(entry)


def reason_of(decode: Callable[[bytes], object], body: bytes) -> str:
    """Return the reason why a body is refused, or an empty string."""
    try:
        decode(body)
    except MalformedFix as exc:
        return exc.reason
    return ""


def check(fix: Fix) -> None:
    """Assert that every value is inside its range."""
    assert fix.boot is not None
    assert fix.seq is not None
    assert 1 <= fix.seq <= 2**62
    assert fix.fix_at.utcoffset() is not None
    for name, (least, most) in RANGES.items():
        value = getattr(fix, name)
        assert value is None or (isinstance(value, float) and least <= value <= most)


@FUZZ
@given(payloads)
def test_decode_fix__any_body__is_a_fix_or_refused_with_a_reason(body: bytes) -> None:
    for decode in (decode_fix, decode_fixes):
        for whole in (body, b'{"fixes":' + body + b"}", b'{"fixes":[' + body + b"]}"):
            assert reason_of(decode, whole) in REASONS | {""}


@FUZZ
@given(st.lists(entries, min_size=1, max_size=6))
def test_decode_position__good_fixes_among_bad_entries__are_all_kept(bad: list[str]) -> None:
    parts = [good_fix(1)]
    for n, entry in enumerate(bad, start=2):
        parts += [entry, good_fix(n)]
    payload = f"[{','.join(parts)}]".encode()
    found = judged(payload, strictly=False)
    if isinstance(found, str):
        # Not JSON as a whole: the good entries cannot be delimited.
        assert found in {"not_json", "not_utf8", "too_deep", "too_large"}
        assert not is_json(payload)
        return
    kept = [one.seq for one in found if isinstance(one, Fix) and one.boot == "good"]
    assert kept[0] == 1
    assert set(range(1, len(bad) + 2)) <= set(kept)


def is_json(payload: bytes) -> bool:
    try:
        json.loads(payload, parse_int=len)
    except (ValueError, RecursionError):
        return False
    return len(payload) <= 65_536


@FUZZ
@given(
    st.lists(
        st.tuples(st.none() | st.binary(max_size=8) | st.just(b"d1"), payloads),
        min_size=1,
        max_size=8,
    ),
    st.integers(1, 40),
)
def test_decode_batch__any_records__good_ones_are_rows_and_bad_ones_dead_letters(
    bad: list[tuple[bytes | None, bytes]], most: int
) -> None:
    good = Record(b"d9", good_fix(1).encode(), NOW_MS)
    records = [good]
    for key, payload in bad:
        records += [Record(key, payload, NOW_MS), good]
    at = rows = 0
    dead_letters = []
    while at < len(records):  # as the processor does: batches of `most` rows
        batch = decode_batch(records[at:], most)
        assert batch.records
        at += len(batch.records)
        rows += sum(row[1] == "d9" and row[2] == "good" for row in batch.rows)
        assert [row[0] for row in batch.rows] == list(range(len(batch.rows)))
        result = classify(batch, [])
        dead_letters += result.dead_letters
        assert len(to_dead_letters(batch, "x").refusals) == len(batch.records)
    assert rows == len(bad) + 1
    for letter in dead_letters:
        assert (letter.payload in {payload for _, payload in bad}) or letter.driver_id is None
        assert printable(letter.payload).isprintable()
    for key, payload in bad:
        if isinstance(judged(payload, strictly=True), str):
            assert payload in [letter.payload for letter in dead_letters], (key, payload)


@FUZZ
@given(near_fixes(), st.integers(0, 3))
def test_decode_position__payload_decoded_twice__is_the_same(text: str, spaces: int) -> None:
    payload = text.encode()
    assert judged(payload, strictly=False) == judged(payload, strictly=False)
    spaced = b" " * spaces + payload + b"\n" * spaces
    if len(spaced) <= 1024:
        assert judged(spaced, strictly=False) == judged(payload, strictly=False)
