"""The demo heeds what the staff wants. `Told` replaces tracking_api, a list the processes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ops.stack import demo, simulation_targets
from ops.stack.demo import SideSimulators


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> SimpleNamespace:
    """What was wanted (`said`), who was registered, what was started."""
    world = SimpleNamespace(said={}, registered=[], started=[])

    def ask(url: str, _token: str, method: str = "GET", body: Any = None) -> Any:
        if method == "PUT":
            world.said[url.rpartition("/")[2]] = body["count"]
        return {"simulations": [{"kind": k, "wanted": n} for k, n in world.said.items()]}

    monkeypatch.setattr(simulation_targets, "ask_as_staff", ask)
    monkeypatch.setattr(demo.subprocess, "Popen", lambda argv, **_: world.started.append(argv[-1]))
    monkeypatch.setattr(demo, "as_user", lambda _user, argv, **_: argv)
    paths = SimpleNamespace(staff_token=lambda: "stf", logs=tmp_path)
    world.stack = SimpleNamespace(
        addresses=SimpleNamespace(tracking_api_url="http://x"),
        paths=paths,
        client_environment=dict,
        add_drivers=world.registered.extend,
    )
    return world


def test_heed__more_couriers_than_before__are_registered_once(world: SimpleNamespace) -> None:
    beside = SideSimulators(world.stack, {"couriers": 2, "cities": 0, "tickers": 0})
    known = ["courier-01", "courier-02"]
    beside.apply(known, width=2)
    assert world.registered == []
    world.said["couriers"] = 4
    for _ in range(2):
        beside.apply(known, width=2)
    assert world.registered == ["courier-03", "courier-04"]
    assert known == ["courier-01", "courier-02", "courier-03", "courier-04"]


def test_heed__tickers_wanted_later__are_started_once_and_what_an_older_demo_wanted_is_not(
    world: SimpleNamespace,
) -> None:
    world.said |= {"tickers": 7, "cities": 9}  # of an older demo
    beside = SideSimulators(world.stack, {"couriers": 2, "cities": 0, "tickers": 0})
    beside.apply(["courier-1", "courier-2"], width=1)
    assert world.started == []
    world.said["tickers"] = 5
    for _ in range(2):
        beside.apply(["courier-1", "courier-2"], width=1)
    assert world.started == ["simulators.tickers"]
