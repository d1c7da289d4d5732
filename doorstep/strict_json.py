"""Strict JSON (RFC 8259 without its loopholes), for MQTT payloads and HTTP bodies.

Python's parser accepts NaN, duplicate keys, lone surrogates and numbers of any length. Here a
document is read in two steps, so that one bad entry of an array does not cost the others:

    parse(payload)             the document as a whole; a violation inside it becomes a marker
    check(value, max_depth)    raises for the first marker, bad text or depth below `value`

Both raise MalformedJson with one of the contract's reasons.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import Any

from doorstep.errors import MalformedJson

MAX_NESTING = 200  # of a whole document, checked before parsing; `check` limits each value further
MAX_NUMBER_DIGITS = 40  # 2^63 has 19; below CPython's limit of 4300, which raises on its own

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"?', re.DOTALL)
_BRACKET = re.compile(r"[\[\]{}]")
_SURROGATE_OR_NUL = re.compile("[\ud800-\udfff\0]")


class Object(dict[str, Any]):
    """A JSON object. `duplicates` holds the keys that occur more than once; the last one wins."""

    duplicates: frozenset[str] = frozenset()


class _Violation:
    """Marks a number that strict JSON refuses."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return self.detail  # in a dead letter, which holds the entry again


def parse(payload: bytes) -> Any:
    """Parse a document; objects are `Object`. Raises MalformedJson if it is not JSON at all."""
    if not payload:
        raise MalformedJson("empty", "no bytes")
    try:
        text = payload.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise MalformedJson("not_utf8", f"byte {exc.start}") from exc
    if is_nested_too_deep(text):
        raise MalformedJson("too_deep", f"more than {MAX_NESTING} levels")
    try:
        return json.loads(
            text,
            object_pairs_hook=_object_of,
            parse_int=_int_of,
            parse_float=_float_of,
            parse_constant=lambda name: _Violation("not_finite", name),
        )
    except json.JSONDecodeError as exc:
        raise MalformedJson("not_json", f"{exc.msg} at {exc.pos}") from exc


def check(value: Any, max_depth: int, *, unique_keys: bool = True) -> None:
    """Raise MalformedJson for the first violation in a value, unknown fields included.

    A key that occurs twice is a violation only with `unique_keys`.
    """
    if isinstance(value, _Violation):
        raise MalformedJson(value.reason, value.detail)
    if isinstance(value, str):
        if _SURROGATE_OR_NUL.search(value):
            raise MalformedJson("bad_text", "U+0000 or a lone surrogate")
    elif isinstance(value, Object | list):
        if max_depth <= 0:
            raise MalformedJson("too_deep", "too many levels")
        if isinstance(value, Object):
            for key in value:
                check(key, max_depth)
            if unique_keys and value.duplicates:
                raise MalformedJson("duplicate_key", ", ".join(sorted(value.duplicates))[:100])
        for inner in value.values() if isinstance(value, Object) else value:
            check(inner, max_depth - 1, unique_keys=unique_keys)


def is_nested_too_deep(text: str) -> bool:
    """True if brackets outside strings open more than MAX_NESTING levels.

    Checked before parsing: the parser's own limit is the recursion limit less the caller's depth,
    so the same text would be refused for different reasons in different processes.
    """
    if text.count("[") + text.count("{") <= MAX_NESTING:
        return False
    depth = 0
    for bracket in _BRACKET.findall(_STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        if depth > MAX_NESTING:
            return True
    return False


def _object_of(pairs: list[tuple[str, Any]]) -> Object:
    value = Object(pairs)
    if len(value) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        value.duplicates = frozenset(key for key, count in counts.items() if count > 1)
    return value


def _int_of(digits: str) -> int | _Violation:
    if len(digits) > MAX_NUMBER_DIGITS:
        return _Violation("number_too_long", f"{len(digits)} digits")
    return int(digits)


def _float_of(digits: str) -> float | _Violation:
    value = float(digits)
    return value if math.isfinite(value) else _Violation("not_finite", digits[:MAX_NUMBER_DIGITS])
