"""`./run faults`: break a loaded stack on purpose, and check what it promises."""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from types import FrameType

from doorstep.errors import DoorstepError
from ops.stack.settings import PROJECT
from tests.faults.checker import Checker
from tests.faults.clocks import find_library
from tests.faults.environment import EnvironmentSettings, FaultEnvironment
from tests.faults.fault import Fault, Outcome
from tests.faults.lost_machines import ReplicatedEnvironment
from tests.faults.report import Result, as_json, as_table

MODULES = (
    *("whole_stack", "brokers", "kafka", "full_disks", "consumers"),
    *(
        "network",
        "database",
        "apis",
        "viewers",
        "devices",
        "doubtful_devices",
        "backups",
        "lost_machines",
        "clocks",
    ),
)
LOGS = PROJECT / ".doorstep" / "faults"
SMALL_DISK = "mounting a small file system needs root"
# Faults that cannot run here, and why.
NOT_HERE: dict[int, str] = {
    **({} if os.geteuid() == 0 else dict.fromkeys((11, 30), SMALL_DISK)),
    **({} if shutil.which("patroni") else dict.fromkeys((36, 37), "patroni is not installed")),
    **({} if shutil.which("pgbackrest") else {31: "pgbackrest is not installed"}),
    **({} if find_library() else {33: "libfaketime is not installed"}),
}

EPILOG = """examples:
  ./run faults --list             list the faults and what is expected
  ./run faults                    all of them, about 40 minutes
  ./run faults --only 1 3 9       these; 0 is the run without a fault
  ./run faults --quick --json     the ones that take seconds; the last line is JSON
  ./run faults --rate 1000        at twice the default load

Everything runs in a temporary folder and on free ports; a running stack is not touched. The exit
status is 1 if any fault fails."""


def collect() -> list[Fault]:
    """Return every fault, by number."""
    faults: list[Fault] = []
    for name in MODULES:
        faults += importlib.import_module(f"tests.faults.{name}").FAULTS
    return sorted(faults, key=lambda one: one.id)


def run(
    faults: Sequence[Fault],
    settings: EnvironmentSettings,
    say: Callable[[str], None],
    results: list[Result],
) -> None:
    """Run faults one after the other into `results`, those of a stack with --ha last."""
    alone = [one for one in faults if not one.with_replicas]
    _run_in(FaultEnvironment, alone, settings, say, results)
    replicated = [one for one in faults if one.with_replicas]
    _run_in(ReplicatedEnvironment, replicated, settings, say, results)


def _run_in(
    environment: type[FaultEnvironment],
    faults: Sequence[Fault],
    settings: EnvironmentSettings,
    say: Callable[[str], None],
    results: list[Result],
) -> None:
    """Run faults in one kind of environment. After a failure, start a new one."""
    left = list(faults)
    while left:
        say(f"starting a stack under {settings.rate:.0f} fixes/s")
        with environment(settings, say) as env:
            checker = Checker(env)
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
                    say(f"    logs: {env.copy_logs(LOGS)}")
                    break


def run_one(fault: Fault, checker: Checker, *, timed: bool = True) -> Result:
    """Run one fault, and check the invariants and, if `timed`, the recovery time."""
    env = checker.env
    since = env.load.published()
    try:
        seen = fault.run(env)
    except Exception as exc:  # noqa: BLE001 - any exception is a failed fault
        seen = Outcome(f"{type(exc).__name__}: {exc}", None, ok=False)
    observed, ok = [seen.seen], seen.ok
    if timed and (seen.recovery_s or 0) > (fault.limit_s or float("inf")):
        observed.append(f"T is over {fault.limit_s:g} s")
        ok = False
    acked = lost = duplicates = 0
    try:
        verdict = checker.check(since)
        acked, lost, duplicates = verdict.commit_acked, verdict.lost, verdict.duplicates
        observed += verdict.violations
        ok = ok and verdict.ok
    except DoorstepError as exc:
        observed.append(f"could not be checked: {exc}")
        ok = False
    return Result(
        fault.id, fault.name, fault.expected, "; ".join(filter(None, observed)),
        None if seen.recovery_s is None else round(seen.recovery_s, 2),
        acked, lost, duplicates, ok,
    )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="./run faults",
        description=__doc__,
        epilog=EPILOG,
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
    faults = collect()
    if options.only:
        unknown = sorted(set(options.only) - {one.id for one in faults})
        if unknown:
            why = [f"{one} ({NOT_HERE.get(one, 'unknown')})" for one in unknown]
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
        run(faults, EnvironmentSettings(rate=options.rate, normal_s=options.normal), _say, results)
        status = 0 if all(one.ok for one in results) else 1
    except KeyboardInterrupt:
        _say("interrupted: everything has stopped")
        status = 130
    _say(as_table(results, {} if options.only or options.quick else NOT_HERE))
    _say(f"{(time.monotonic() - began) / 60:.1f} minutes")
    if options.json:
        print(as_json(results), flush=True)
    return status


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the stop is under way
    raise KeyboardInterrupt


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
