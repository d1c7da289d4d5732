"""Strict JSON. Pure: no seam is replaced."""

from __future__ import annotations

import pytest

from doorstep import strict_json
from doorstep.errors import MalformedJson


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (b"", "empty"),
        (b'{"a":\xff}', "not_utf8"),
        (b'{"a":}', "not_json"),
        (b"[" * 201, "too_deep"),
    ],
)
def test_parse__not_json__is_refused(document: bytes, reason: str) -> None:
    with pytest.raises(MalformedJson) as caught:
        strict_json.parse(document)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (b"NaN", "not_finite"),
        (b'{"a":[1e999]}', "not_finite"),
        (b'{"a":' + b"9" * 41 + b"}", "number_too_long"),
        (b'{"a":{"b":1,"b":2}}', "duplicate_key"),
        (b'["\\u0000"]', "bad_text"),
        (b'{"\\ud800":1}', "bad_text"),
        (b"[[[]]]", "too_deep"),
    ],
)
def test_check__violation_inside__is_refused(document: bytes, reason: str) -> None:
    value = strict_json.parse(document)
    with pytest.raises(MalformedJson) as caught:
        strict_json.check(value, 2)
    assert caught.value.reason == reason


def test_check__one_bad_entry__leaves_its_neighbour() -> None:
    bad, good = strict_json.parse(b'[{"a":1,"a":2},{"a":3}]')
    with pytest.raises(MalformedJson, match="duplicate_key: a"):
        strict_json.check(bad, 1)
    strict_json.check(good, 1)
    assert good == {"a": 3}


def test_parse__brackets_inside_strings__do_not_count_as_nesting() -> None:
    assert strict_json.parse(b'["' + b"[" * 300 + b'"]') == ["[" * 300]
