"""A service that runs beside the stack: a second driver_events, a bridge for a second broker."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

import httpx

from ops.servers.process import HOST, ServerProcess
from ops.stack.users import as_user

if TYPE_CHECKING:
    from tests.faults.environment import FaultEnvironment


class SideProcess(ServerProcess):
    """`with SideProcess(env, "driver_events", "driver_events-2", {...}) as second:`

    It has the variables of the stack's own service `part`, overridden by `variables`, and its own
    port. It logs to `name`.log. Supervisord does not restart it. `end_signal` ends it.
    """

    def __init__(
        self,
        env: FaultEnvironment,
        part: str,
        name: str,
        variables: Mapping[str, str],
        end_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        logs = env.stack.paths.logs
        super().__init__(logs, log_file=logs / f"{name}.log")
        self.name = name
        self._part = part
        bind = {f"{part.upper()}_BIND": f"{HOST}:{self.port}"}
        self._environment = {**env.environment_of(part), **bind, **variables}
        self._end_signal = end_signal

    def argv(self) -> list[str]:
        return as_user(None, [sys.executable, "-m", self._part], on_parent_death="KILL")

    def environment(self) -> Mapping[str, str]:
        return self._environment

    def is_ready(self) -> bool:
        url = f"http://{HOST}:{self.port}/readyz"
        try:
            return httpx.get(url, timeout=5, trust_env=False).is_success
        except httpx.TransportError:
            return False

    def __enter__(self) -> Self:
        self.launch()
        return self

    def __exit__(self, *_: object) -> None:
        self.end(self._end_signal)
