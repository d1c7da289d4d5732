"""The vans between French cities and the tickers: each kind's process starts on demand."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from doorstep.provision import CITIES, numbered_ids
from ops.console import print_line
from ops.demo.couriers import PREFIX, STOP_TIMEOUT_S, failure_of, start_simulator
from ops.demo.simulation_targets import SimulationTargets
from ops.stack.processes import module_argv
from ops.stack.stack import Stack

KINDS = ("cities", "tickers")


class SideSimulators:
    """The simulators beside the couriers. A kind starts when its target count rises above 0."""

    def __init__(self, stack: Stack, targets: Mapping[str, int]) -> None:
        """Set the target counts, which replaces those of an earlier demo. Raises StackError."""
        self._stack = stack
        self._targets = SimulationTargets(
            stack.addresses.tracking_api_url, stack.paths.staff_token()
        )
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._reported: set[str] = set()  # the kinds whose process has ended
        for kind, count in targets.items():
            self._targets.set(kind, count)
            if count and kind in KINDS:
                self._start(kind)

    def apply(self, driver_ids: list[str], width: int) -> None:
        """Follow the target counts: start missing simulators, and register more couriers.

        Appends the new couriers to `driver_ids`, with numbers of `width` digits.
        """
        self._report_ended()
        targets = self._targets.read()
        for kind in KINDS:
            if targets.get(kind) and kind not in self._processes:
                self._start(kind)
        added = numbered_ids(PREFIX, targets.get("couriers", 0), width)[len(driver_ids) :]
        if added:
            self._stack.add_drivers(added)
            driver_ids += added
            print_line(f"registered {len(added)} more couriers: {len(driver_ids)} in all")

    def terminate(self) -> None:
        """Ask all simulators to stop."""
        for process in self._processes.values():
            process.terminate()

    def wait(self) -> None:
        """Wait until the simulators have ended: they commit their fixes first."""
        for kind, process in self._processes.items():
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                print_line(f"the {kind} did not stop in time: killed")

    def kill(self) -> None:
        """Kill all simulators."""
        for process in self._processes.values():
            process.kill()
            process.wait()

    def _report_ended(self) -> None:
        for kind, process in self._processes.items():
            if process.poll() is not None and kind not in self._reported:
                self._reported.add(kind)
                reason = failure_of(self._log_file(kind))
                print_line(f"the {kind} ended with status {process.poll()}: {reason}")

    def _log_file(self, kind: str) -> Path:
        return self._stack.paths.logs / f"{kind}.log"

    def _start(self, kind: str) -> None:
        if kind == "cities":
            self._stack.add_drivers(numbered_ids(*CITIES))
        self._processes[kind] = start_simulator(
            module_argv(kind),
            self._stack.client_environment(),
            self._log_file(kind),
        )
