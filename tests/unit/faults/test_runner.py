"""The run of a list of faults: each has a result, whatever fails. No stack is started."""

from __future__ import annotations

import io
import json
import signal
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any, Self

import pytest

from tests.faults import __main__ as command
from tests.faults import runner
from tests.faults.checker import Checker, CheckResult
from tests.faults.environment import EnvironmentSettings, FaultEnvironment
from tests.faults.fault import Fault, Outcome
from tests.faults.progress import Progress
from tests.faults.report import Result, as_json, as_table, failed_result, not_here_result


def as_expected(_env: FaultEnvironment) -> Outcome:
    return Outcome("as expected", 1.0, ok=True)


def fault(number: int, **values: Any) -> Fault:
    made = {"limit_s": None, "quick": False, "run": as_expected, **values}
    return Fault(number, f"fault {number}", "nothing is lost", **made)


class FakeEnvironment(FaultEnvironment):
    """No stack. Its starts and stops fail as `failures` says."""

    starts = 0
    failures: dict[str, set[int]]  # "start", "stop", "load": the numbers of the starts, from 1

    def __init__(self, settings: EnvironmentSettings, _say: object) -> None:
        self.settings = settings
        type(self).starts += 1
        self.number = type(self).starts
        self.load = SimpleNamespace(published=self.published)  # type: ignore[assignment]

    def __enter__(self) -> Self:
        self.fail("start")
        return self

    def __exit__(
        self, _t: type[BaseException] | None, _e: BaseException | None, _b: TracebackType | None
    ) -> None:
        self.fail("stop")

    def published(self) -> dict[tuple[str, str], int]:
        self.fail("load")
        return {}

    def copy_logs(self) -> Path:
        return Path("logs")

    def fail(self, what: str) -> None:
        if self.number in self.failures.get(what, ()):
            raise RuntimeError(f"{what} {self.number} failed")


def run_list(
    monkeypatch: pytest.MonkeyPatch, faults: Sequence[Fault], **failures: set[int]
) -> tuple[list[Result], int]:
    """Return the results, and the number of starts."""

    class Environment(FakeEnvironment):
        pass

    Environment.failures = failures
    monkeypatch.setattr(Checker, "check", lambda _self, _since: CheckResult(commit_acked=7))
    results: list[Result] = []
    progress = Progress(len(faults), io.StringIO())
    runner.run_in(Environment, faults, EnvironmentSettings(), progress, results)
    return results, Environment.starts


def test_run_in__a_start_fails__its_fault_fails_and_the_next_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    results, starts = run_list(monkeypatch, [fault(1), fault(2), fault(3)], start={1})
    assert [(one.id, one.ok) for one in results] == [(1, False), (2, True), (3, True)]
    assert "no stack: RuntimeError: start 1 failed" in results[0].seen
    assert starts == 2


def test_run_in__two_starts_in_a_row_fail__the_others_are_not_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    results, starts = run_list(monkeypatch, [fault(n) for n in range(1, 5)], start={1, 2})
    assert [one.ok for one in results] == [False] * 4
    assert results[3].seen == "not run: no stack: RuntimeError: start 2 failed"
    assert starts == 2


def test_run_in__the_load_has_ended__the_fault_fails_and_the_next_has_a_new_stack(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    results, starts = run_list(monkeypatch, [fault(1), fault(2)], load={1})
    assert [one.ok for one in results] == [False, True]
    assert starts == 2


def test_run_in__a_stop_fails__the_last_fault_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    results, _ = run_list(monkeypatch, [fault(1), fault(2)], stop={1})
    assert [one.ok for one in results] == [True, False]
    assert results[1].seen == "as expected; then the stack failed: RuntimeError: stop 1 failed"


def test_run_one__the_check_raises__is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def check(_self: object, _since: object) -> CheckResult:
        raise KeyError("no such column")

    class Environment(FakeEnvironment):
        failures: dict[str, set[int]] = {}  # noqa: RUF012

    monkeypatch.setattr(Checker, "check", check)
    env = Environment(EnvironmentSettings(), None)
    result = runner.run_one(fault(1), Checker(env))
    assert not result.ok
    assert "could not be checked: KeyError" in result.seen


def test_report__a_fault_that_cannot_run_here__is_in_the_table_and_in_the_json() -> None:
    results = [failed_result(fault(1), "no stack"), not_here_result(fault(2, not_here="no cc"))]
    [_, second] = json.loads(as_json(results))["faults"]
    assert (second["id"], second["ok"], second["not_here"]) == (2, False, "no cc")
    table = as_table(results)
    assert "2  not here: no cc" in table
    assert table.endswith("0 ok, 1 failed, 1 cannot run here")


@pytest.mark.parametrize(("options", "status"), [([], 1), (["--quick"], 0), (["--only", "1"], 0)])
def test_main__a_fault_cannot_run_here__fails_unless_some_were_chosen(
    options: list[str],
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(faults: Sequence[Fault], _settings: Any, _progress: Any, results: list[Result]) -> None:
        results += [Result(one.id, "", "", "", None, 0, 0, 0, ok=True) for one in faults]

    listed = [fault(1, quick=True), fault(2, quick=True, not_here="no cc")]
    monkeypatch.setattr(command, "collect", lambda: listed)
    monkeypatch.setattr(command, "run", run)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert command.main(["--json", *options]) == status
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["faults"]
    assert [one["id"] for one in found] == ([1] if "--only" in options else [1, 2])
