"""Hypothesis strategies for payloads of good, broken and hostile phones.

Mostly good fixes with something wrong somewhere, because random bytes fail at the first one.
"""

from __future__ import annotations

import json
import os
import time

from hypothesis import strategies as st

CASES = int(os.environ.get("FUZZ_CASES", "400"))
"""Cases per fuzz test. A release runs `FUZZ_CASES=10000 pytest tests/fuzz`."""

FIELDS = [
    "boot",
    "seq",
    "fix_at",
    "lat_deg",
    "lon_deg",
    "accuracy_m",
    "speed_mps",
    "heading_deg",
    "altitude_m",
    "battery",
    "void",
    "more",
    "fixes",
    "",
    "\\u0073eq",
]

# Raw JSON: limits of the contract, wrong types, injections.
VALUES = """
0 -0.0 1 7 90 90.0000001 -90 180 360 360.0 361 500 501 1e6 1e308 1e309 -1e999 1e-999 0.1e1
4611686018427387904 4611686018427387905 9223372036854775807 9223372036854775808 -1
1795262400000 1795262400000.0 1795262400 99999999999 253402300800000 NaN Infinity -Infinity
01 .5 1. +1 0x1 true false null [] {} [1] {"a":1} {"a":1,"a":2} [[[[[]]]]] "" "b1" "b\\u0031"
"\\u0000" "\\ud800" "\\udc00\\ud800" "\\ud83d\\ude00" "infinity" "NaN" "2026-11-21T12:00:00Z"
"2026-11-21T12:00:00" "2026-02-30T12:00:00Z" "2026-11-21T24:00:00Z" "2026-11-21t12:00:00z"
"2026-11-21T12:00:00+0530" "2026-11-21T12:00:60,5Z"
1795262400000.5
"0000-01-01T00:00:00Z" "9999-12-31T23:59:59-23:59" "';DROP/**/TABLE/**/orders;--" "../../x"
""".split()  # noqa: SIM905 - a list of quoted JSON would be unreadable

scalars = st.one_of(
    st.sampled_from(VALUES),
    st.integers().map(str),
    st.floats().map(repr),
    st.text(max_size=12).map(json.dumps),
    st.integers(38, 5000).map(lambda digits: "9" * digits),
    st.integers(1, 40).map(lambda depth: "[" * depth + "]" * depth),
)


def good_fix(seq: int, boot: str = "good", ago_s: float = 0.0) -> str:
    """Return a good fix."""
    at_ms = round((time.time() - ago_s) * 1000)
    return (
        f'{{"boot":"{boot}","seq":{seq},"fix_at":{at_ms},"lat_deg":43.7731,"lon_deg":11.2560,'
        f'"accuracy_m":5.5,"speed_mps":4,"heading_deg":270.5,"altitude_m":50,"battery":0.8}}'
    )


@st.composite
def near_fixes(draw: st.DrawFn, boot: str = "bad") -> str:
    """Generate an almost good fix: members changed, duplicated, omitted, reordered."""
    members: list[tuple[str, str]] = [
        ("boot", json.dumps(boot)),
        ("seq", str(draw(st.integers(1, 50)))),
        ("fix_at", str(round(time.time() * 1000))),
        ("lat_deg", "43.7731"),
        ("lon_deg", "11.2560"),
        ("accuracy_m", "5.5"),
    ]
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(members) - 1))
        match draw(st.integers(0, 4)):
            case 0:
                members[at] = (members[at][0], draw(scalars))
            case 1:
                members.append((draw(st.sampled_from(FIELDS)), draw(scalars)))
            case 2:
                members.append(members[at])
            case 3 if len(members) > 1:
                del members[at]
            case _:
                members = draw(st.permutations(members))
    gap = draw(st.sampled_from(["", "", " ", "\n\t"]))
    return "{" + ",".join(f'"{name}"{gap}:{gap}{value}' for name, value in members) + gap + "}"


@st.composite
def damaged(draw: st.DrawFn, payload: bytes) -> bytes:
    """Generate the bytes with some of them flipped, deleted, duplicated or overwritten."""
    data = bytearray(payload)
    for _ in range(draw(st.integers(1, 4))):
        if not data:
            break
        at = draw(st.integers(0, len(data) - 1))
        match draw(st.integers(0, 4)):
            case 0:
                data[at] ^= 1 << draw(st.integers(0, 7))
            case 1:
                del data[at:]
            case 2:
                del data[at : at + draw(st.integers(1, 8))]
            case 3:
                data[at:at] = data[at : at + draw(st.integers(1, 16))]
            case _:
                data[at : at + 1] = draw(st.binary(min_size=1, max_size=6))
    return bytes(data)


def arrays(entries: st.SearchStrategy[str]) -> st.SearchStrategy[bytes]:
    """Generate arrays of entries."""
    return st.lists(entries, max_size=5).map(lambda parts: f"[{','.join(parts)}]".encode())


entries: st.SearchStrategy[str] = near_fixes() | scalars

payloads: st.SearchStrategy[bytes] = st.one_of(
    st.binary(max_size=80),
    scalars.map(str.encode),
    near_fixes().map(str.encode),
    arrays(entries),
    near_fixes().map(str.encode).flatmap(damaged),
    arrays(entries).flatmap(damaged),
    st.integers(33, 20_000).map(lambda depth: b"[" * depth),
    st.integers(257, 400).map(lambda n: f"[{','.join(['1'] * n)}]".encode()),
)
