"""`./run faults`: break a loaded stack on purpose, and check what it promises."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from types import FrameType

from doorstep.errors import DoorstepError
from ops.stack.settings import PROJECT
from tests.faults.checker import Checker
from tests.faults.environment import EnvironmentSettings, FaultEnvironment
from tests.faults.fault import Counts, Fault, Kind, Outcome
from tests.faults.lost_machines import ReplicatedEnvironment
from tests.faults.own_stacks import OwnStacks
from tests.faults.progress import Progress
from tests.faults.report import Result, as_json, as_table
from tests.faults.tls import TlsEnvironment

MODULES = (
    *("whole_stack", "brokers", "kafka", "full_disks", "consumers", "network", "database", "apis"),
    *("viewers", "devices", "doubtful_devices", "hostile_device", "backups", "clocks", "tls"),
    *("lost_machines", "own_stacks"),
)
ENVIRONMENTS: Mapping[Kind, type[FaultEnvironment]] = {
    "plain": FaultEnvironment,
    "tls": TlsEnvironment,
    "replicas": ReplicatedEnvironment,
    "own": OwnStacks,
}
LOGS = PROJECT / ".doorstep" / "faults"

EPILOG = """examples:
  ./run faults --list             list the faults and what is expected
  ./run faults                    all of them, about an hour
  ./run faults --only 1 3 9       these; 0 is the run without a fault
  ./run faults --quick --json     the ones that take seconds; the last line is JSON
  ./run faults --rate 1000        at twice the default load

Everything runs in a temporary folder and on free ports; a running stack is not touched. The exit
status is 1 if any fault fails."""


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


def run(
    faults: Sequence[Fault],
    settings: EnvironmentSettings,
    progress: Progress,
    results: list[Result],
) -> None:
    """Run faults one after the other into `results`, those of one kind of stack together."""
    for kind, environment in ENVIRONMENTS.items():
        of_kind = [one for one in faults if one.environment == kind]
        _run_in(environment, of_kind, settings, progress, results)


def _run_in(
    environment: type[FaultEnvironment],
    faults: Sequence[Fault],
    settings: EnvironmentSettings,
    progress: Progress,
    results: list[Result],
) -> None:
    """Run faults in one kind of environment. After a failure, start a new one."""
    left, say = list(faults), progress.say
    while left:
        if environment is not OwnStacks:
            say(f"starting a stack under {settings.rate:.0f} fixes/s")
        with environment(settings, say) as env:
            checker = Checker(env)
            while left:
                fault = left.pop(0)
                say(f"{fault.id:>2}  {fault.name}: {fault.expected}")
                progress.begin(f"{fault.id} {fault.name}")
                result = run_one(fault, checker)
                results.append(result)
                progress.finish(ok=result.ok)
                recovery = "" if result.recovery_s is None else f"T = {result.recovery_s:.1f} s, "
                verdict = "ok" if result.ok else "FAILED"
                say(f"    {verdict}: {recovery}{result.commit_acked:,} fixes acked, "
                    f"{result.lost} lost, {result.duplicates} twice; {result.seen}")  # fmt: skip
                if not result.ok and environment is not OwnStacks:
                    say(f"    logs: {env.copy_logs(LOGS)}")
                    break


def run_one(fault: Fault, checker: Checker, *, timed: bool = True) -> Result:
    """Run one fault, and check the invariants and, if `timed`, the recovery time."""
    env = checker.env
    since = {} if fault.environment == "own" else env.load.published()
    try:
        seen = fault.run(env)
    except Exception as exc:  # noqa: BLE001 - any exception is a failed fault
        seen = Outcome(f"{type(exc).__name__}: {exc}", None, ok=False)
    observed, ok = [seen.seen], seen.ok
    if timed and (seen.recovery_s or 0) > (fault.limit_s or float("inf")):
        observed.append(f"T is over {fault.limit_s:g} s")
        ok = False
    counts = seen.counts or Counts(0, 0, 0)
    if fault.environment == "own":
        ok = ok and not (counts.lost or counts.duplicates)
    else:
        try:
            verdict = checker.check(since)
            counts = Counts(verdict.commit_acked, verdict.lost, verdict.duplicates)
            observed += verdict.violations
            ok = ok and verdict.ok
        except DoorstepError as exc:
            observed.append(f"could not be checked: {exc}")
            ok = False
    return Result(
        fault.id, fault.name, fault.expected, "; ".join(filter(None, observed)),
        None if seen.recovery_s is None else round(seen.recovery_s, 2),
        counts.commit_acked, counts.lost, counts.duplicates, ok,
    )  # fmt: skip


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
    not_here = {one.id: one.not_here for one in faults if one.not_here}
    faults = [one for one in faults if not one.not_here]
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    began = time.monotonic()
    results: list[Result] = []
    progress = Progress(len(faults), sys.stderr)
    settings = EnvironmentSettings(rate=options.rate, normal_s=options.normal)
    try:
        run(faults, settings, progress, results)
        status = 0 if all(one.ok for one in results) else 1
    except KeyboardInterrupt:
        progress.say("interrupted: everything has stopped")
        status = 130
    finally:
        progress.close()
    progress.say(as_table(results, not_here))
    progress.say(f"{(time.monotonic() - began) / 60:.1f} minutes")
    if options.json:
        print(as_json(results), flush=True)
    return status


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the stop is under way
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
