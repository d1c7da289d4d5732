"""How broker_sync reloads the brokers of a native stack."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.stack import broker_sync
from ops.stack.paths import StackPaths
from ops.stack.supervisor import Running, Supervisor


@pytest.mark.parametrize(("uptime_s", "waits_s"), [(0.5, 2.5), (3.0, 0.0), (900.0, 0.0)])
def test_reload__youngest_broker__has_run_for_three_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uptime_s: float, waits_s: float
) -> None:
    actions: list[object] = []
    processes = {
        "mosquitto-1": Running("mosquitto-1", "brokers", "RUNNING", 10, 900.0),
        "mosquitto-2": Running("mosquitto-2", "brokers", "RUNNING", 11, uptime_s),
        "bridge": Running("bridge", "services", "RUNNING", 12, 0.1),
    }
    monkeypatch.setattr(Supervisor, "running", lambda _: processes)
    monkeypatch.setattr(Supervisor, "signal", lambda _self, *signal: actions.append(signal))
    monkeypatch.setattr("ops.stack.broker_sync.time.sleep", actions.append)

    broker_sync.reload_through_supervisor(StackPaths(tmp_path))()

    assert actions == [
        waits_s,
        ("mosquitto-1", "brokers", "HUP"),
        ("mosquitto-2", "brokers", "HUP"),
    ]
