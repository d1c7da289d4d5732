"""The demo follows the target counts. A dict replaces tracking_api, a list the processes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ops.demo import couriers, simulation_targets
from ops.demo.side_simulators import SideSimulators


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> SimpleNamespace:
    """Target counts, registered drivers, started modules."""
    world = SimpleNamespace(targets={}, registered=[], started=[], status=None)

    def request(url: str, _token: str, method: str = "GET", body: Any = None) -> Any:
        if method == "PUT":
            world.targets[url.rpartition("/")[2]] = body["count"]
        return {"simulations": [{"kind": k, "wanted": n} for k, n in world.targets.items()]}

    monkeypatch.setattr(simulation_targets, "request_json", request)

    def start(argv: list[str], **_: Any) -> SimpleNamespace:
        world.started.append(argv[-1])
        return SimpleNamespace(poll=lambda: world.status)

    monkeypatch.setattr("subprocess.Popen", start)
    monkeypatch.setattr(couriers, "as_user", lambda _user, argv, **_: argv)
    paths = SimpleNamespace(staff_token=lambda: "stf", logs=tmp_path)
    world.stack = SimpleNamespace(
        addresses=SimpleNamespace(tracking_api_url="http://x"),
        paths=paths,
        client_environment=dict,
        add_drivers=world.registered.extend,
    )
    return world


def test_apply__more_couriers__are_registered_once(world: SimpleNamespace) -> None:
    simulators = SideSimulators(world.stack, {"couriers": 2, "cities": 0, "tickers": 0})
    registered = ["courier-01", "courier-02"]
    simulators.apply(registered, width=2)
    assert world.registered == []
    world.targets["couriers"] = 4
    for _ in range(2):
        simulators.apply(registered, width=2)
    assert world.registered == ["courier-03", "courier-04"]
    assert registered == ["courier-01", "courier-02", "courier-03", "courier-04"]


def test_apply__tickers_later__start_once_and_an_older_demo_s_targets_are_ignored(
    world: SimpleNamespace,
) -> None:
    world.targets |= {"tickers": 7, "cities": 9}  # of an older demo
    simulators = SideSimulators(world.stack, {"couriers": 2, "cities": 0, "tickers": 0})
    simulators.apply(["courier-1", "courier-2"], width=1)
    assert world.started == []
    world.targets["tickers"] = 5
    for _ in range(2):
        simulators.apply(["courier-1", "courier-2"], width=1)
    assert world.started == ["simulators.tickers"]


def test_apply__tickers_ended__are_reported_once_with_their_log(
    world: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    simulators = SideSimulators(world.stack, {"couriers": 1, "cities": 0, "tickers": 3})
    log = world.stack.paths.logs / "tickers.log"
    log.write_text("  | ValueError: no series\n  +-----\n", "utf-8")
    world.status = 1
    for _ in range(2):
        simulators.apply(["courier-1"], width=1)
    said = f"the tickers ended with status 1: ValueError: no series (log: {log})\n"
    assert capsys.readouterr().err == said
