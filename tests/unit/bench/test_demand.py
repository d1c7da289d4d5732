"""Reporting by demand on a drive: when a fix is sent alone, with others, or not at all."""

from __future__ import annotations

import os
from typing import Any

from bench.battery import replay_by
from bench.demand import Order, demand_at, policies
from bench.process_cpu import cpu_s
from bench.recorded_drives import Drive
from bench.recordings.traces import Place

DOOR = Place(11.25, 43.77)
FAR = Place(11.35, 43.77)


def fix(at_s: int, place: Place) -> dict[str, Any]:
    return {"fix_at": at_s * 1000, "lon_deg": place.lon_deg, "lat_deg": place.lat_deg}


def test_policies__of_the_database__are_one_per_demand() -> None:
    found = policies()
    assert {name: (one.mode, one.batch_s) for name, one in found.items()} == {
        "idle": ("dead_reckoning", 0.0),
        "on_order": ("all", 16.0),
        "live": ("all", 0.0),
    }


def test_demand__by_order_place_and_viewer__is_the_greatest() -> None:
    order, watched = Order(10, 20, DOOR, False), Order(15, 30, DOOR, True)
    of = {at_s: demand_at([order, watched], fix(at_s, FAR)) for at_s in (5, 12, 16, 25, 31)}
    assert of == {5: "idle", 12: "on_order", 16: "live", 25: "live", 31: "idle"}
    assert demand_at([order], fix(12, DOOR)) == "live"


def test_replay__a_policy_that_changes_to_live__sends_what_waits_and_then_each_alone() -> None:
    fixes = [fix(4 * n, Place(11.25 + n * 1e-3, 43.77)) for n in range(1, 9)]
    chosen = policies()
    sent = replay_by(
        Drive("one", fixes),
        lambda one: chosen["on_order" if one["fix_at"] < 12_000 else "live"],
    )
    assert [[one["fix_at"] // 4000 for one in message.fixes] for message in sent] == [
        [1, 2], *[[n] for n in range(3, 9)],
    ]  # fmt: skip


def test_cpu__of_this_process__is_finer_than_a_tick() -> None:
    before_s = cpu_s(os.getpid())
    sum(range(20_000))
    spent_s = cpu_s(os.getpid()) - before_s
    assert spent_s > 0
