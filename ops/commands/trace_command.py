"""`./run where DRIVER SEQ`: traces one fix through the system, step by step."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence

from doorstep.fix import ID_PATTERN, MAX_SEQ
from doorstep.provision import owner_connection
from ops.commands.runner import run_command
from ops.commands.settings import OperatorSettings
from ops.commands.trace import Trace, follow_fix
from ops.commands.trace_report import TraceResult, steps_of, trace_result_of

EXAMPLES = """examples:
  ./run where anna 41                  the 41st fix of the newest boot of anna's device
  ./run where anna 41 --boot k3Jx9QpA  of another boot
  ./run where anna 41 --records 1000000

✓ found  ✗ refused  … waiting  · not found. The last line is the result.
The exit status is 0 if the fix is committed, else 1."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the return value is the exit status."""
    options = _parser().parse_args(argv)
    return run_command("where", lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    settings = OperatorSettings.load()
    with owner_connection(settings.database_admin_url.get_secret_value()) as conn:
        conn.autocommit = True
        trace = follow_fix(
            settings, conn, options.driver, options.seq, options.boot, options.records
        )
    result = trace_result_of(trace)
    if options.json:
        print(json.dumps(to_json(trace, result)))
    else:
        for line in lines_of(trace, result):
            print(line)
    return 0 if result.word == "committed" else 1


def lines_of(trace: Trace, result: TraceResult) -> list[str]:
    """Format for people."""
    lines = [f"{trace.driver_id} boot {trace.boot or '?'} seq {trace.seq}"]
    if trace.other_boots:
        others = ", ".join(trace.other_boots[:5])
        lines.append(f"  (other boots have this seq too: --boot {others})")
    lines += [step.line() for step in steps_of(trace)]
    lines.append(result.sentence)
    if result.next:
        lines.append(f"next: {result.next}")
    return lines


def to_json(trace: Trace, result: TraceResult) -> dict[str, object]:
    """Format for programs."""
    return {
        "driver_id": trace.driver_id,
        "boot": trace.boot,
        "seq": trace.seq,
        "other_boots": list(trace.other_boots),
        "verdict": result.word,
        "sentence": result.sentence,
        "next": result.next,
        "records": [f"{one.partition}:{one.offset}" for one in trace.records],
        "dead_letters": [
            {"id": letter.letter_id, "reason": letter.reason} for letter in trace.letters
        ],
        "trace_id": trace.trace_id,
        "acknowledged": trace.is_acknowledged,
        "quarantine": trace.history.quarantine if trace.history else None,
        "evidence": [
            {"order_id": str(order_id), "assignment_no": assignment_no, "state": state}
            for order_id, assignment_no, state in trace.proved
        ],
        "steps": [
            {"part": step.part, "mark": step.mark, "text": step.text} for step in steps_of(trace)
        ],
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./run where",
        description="Trace one fix through the system, step by step.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("driver", type=_id, metavar="DRIVER")
    parser.add_argument(
        "seq", type=_seq, metavar="SEQ", help="the fix's number in its boot, from 1"
    )
    parser.add_argument(
        "--boot", type=_id, metavar="B", help="its boot (the newest that has this seq)"
    )
    parser.add_argument(
        "--records",
        type=_count,
        default=100_000,
        metavar="N",
        help="records of the driver's Kafka partition to search (100,000)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _id(text: str) -> str:
    if not re.fullmatch(ID_PATTERN, text):
        raise argparse.ArgumentTypeError(f"{text!r} is not an id: 1 to 64 letters, digits, _ or -")
    return text


def _seq(text: str) -> int:
    return _between(text, MAX_SEQ)


def _count(text: str) -> int:
    return _between(text, 100_000_000)


def _between(text: str, highest: int) -> int:
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text[:40]) <= highest:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to {highest:,}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
