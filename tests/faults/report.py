"""The results of a run: a table and JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

SEEN_CHARS = 60


@dataclass(frozen=True, slots=True)
class Result:
    """One fault's result, as in `--json`."""

    id: int
    name: str
    expected: str
    seen: str
    recovery_s: float | None
    commit_acked: int
    lost: int
    duplicates: int
    ok: bool


def as_json(results: Sequence[Result]) -> str:
    """Return the last line of `--json`."""
    return json.dumps({"faults": [asdict(one) for one in results]})


def as_table(results: Sequence[Result], not_here: dict[int, str]) -> str:
    """Return the table."""
    head = ("", "fault", "T", "acked", "lost", "twice", "ok", "seen")
    rows = [
        (
            str(one.id),
            one.name,
            "" if one.recovery_s is None else f"{one.recovery_s:.1f} s",
            f"{one.commit_acked:,}",
            str(one.lost),
            str(one.duplicates),
            "ok" if one.ok else "FAILED",
            one.seen,
        )
        for one in results
    ]
    widths = [max(len(row[n]) for row in [head, *rows]) for n in range(len(head) - 1)]
    lines = [
        "  ".join([*(text.ljust(width) for text, width in zip(row, widths, strict=False)), row[-1]])
        for row in [head, *rows]
    ]
    lines += [f"{number}  not here: {reason}" for number, reason in sorted(not_here.items())]
    failed = sum(not one.ok for one in results)
    lines.append(f"{len(results) - failed} ok, {failed} failed")
    return "\n".join(lines)
