"""Runs faults one after the other, and makes a result of each, whatever fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tests.faults.checker import Checker
from tests.faults.environment import EnvironmentSettings, FaultEnvironment
from tests.faults.fault import Counts, Fault, Kind, Outcome
from tests.faults.load_process import Published
from tests.faults.lost_machines import ReplicatedEnvironment
from tests.faults.own_stacks import OwnStacks
from tests.faults.progress import Progress
from tests.faults.report import Result, failed_result
from tests.faults.tls import TlsEnvironment

ENVIRONMENTS: Mapping[Kind, type[FaultEnvironment]] = {
    "plain": FaultEnvironment,
    "tls": TlsEnvironment,
    "replicas": ReplicatedEnvironment,
    "own": OwnStacks,
}
MAX_FAILED_STARTS = 2  # in a row, of one kind: the others of the kind fail without a start


def run(
    faults: Sequence[Fault],
    settings: EnvironmentSettings,
    progress: Progress,
    results: list[Result],
) -> None:
    """Run faults one after the other into `results`, those of one kind of stack together."""
    for kind, environment in ENVIRONMENTS.items():
        of_kind = [one for one in faults if one.environment == kind]
        run_in(environment, of_kind, settings, progress, results)


def run_in(
    environment: type[FaultEnvironment],
    faults: Sequence[Fault],
    settings: EnvironmentSettings,
    progress: Progress,
    results: list[Result],
) -> None:
    """Run faults in one kind of environment. After a failure, start a new one.

    A start that fails is a failure of the next fault, and a stop that fails one of the last.
    """
    left, failed_starts, why = list(faults), 0, ""
    while left:
        if failed_starts == MAX_FAILED_STARTS:
            for fault in left:
                _record(failed_result(fault, f"not run: {why}"), progress, results)
            return
        count = len(left)
        try:
            _run_until_failure(environment, left, settings, progress, results)
            failed_starts = 0
        except Exception as exc:  # noqa: BLE001 - an environment's boundary: the others run
            why = f"{type(exc).__name__}: {exc}"
            if len(left) == count:
                failed_starts += 1
                why = f"no stack: {why}"
                _record(failed_result(left.pop(0), why), progress, results)
            else:
                failed_starts = 0
                last = results[-1]
                seen = f"{last.seen}; then the stack failed: {why}"
                results[-1] = replace(last, seen=seen, ok=False)
            progress.say(f"    FAILED: {why}")


def _run_until_failure(
    environment: type[FaultEnvironment],
    left: list[Fault],
    settings: EnvironmentSettings,
    progress: Progress,
    results: list[Result],
) -> None:
    """Run faults of `left`, and remove them there, until one fails."""
    say = progress.say
    if environment is not OwnStacks:
        say(f"starting a stack under {settings.rate:.0f} fixes/s")
    with environment(settings, say) as env:
        checker = Checker(env)
        while left:
            fault = left.pop(0)
            say(f"{fault.id:>2}  {fault.name}: {fault.expected}")
            progress.begin(f"{fault.id} {fault.name}")
            result = run_one(fault, checker)
            _record(result, progress, results)
            recovery = "" if result.recovery_s is None else f"T = {result.recovery_s:.1f} s, "
            verdict = "ok" if result.ok else "FAILED"
            say(f"    {verdict}: {recovery}{result.commit_acked:,} fixes acked, "
                f"{result.lost} lost, {result.duplicates} twice; {result.seen}")  # fmt: skip
            if not result.ok and environment is not OwnStacks:
                say(f"    logs: {env.copy_logs()}")
                break


def _record(result: Result, progress: Progress, results: list[Result]) -> None:
    results.append(result)
    progress.finish(ok=result.ok)


def run_one(fault: Fault, checker: Checker, *, timed: bool = True) -> Result:
    """Run one fault, and check the invariants and, if `timed`, the recovery time.

    An exception of the fault or of the check is a failure.
    """
    env = checker.env
    has_load = fault.environment != "own"
    since: Published = {}
    try:
        if has_load:
            since = env.load.published()
        seen = fault.run(env)
    except Exception as exc:  # noqa: BLE001 - any exception is a failed fault
        seen = Outcome(f"{type(exc).__name__}: {exc}", None, ok=False)
    observed, ok = [seen.seen], seen.ok
    if timed and (seen.recovery_s or 0) > (fault.limit_s or float("inf")):
        observed.append(f"T is over {fault.limit_s:g} s")
        ok = False
    counts = seen.counts or Counts(0, 0, 0)
    if not has_load:
        ok = ok and not (counts.lost or counts.duplicates)
    else:
        try:
            verdict = checker.check(since)
            counts = Counts(verdict.commit_acked, verdict.lost, verdict.duplicates)
            observed += verdict.violations
            ok = ok and verdict.ok
        except Exception as exc:  # noqa: BLE001 - without a check it is a failed fault
            observed.append(f"could not be checked: {type(exc).__name__}: {exc}")
            ok = False
    return Result(
        fault.id, fault.name, fault.expected, "; ".join(filter(None, observed)),
        None if seen.recovery_s is None else round(seen.recovery_s, 2),
        counts.commit_acked, counts.lost, counts.duplicates, ok,
    )  # fmt: skip
