"""When a demo refuses to run or to go on, and its last words.

The demo itself runs in tests/acceptance/test_demo.py.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from data import BUNDLED_CITY
from device.journal import Journal, PublishedBoot
from ops.demo import couriers as couriers_module
from ops.demo.couriers import CouriersProcess, failure_of, wait_for_earlier_couriers
from ops.demo.demo import only_demo, run_demo
from ops.demo.report import DemoReport
from ops.ledger import Ledger, StoredBoot, balance
from ops.stack.errors import StackError
from ops.stack.paths import StackPaths
from ops.stack.stack import Stack

BOOT = PublishedBoot("anna", "b1", 10, pending=1, voids=0)
STORED = StoredBoot(stored=[(1, 9)], in_history=[(1, 9)], history_rows=9)


def make_report(latency_ms: dict[str, float] | None) -> DemoReport:
    ledger = Ledger([balance(BOOT, STORED)])
    return DemoReport({"created": 0, "delivered": 23}, ledger, {"at_customer": 4}, latency_ms)


def test_as_json__is_one_line_with_the_promised_shape() -> None:
    text = make_report({"p50": 1.0, "p95": 2.0, "p99": 3.0}).as_json()
    assert "\n" not in text
    assert json.loads(text) == {
        "orders": {"created": 0, "delivered": 23},
        "fixes": {
            "published": 10,
            "committed": 9,
            "quarantined": 0,
            "rejected": 0,
            "lost": 1,
        },
        "evidence": {"at_customer": 4},
        "latency_ms": {"publish_to_commit": {"p50": 1.0, "p95": 2.0, "p99": 3.0}},
    }


def test_as_json__nothing_recorded__has_no_latency() -> None:
    latency = json.loads(make_report(None).as_json())["latency_ms"]
    assert latency == {"publish_to_commit": {"p50": None, "p95": None, "p99": None}}


def test_as_text__states_without_orders__are_left_out() -> None:
    text = make_report(None).as_text()
    assert "23 delivered" in text
    assert "created" not in text
    assert "1 lost" in text


def test_hints__quarantined_fixes__name_the_command_that_shows_one() -> None:
    quarantined = replace(STORED, quarantined={"inaccurate": [(4, 6)]})
    report = DemoReport({}, Ledger([balance(BOOT, quarantined)]), {}, None)
    assert "3 inaccurate" in report.hints()[-1]
    assert report.hints()[-1].endswith("./run where anna 4 --boot b1")


def test_hints__nothing_to_see__are_none() -> None:
    report = DemoReport({}, Ledger([]), {}, None)
    assert report.hints() == []


@pytest.mark.parametrize(
    ("couriers", "speedup", "named"),
    [
        (0, 1.0, "--couriers"),
        (5001, 1.0, "--couriers"),
        (5, 0.5, "--speedup"),
        (5, 21, "--speedup"),
    ],
)
def test_run_demo__options_out_of_range__are_refused_before_anything_starts(
    couriers: int, speedup: float, named: str
) -> None:
    options = argparse.Namespace(
        couriers=couriers,
        city=BUNDLED_CITY,
        speedup=speedup,
        reporting="all",
        cities=0,
        tickers=0,
        exit_after=1,
        json=True,
    )
    with pytest.raises(StackError, match=named):
        run_demo(Stack(environment={}), options)


def test_only_demo__another_runs_on_this_stack__is_refused_with_its_pid(tmp_path: Path) -> None:
    paths = StackPaths(tmp_path / "stack")
    with only_demo(paths):
        with pytest.raises(StackError, match=f"already .pid {os.getpid()}.: end it with Ctrl-C"):
            only_demo(paths).__enter__()
        with only_demo(StackPaths(tmp_path / "other")):
            pass
    with only_demo(paths):
        pass


class BrokenCouriers(CouriersProcess):
    """A couriers' process that ends at once: a shell replaces it."""

    def _start(self, *_more: str) -> subprocess.Popen[bytes]:
        with self._log_file.open("ab") as log:
            return subprocess.Popen(["sh", "-c", "echo no streets; exit 3"], stdout=log)


def keep_running_for(couriers: CouriersProcess, seconds: float) -> None:
    for _ in range(round(seconds / 0.01)):
        couriers.keep_running()
        time.sleep(0.01)


def test_keep_running__repeated_failed_starts__raise_with_the_last_log_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(couriers_module, "RESTART_AFTER_S", 0.0)
    stack = SimpleNamespace(client_environment=dict, paths=SimpleNamespace(logs=tmp_path))
    couriers = BrokenCouriers(cast("Stack", stack), 5, 1.0)
    with pytest.raises(StackError, match="failed to start 3 times: no streets"):
        keep_running_for(couriers, 10)
    assert capsys.readouterr().err.count("restarted: no streets") == 2


def test_failure_of__an_exception_group__is_its_last_exception_s_line_and_the_log(
    tmp_path: Path,
) -> None:
    log = tmp_path / "couriers.log"
    code = "raise ExceptionGroup('both', [ValueError('too far'), ExceptionGroup('x', [OSError()])])"
    for failing, last in ((code, "OSError"), ("raise KeyError('a | b')", "KeyError: 'a | b'")):
        with log.open("ab") as file:
            subprocess.run([sys.executable, "-c", failing], stderr=file, check=False)
        assert failure_of(log) == f"{last} (log: {log})"
    log.write_text("\n", "utf-8")
    assert failure_of(log) == f"its log is empty (log: {log})"


def test_wait_for_earlier_couriers__journal_locked__waits_and_reports_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = cast("Stack", SimpleNamespace(paths=SimpleNamespace(journals=tmp_path)))
    wait_for_earlier_couriers(stack)
    assert capsys.readouterr().err == ""
    earlier = Journal(tmp_path / "couriers.sqlite")
    naps: list[float] = []

    def sleep(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 2:
            earlier.close()

    monkeypatch.setattr(time, "sleep", sleep)
    wait_for_earlier_couriers(stack)
    assert len(naps) == 2
    assert capsys.readouterr().err.splitlines() == [
        "waiting for the couriers of an earlier demo to stop"
    ]
