"""`./run faults`: break a loaded stack on purpose, and check what it promises."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
import time
from collections.abc import Sequence
from types import FrameType

from tests.faults.environment import EnvironmentSettings
from tests.faults.fault import Fault
from tests.faults.progress import Progress
from tests.faults.report import Result, as_json, as_table, not_here_result
from tests.faults.runner import run

MODULES = (
    *("whole_stack", "memory", "brokers", "kafka", "full_disks", "consumers", "network"),
    *("database", "apis", "viewers", "devices", "doubtful_devices", "hostile_device", "backups"),
    *("clocks", "tls", "lost_machines", "own_stacks"),
)
EPILOG = """examples:
  ./run faults --list             list the faults and what is expected
  ./run faults                    all of them, about an hour
  ./run faults --only 1 3 9       these; 0 is the run without a fault
  ./run faults --quick --json     the ones that take seconds; the last line is JSON
  ./run faults --rate 1000        at twice the default load

Everything runs in a temporary folder and on free ports; a running stack is not touched. The exit
status is 1 if any fault fails, or cannot run on this machine and is not left out by an option."""


def as_list(faults: Sequence[Fault]) -> str:
    """Return one line per fault."""
    lines: list[str] = []
    for one in faults:
        quick = " quick" if one.quick else ""
        lines.append(f"{one.id:>2}{quick:6}  {one.name}: {one.expected}")
        if one.not_here:
            lines.append(f"{'':10}not here: {one.not_here}")
    return "\n".join(lines)


def collect() -> list[Fault]:
    """Return every fault, by number."""
    faults: list[Fault] = []
    for name in MODULES:
        faults += importlib.import_module(f"tests.faults.{name}").FAULTS
    return sorted(faults, key=lambda one: one.id)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    faults = collect()
    parser = argparse.ArgumentParser(
        prog="./run faults",
        description=__doc__,
        epilog=f"{EPILOG}\n\nthe faults, and what is expected:\n{as_list(faults)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", type=int, nargs="+", metavar="N", help="only these faults")
    parser.add_argument("--quick", action="store_true", help="only the ones that take seconds")
    parser.add_argument("--list", action="store_true", help="list the faults and exit")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    parser.add_argument("--rate", type=float, default=500.0, help="fixes/s of the load (500)")
    parser.add_argument(
        "--normal",
        type=float,
        default=3.0,
        metavar="S",
        help="the greatest age of a driver's newest committed fix in a healthy stack (3 s); "
        "a busy machine needs more",
    )
    options = parser.parse_args(argv)
    if options.list:
        print(as_list(faults))
        return 0
    if options.only:
        reasons = {one.id: one.not_here for one in faults}
        why = [f"{one} ({reasons.get(one, 'unknown')})" for one in sorted(set(options.only))
               if reasons.get(one, "unknown")]  # fmt: skip
        if why:
            parser.error("cannot run these faults: " + ", ".join(why))
        faults = [one for one in faults if one.id in options.only]
    if options.quick:
        faults = [one for one in faults if one.quick]
    impossible = [not_here_result(one) for one in faults if one.not_here]
    faults = [one for one in faults if not one.not_here]
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    began = time.monotonic()
    results: list[Result] = []
    progress = Progress(len(faults), sys.stderr)
    settings = EnvironmentSettings(rate=options.rate, normal_s=options.normal)
    status = 0
    try:
        run(faults, settings, progress, results)
    except KeyboardInterrupt:
        progress.say("interrupted: everything has stopped")
        status = 130
    finally:
        progress.close()
    results = sorted([*results, *impossible], key=lambda one: one.id)
    all_ok = all(one.ok or (one.not_here and options.quick) for one in results)
    progress.say(as_table(results))
    progress.say(f"{(time.monotonic() - began) / 60:.1f} minutes")
    if options.json:
        print(as_json(results), flush=True)
    return status or (0 if all_ok else 1)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the stop is under way
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
