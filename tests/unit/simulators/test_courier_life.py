"""A courier's work on an order, and the shift, at thousands of times real speed.

`FakeApi` replaces both HTTP APIs.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data.cities import bundled_city
from device.journal import Journal
from device.settings import DeviceSettings, FleetSecrets
from simulators.api import Answer, Api
from simulators.couriers import CUSTOMER_NAME
from simulators.couriers import courier as courier_module
from simulators.couriers import shift as shift_module
from simulators.couriers.clock import Clock
from simulators.couriers.courier import Courier, UnknownCourier, World
from simulators.couriers.demand import Demand, place_restaurants, read_restaurants
from simulators.couriers.job import Ending, Job, Stage
from simulators.couriers.orders import Dispatch
from simulators.couriers.shift import Shift, ShiftOptions, unwrap_error
from simulators.couriers.streets import load_streets

SPEEDUP = 20_000


class FakeApi(Api):
    """Accepts every request except those that a test wants refused."""

    def __init__(self, **refused: int) -> None:
        self.calls: list[str] = []
        self._refused = refused

    async def driver(
        self, method: str, path: str, token: str, body: Mapping[str, Any] | None = None
    ) -> Answer:
        assert token == "drv_anna"
        return self._answer(path)

    async def tracking(
        self, method: str, path: str, token: str, body: Mapping[str, Any] | None = None
    ) -> Answer:
        return self._answer(path)

    async def photo(self, path: str, token: str, png: bytes) -> Answer:
        return await self.driver("POST", path, token, {"png": png})

    def _answer(self, path: str) -> Answer:
        command = path.rpartition("/")[2]
        self.calls.append(command)
        if command == "assign" and self._refused.get("assign", 0) > 0:
            self._refused["assign"] -= 1
            return Answer(409, {"type": "/problems/no-driver-available"})
        if status := self._refused.get(command.replace("-", "_"), 0) if command != "assign" else 0:
            return Answer(status, {"type": "/problems/illegal-transition"})
        return Answer(
            200, {"order_id": "o1", "customer_token": "cst", "driver_id": "anna", "state": "x"}
        )


@pytest.fixture(autouse=True)
def no_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    """No courier declines or fails unless a test wants it."""
    monkeypatch.setattr(courier_module, "DECLINE_SHARE", 0.0)
    monkeypatch.setattr(courier_module, "FAIL_SHARE", 0.0)
    monkeypatch.setattr(courier_module, "WRONG_PIN_SHARE", 0.0)
    monkeypatch.setattr(courier_module, "PHOTO_SHARE", 0.0)
    monkeypatch.setattr("simulators.couriers.orders.CANCEL_SHARE", 0.0)
    monkeypatch.setattr("simulators.couriers.orders.STACK_SHARE", 0.0)


def make_courier(api: FakeApi) -> tuple[Courier, World]:
    streets, rng = load_streets(bundled_city()), random.Random(1)
    restaurants = place_restaurants(streets, read_restaurants(bundled_city().restaurants)[:40])
    world = World(
        streets, Demand(streets, restaurants, rng, bundled_city().buildings), Clock(SPEEDUP), api
    )
    return Courier("anna", "drv_anna", world, rng, restaurants[0].place.point), world


def make_job(world: World) -> Job:
    restaurant = world.demand.restaurant()
    job = Job(restaurant, world.demand.door(restaurant), ready_s=0.0)
    job.order_id = "o1"
    return job


async def work(courier: Courier, job: Job, stage: Stage) -> Ending:
    courier.assign(job, stage)
    working = asyncio.create_task(courier.run_shift())
    try:
        return await asyncio.wait_for(job.ending, 20)
    finally:
        working.cancel()


async def test_run_shift__an_assigned_order__is_picked_up_then_delivered_at_the_door() -> None:
    api = FakeApi()
    courier, world = make_courier(api)
    job = make_job(world)
    assert await work(courier, job, Stage.TO_RESTAURANT) is Ending.DELIVERED
    assert api.calls == ["picked-up", "delivered"]
    here = world.streets.to_xy(*courier.position())
    assert math.dist(here, job.door.point) <= 25
    assert not courier.busy


async def test_run_shift__food_not_ready__waits_for_the_kitchen() -> None:
    api = FakeApi()
    courier, world = make_courier(api)
    job = make_job(world)
    job.ready_s = 20_000.0  # one real second
    courier.assign(job, Stage.AT_RESTAURANT)
    working = asyncio.create_task(courier.run_shift())
    await asyncio.sleep(0.6)
    assert api.calls == []
    assert await asyncio.wait_for(job.ending, 20) is Ending.DELIVERED
    working.cancel()


@pytest.mark.parametrize("stage", [Stage.TO_CUSTOMER, Stage.ARRIVING, Stage.AT_CUSTOMER])
async def test_run_shift__food_on_board__is_only_delivered(stage: Stage) -> None:
    api = FakeApi()
    courier, world = make_courier(api)
    assert await work(courier, make_job(world), stage) is Ending.DELIVERED
    assert api.calls == ["delivered"]


async def test_run_shift__order_taken_away_before_pick_up__is_dropped() -> None:
    api = FakeApi(picked_up=409)
    courier, world = make_courier(api)
    assert await work(courier, make_job(world), Stage.TO_RESTAURANT) is Ending.TAKEN_AWAY
    assert api.calls == ["picked-up"]


async def test_run_shift__declined__has_no_order_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(courier_module, "DECLINE_SHARE", 1.0)
    api = FakeApi()
    courier, world = make_courier(api)
    assert await work(courier, make_job(world), Stage.TO_RESTAURANT) is Ending.DECLINED
    assert api.calls == ["decline"]


@pytest.mark.parametrize("stage", list(Stage))
async def test_place_at__any_stage__is_where_that_stage_is(stage: Stage) -> None:
    courier, world = make_courier(FakeApi())
    for _ in range(5):
        job = make_job(world)
        courier.place_at(job, stage)
        here = world.streets.to_xy(*courier.position())
        to_restaurant = math.dist(here, job.restaurant.point)
        to_door = math.dist(here, job.door.point)
        if stage is Stage.AT_RESTAURANT:
            assert to_restaurant <= 30
        elif stage is Stage.AT_CUSTOMER:
            assert to_door <= 25
        elif stage is Stage.ARRIVING:
            assert to_door <= 700
        elif stage is Stage.TO_CUSTOMER:
            assert to_door > 30


async def test_dispatch__no_courier_free__retries_until_one_is() -> None:
    api = FakeApi(assign=3)
    courier, world = make_courier(api)
    dispatch = Dispatch(world, "stf", {"anna": courier}, None, random.Random(1))
    working = asyncio.create_task(courier.run_shift())
    job = dispatch.new_job()
    dispatch.start(job)
    assert await asyncio.wait_for(asyncio.shield(job.ending), 20) is Ending.DELIVERED
    assert api.calls.count("assign") == 4
    assert api.calls[0] == "orders"
    assert api.calls[1] == "confirm"
    await asyncio.sleep(0.01)
    assert dispatch.endings == {Ending.DELIVERED: 1}
    working.cancel()
    dispatch.stop()


async def test_dispatch__a_slow_kitchen__gets_a_courier_without_waiting_for_it() -> None:
    api = FakeApi()
    courier, world = make_courier(api)
    dispatch = Dispatch(world, "stf", {"anna": courier}, None, random.Random(1))
    job = dispatch.new_job()
    job.ready_s = 20 * SPEEDUP  # 20 real seconds
    dispatch.start(job)
    await asyncio.sleep(2)
    assert api.calls == ["orders", "confirm", "assign"]
    dispatch.stop()


async def test_observe__a_moving_courier__has_the_speed_scaled_by_the_speedup() -> None:
    courier, world = make_courier(FakeApi())
    courier._ride_to_restaurant(world.demand.restaurant())
    began = courier._course.start_s
    fixes = [courier.observe(began + second) for second in range(0, 120, 4)]
    assert all("heading_deg" in fix for fix in fixes if fix["speed_mps"] != 0.0)
    moving = [float(str(fix["speed_mps"])) / SPEEDUP for fix in fixes if fix["speed_mps"]]
    assert moving
    assert max(moving) <= 10


@pytest.mark.parametrize("status", [401, 404])
async def test_go_on_duty__not_registered__raises_unknown_courier(status: int) -> None:
    courier, _ = make_courier(FakeApi(on_duty=status))
    with pytest.raises(UnknownCourier, match="anna"):
        await courier.go_on_duty()


def test_unwrap_error__nested_groups__is_the_first_doorstep_error() -> None:
    ours = UnknownCourier("anna is not registered")
    nested = ExceptionGroup("a", [ValueError("x"), ExceptionGroup("b", [ours, ours])])
    assert unwrap_error(nested) is ours
    other = ExceptionGroup("a", [ValueError("x")])
    assert unwrap_error(other) is other


async def becomes(holds: Callable[[], bool]) -> None:
    """Run other tasks until it holds, or fail."""
    for _ in range(10_000):
        if holds():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("the condition never held")


class AnyFleet(FleetSecrets):
    """Secrets without a file."""

    def __init__(self) -> None:
        self._key = bytes(32)
        self._rotated = {}

    def driver_token(self, driver_id: str) -> str:
        return "drv_anna"

    def staff_token(self) -> str:
        return "stf"


async def test_shift__lower_then_higher_target__idle_couriers_go_off_and_on_duty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shift_module, "APPLY_TARGET_EVERY_S", 0.001)
    api = FakeApi()
    settings = DeviceSettings(journal_dir=tmp_path)
    restaurants = read_restaurants(bundled_city().restaurants)[:5]
    options = ShiftOptions(couriers=3, prefix="c", speedup=1.0, seed=1)
    with Journal(tmp_path / "couriers.sqlite") as journal:
        shift = Shift(options, settings, AnyFleet(), journal, api, restaurants, None)
        async with asyncio.TaskGroup() as group:
            changing = group.create_task(shift._apply_target(group))
            shift.resize(1)
            await becomes(lambda: shift._off_shift == {"c2", "c3"})
            shift.resize(3)
            await becomes(lambda: not shift._off_shift)
            changing.cancel()
    assert [api.calls.count(one) for one in ("off-duty", "on-duty")] == [2, 2]


async def test_shift__higher_target__new_couriers_join_once_registered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shift_module, "APPLY_TARGET_EVERY_S", 0.001)
    monkeypatch.setattr("simulators.couriers.shift.Device.run", lambda _self: asyncio.sleep(60))
    registered = {"c1", "c2", "c3"}

    class Strict(FakeApi):
        async def driver(self, method: str, path: str, token: str, body: Any = None) -> Answer:
            if path.split("/")[2] not in registered:
                return Answer(404, {})
            return await super().driver(method, path, token, body)

    api = Strict()
    settings = DeviceSettings(journal_dir=tmp_path)
    restaurants = read_restaurants(bundled_city().restaurants)[:5]
    options = ShiftOptions(couriers=2, prefix="c", speedup=1.0, seed=1)
    with Journal(tmp_path / "couriers.sqlite") as journal:
        shift = Shift(options, settings, AnyFleet(), journal, api, restaurants, None)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(shift._apply_target(group))]
            tasks.append(group.create_task(shift._publish_fixes()))
            shift.resize(5)
            await becomes(lambda: list(shift._couriers) == ["c1", "c2", "c3"])
            await becomes(lambda: shift._devices["c3"].last_seq > 0)  # publishes like the others
            assert shift._dispatch.on_shift == 3  # the demand follows the couriers on shift
            registered.update({"c4", "c5"})
            await becomes(lambda: len(shift._couriers) == 5)
            shift.resize(1)
            await becomes(lambda: shift._off_shift == {"c2", "c3", "c4", "c5"})
            for task in (*tasks, *shift._device_tasks):
                task.cancel()
            for task in group._tasks:
                task.cancel()


async def test_shift__after_a_killed_one__is_resumed(
    tmp_path: Path,
) -> None:
    settings = DeviceSettings(journal_dir=tmp_path)
    restaurants = read_restaurants(bundled_city().restaurants)[:5]
    options = ShiftOptions(couriers=2, prefix="c", speedup=1.0, seed=1)
    with Journal(tmp_path / "couriers.sqlite") as journal:
        make = (options, settings, AnyFleet(), journal, FakeApi(), restaurants, None)
        first = Shift(*make)
        assert not first.is_resumed
        first._save_positions()
        journal.commit()
        assert Shift(*make).is_resumed
        assert not Shift(replace(options, resume=False), *make[1:]).is_resumed


async def test_shift__existing_orders__one_far_from_streets_is_skipped_and_named_others_ignored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    restaurants = read_restaurants(bundled_city().restaurants)[:5]
    near = {"lon_deg": restaurants[0][2], "lat_deg": restaurants[0][3]}
    base = {"restaurant_id": restaurants[0][0], "state": "confirmed", "destination": near}
    orders = [
        {**base, "order_id": "far", "destination": {"lon_deg": 12.5, "lat_deg": 41.9}},
        {**base, "order_id": "near"},
        {**base, "order_id": "real", "customer_name": "Bruno"},
    ]

    class WithOrders(FakeApi):
        async def tracking(
            self, method: str, path: str, token: str, body: Mapping[str, Any] | None = None
        ) -> Answer:
            found = orders if "state=confirmed" in path else []
            return Answer(
                200, {"orders": [{"customer_name": CUSTOMER_NAME} | one for one in found]}
            )

    options = ShiftOptions(couriers=1, prefix="c", speedup=1.0, seed=1)
    settings = DeviceSettings(journal_dir=tmp_path)
    far_away = (-1, "far away", 12.5, 41.9)  # a restaurant there does not end the start either
    with Journal(tmp_path / "couriers.sqlite") as journal:
        make = (options, settings, AnyFleet(), journal, WithOrders(), [*restaurants, far_away])
        shift = Shift(*make, None)
        shift._plan.clear()
        started: list[str] = []
        shift._dispatch.start = lambda job, **_: started.append(job.order_id)  # type: ignore[method-assign]
        await shift._start_waiting_orders()
    assert started == ["near"]
    said = caplog.text + "".join(capsys.readouterr())
    assert said.count("order_skipped") == 1
    assert "far" in said
