"""The results of a run: a table and JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from tests.faults.fault import Fault


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
    not_here: str = ""  # why it did not run on this machine


def failed_result(fault: Fault, seen: str) -> Result:
    """Return the result of a fault that did not run."""
    return Result(fault.id, fault.name, fault.expected, seen, None, 0, 0, 0, ok=False)


def not_here_result(fault: Fault) -> Result:
    """Return the result of a fault that cannot run on this machine."""
    return replace(failed_result(fault, ""), not_here=fault.not_here)


def as_json(results: Sequence[Result]) -> str:
    """Return the last line of `--json`."""
    return json.dumps({"faults": [asdict(one) for one in results]})


def as_table(results: Sequence[Result]) -> str:
    """Return the table: what ran, then what cannot run here."""
    not_here = [one for one in results if one.not_here]
    results = [one for one in results if not one.not_here]
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
    lines += [f"{one.id}  not here: {one.not_here}" for one in not_here]
    failed = sum(not one.ok for one in results)
    counts = [f"{len(results) - failed} ok", f"{failed} failed"]
    counts += [f"{len(not_here)} cannot run here"] if not_here else []
    lines.append(", ".join(counts))
    return "\n".join(lines)
