"""`./run faults`: break a loaded stack of our own, and check what it promised."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from types import FrameType

from doorstep.errors import DoorstepError
from ops.stack.settings import PROJECT
from tests.faults.checker import Checker
from tests.faults.fault import Fault, Seen
from tests.faults.lab import Lab, LabSettings
from tests.faults.report import Result, as_json, as_table

MODULES = (
    *("everything", "brokers", "kafka", "consumers"),
    *("network", "database", "apis", "viewers", "devices"),
)
LOGS = PROJECT / ".doorstep" / "faults"
# Those that can't be made on one machine, and why.
NOT_HERE: dict[int, str] = (
    {} if os.geteuid() == 0 else {11: "it needs root, who may mount a small file system"}
)

EPILOG = """examples:
  ./run faults --list             what there is, and what is expected
  ./run faults                    all of them, some 40 minutes
  ./run faults --only 1 3 9       these, and the run without any fault is 0
  ./run faults --quick --json     those that take seconds; the last line is JSON
  ./run faults --rate 1000        at twice the usual load

Everything runs in a folder and on ports of its own; a stack that is up is not touched. The exit
status is 1 if any fault is not ok."""


def collect() -> list[Fault]:
    """Gather every fault, by number."""
    faults: list[Fault] = []
    for name in MODULES:
        faults += importlib.import_module(f"tests.faults.{name}").FAULTS
    return sorted(faults, key=lambda one: one.id)


def run(
    faults: Sequence[Fault],
    settings: LabSettings,
    say: Callable[[str], None],
    results: list[Result],
) -> None:
    """Run faults one after the other into `results`; after one that fails the lab is a new one."""
    left = list(faults)
    while left:
        say(f"starting a stack under {settings.rate:.0f} fixes/s")
        with Lab(settings, say) as lab:
            checker = Checker(lab)
            while left:
                fault = left.pop(0)
                say(f"{fault.id:>2}  {fault.name}: {fault.expected}")
                result = run_one(fault, checker)
                results.append(result)
                recovery = "" if result.recovery_s is None else f"T = {result.recovery_s:.1f} s, "
                verdict = "ok" if result.ok else "FAILED"
                say(f"    {verdict}: {recovery}{result.commit_acked:,} fixes acked, "
                    f"{result.lost} lost, {result.duplicates} twice; {result.seen}")  # fmt: skip
                if not result.ok:
                    say(f"    the logs are kept: {lab.keep_logs(LOGS)}")
                    break


def run_one(fault: Fault, checker: Checker, *, timed: bool = True) -> Result:
    """Run one fault and check the invariants, and unless not `timed` how long it took."""
    lab = checker.lab
    since = lab.load.published()
    try:
        seen = fault.run(lab)
    except Exception as exc:  # noqa: BLE001 - whatever it is, the fault failed, and the next is due
        seen = Seen(f"{type(exc).__name__}: {exc}", None, ok=False)
    said, ok = [seen.seen], seen.ok
    if timed and (seen.recovery_s or 0) > (fault.limit_s or float("inf")):
        said.append(f"T is over {fault.limit_s:g} s")
        ok = False
    acked = lost = duplicates = 0
    try:
        verdict = checker.check(since)
        acked, lost, duplicates = verdict.commit_acked, verdict.lost, verdict.duplicates
        said += verdict.complaints
        ok = ok and verdict.ok
    except DoorstepError as exc:
        said.append(f"could not be checked: {exc}")
        ok = False
    return Result(
        fault.id, fault.name, fault.expected, "; ".join(filter(None, said)),
        None if seen.recovery_s is None else round(seen.recovery_s, 2),
        acked, lost, duplicates, ok,
    )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="./run faults",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", type=int, nargs="+", metavar="N", help="only these faults")
    parser.add_argument("--quick", action="store_true", help="only those that take seconds")
    parser.add_argument("--list", action="store_true", help="say what there is, and end")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    parser.add_argument("--rate", type=float, default=500.0, help="fixes/s of the load (500)")
    parser.add_argument(
        "--normal",
        type=float,
        default=3.0,
        metavar="S",
        help="how old a driver's newest committed fix may be while all is well (3 s); "
        "a machine that does much else needs more",
    )
    options = parser.parse_args(argv)
    faults = collect()
    if options.only:
        unknown = sorted(set(options.only) - {one.id for one in faults})
        if unknown:
            why = [f"{one} ({NOT_HERE.get(one, 'there is none')})" for one in unknown]
            parser.error("no such faults: " + ", ".join(why))
        faults = [one for one in faults if one.id in options.only]
    if options.quick:
        faults = [one for one in faults if one.quick]
    if options.list:
        for one in faults:
            print(f"{one.id:>2}{' quick' if one.quick else '      '}  {one.name}: {one.expected}")
        for number, reason in sorted(NOT_HERE.items()):
            print(f"{number:>2}        not here: {reason}")
        return 0
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    began = time.monotonic()
    results: list[Result] = []
    try:
        run(faults, LabSettings(rate=options.rate, normal_s=options.normal), _say, results)
        status = 0 if all(one.ok for one in results) else 1
    except KeyboardInterrupt:
        _say("interrupted: everything is stopped")
        status = 130
    _say(as_table(results, {} if options.only or options.quick else NOT_HERE))
    _say(f"{(time.monotonic() - began) / 60:.1f} minutes")
    if options.json:
        print(as_json(results), flush=True)
    return status


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # once is enough: all is being stopped
    raise KeyboardInterrupt


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
