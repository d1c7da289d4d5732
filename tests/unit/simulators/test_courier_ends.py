"""How a courier's orders end: with a PIN, failed, taken back; and a second order. `Scripted`
replaces both HTTP APIs."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from simulators.api import Answer
from simulators.couriers import courier as courier_module
from simulators.couriers import orders as orders_module
from simulators.couriers.job import Ending, Job, Stage
from simulators.couriers.orders import Dispatch
from tests.unit.simulators.test_courier_life import FakeApi, make_courier, make_job, work

Script = Callable[[str, Mapping[str, Any]], int]


class Scripted(FakeApi):
    """Keeps the bodies, and answers each command with the status that a script gives."""

    def __init__(self, script: Script = lambda _command, _body: 200) -> None:
        super().__init__()
        self.bodies: list[tuple[str, Mapping[str, Any]]] = []
        self._script = script

    async def driver(
        self, method: str, path: str, token: str, body: Mapping[str, Any] | None = None
    ) -> Answer:
        return self._note(path, body)

    async def tracking(
        self, method: str, path: str, token: str, body: Mapping[str, Any] | None = None
    ) -> Answer:
        return self._note(path, body)

    def _note(self, path: str, body: Mapping[str, Any] | None) -> Answer:
        command = path.rpartition("/")[2]
        self.bodies.append((command, body or {}))
        answer = {"driver_id": "anna", "retry_order_id": "o2"}
        return Answer(self._script(command, body or {}), answer)


@pytest.fixture(autouse=True)
def no_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    """No courier declines or photographs unless a test wants it."""
    monkeypatch.setattr(courier_module, "DECLINE_SHARE", 0.0)
    monkeypatch.setattr(courier_module, "PHOTO_SHARE", 0.0)


def fails_with(step: str | None) -> Mapping[str, str]:
    return {"reason": "customer_absent", **({} if step is None else {"next_step": step})}


def job_with_pin(make: Callable[[], Job]) -> Job:
    """Draw orders until one has a PIN."""
    return next(job for _ in range(1000) if (job := make()).pin is not None)


async def test_deliver__order_with_a_pin__gives_the_right_one_after_a_wrong_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(courier_module, "FAIL_SHARE", 0.0)
    monkeypatch.setattr(courier_module, "WRONG_PIN_SHARE", 1.0)
    api = Scripted()
    courier, world = make_courier(api)
    job = job_with_pin(lambda: make_job(world))
    api._script = lambda command, body: (
        409 if command == "delivered" and body["pin"] != job.pin else 200
    )
    assert await work(courier, job, Stage.TO_CUSTOMER) is Ending.DELIVERED
    given = [body["pin"] for command, body in api.bodies if command == "delivered"]
    assert len(given) == 2
    assert given[0] != given[1] == job.pin


@pytest.mark.parametrize("knows_next_steps", [True, False])
async def test_fail__order_to_return__is_taken_back_if_the_api_has_next_steps(
    monkeypatch: pytest.MonkeyPatch, knows_next_steps: bool
) -> None:
    monkeypatch.setattr(courier_module, "FAIL_SHARE", 1.0)
    monkeypatch.setattr(courier_module, "failure", lambda _rng: fails_with("return"))
    api = Scripted(lambda _, body: 422 if "next_step" in body and not knows_next_steps else 200)
    courier, world = make_courier(api)
    assert await work(courier, make_job(world), Stage.TO_CUSTOMER) is Ending.FAILED
    commands = [command for command, _ in api.bodies]
    assert commands == ["failed", "returned"] if knows_next_steps else ["failed", "failed"]
    assert all(body["reason"] for command, body in api.bodies if command == "failed")


@pytest.mark.parametrize(
    ("step", "is_retried"), [("retry", True), ("return", False), (None, False)]
)
async def test_fail__order_to_try_again__is_run_as_the_order_that_the_api_has_made(
    monkeypatch: pytest.MonkeyPatch, step: str | None, is_retried: bool
) -> None:
    monkeypatch.setattr(courier_module, "FAIL_SHARE", 1.0)
    monkeypatch.setattr(courier_module, "failure", lambda _rng: fails_with(step))
    api = Scripted()
    courier, world = make_courier(api)
    dispatch = Dispatch(world, "stf", {}, None, random.Random(1))
    started: list[Job] = []
    monkeypatch.setattr(dispatch, "start", started.append)
    job = make_job(world)
    await work(courier, job, Stage.TO_CUSTOMER)
    await dispatch._watch(job)
    assert [(one.order_id, one.door) for one in started] == [("o2", job.door)] * is_retried


@pytest.mark.parametrize(
    ("has_pin", "share", "photos"), [(False, 1, 1), (False, 0, 0), (True, 1, 0)]
)
async def test_deliver__order_without_a_pin__is_photographed_at_some_doors(
    monkeypatch: pytest.MonkeyPatch, has_pin: bool, share: float, photos: int
) -> None:
    monkeypatch.setattr(courier_module, "FAIL_SHARE", 0.0)
    monkeypatch.setattr(courier_module, "PHOTO_SHARE", share)
    api = Scripted()
    courier, world = make_courier(api)
    job = next(one for _ in range(1000) if ((one := make_job(world)).pin is not None) is has_pin)
    assert await work(courier, job, Stage.TO_CUSTOMER) is Ending.DELIVERED
    commands = [command for command, _ in api.bodies]
    assert commands[-1] == ("photo" if photos else "delivered")
    assert commands.count("photo") == photos


@pytest.mark.parametrize("accepts", [True, False])
async def test_assign__order_to_stack__goes_to_a_courier_with_one_else_to_the_nearest(
    monkeypatch: pytest.MonkeyPatch, accepts: bool
) -> None:
    monkeypatch.setattr(orders_module, "STACK_SHARE", 1.0)
    api = Scripted(lambda _, body: 409 if body and not accepts else 200)
    courier, world = make_courier(api)
    courier.assign(make_job(world))
    await courier._jobs.get()  # it works on it
    dispatch = Dispatch(world, "stf", {"anna": courier}, None, random.Random(1))
    assert await dispatch._assign(make_job(world)) is courier
    named = ("assign", {"driver_id": "anna", "stop_no": 100})
    assert api.bodies == [named] if accepts else [named, ("assign", {})]
    courier.assign(make_job(world))
    api.bodies.clear()
    assert not courier.has_room
    await dispatch._assign(make_job(world))
    assert api.bodies == [("assign", {})]
