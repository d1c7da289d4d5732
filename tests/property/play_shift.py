"""Plays a simulated shift on the database, and compares what customers see with the rule."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from random import Random
from uuid import UUID

from doorstep.store import admin
from tests.property.fleet import Fleet, Shown
from tests.property.play import TRAIL_LASTS, Difference
from tests.property.records import Fix
from tests.property.shifts import (
    CARRIED_ALONG,
    RESTAURANTS,
    START_AT,
    Shift,
    Window,
    World,
    instant,
    place_of,
)
from tests.property.visibility import Visibility, stored

RULE = Visibility()
FIRST_RESTAURANT = 100


def open_restaurants(fleet: Fleet) -> None:
    """Register the restaurants of all shifts."""
    places = [place_of((float(x), float(y))) for x, y in RESTAURANTS]
    admin.register_restaurants(
        fleet.owner,
        [
            admin.NewRestaurant(FIRST_RESTAURANT + n, "a restaurant", place.lon_deg, place.lat_deg)
            for n, place in enumerate(places)
        ],
    )


class PlayShift:
    """One shift under way."""

    def __init__(self, fleet: Fleet, shift: Shift) -> None:
        self.fleet = fleet
        self.shift = shift
        [self.driver_id] = fleet.take_drivers(1, START_AT)
        self.world = World(self.shift, self.driver_id)
        self.chance = Random(shift.seed)
        self.orders: dict[int, UUID] = {}
        self.shown = 0

    def run(self) -> int:
        """Play up to each look and compare. Return how many fixes were seen. Raises Difference."""
        done, before = 0, -1.0
        steps = sorted(self._commands(), key=lambda step: step[0])
        for now in sorted(self._looks()):
            while done < len(steps) and steps[done][0] <= now:
                at, command, window = steps[done]
                self._command(at, command, window)
                done += 1
            self._record(before, now)
            self._compare(now)
            before = now
        return self.shown

    def _looks(self) -> Iterator[float]:
        """When customers look: once while each order is under way, and at the end."""
        for window in self.world.windows:
            yield window.assigned_s + self.chance.random() * (window.ended_s - window.assigned_s)
        yield self.world.end_s

    def _commands(self) -> Iterator[tuple[float, str, Window]]:
        windows = self.world.windows
        for n, window in enumerate(windows):
            is_given_up = any(later.order == window.order for later in windows[n + 1 :])
            yield window.assigned_s, "assign", window
            if window.order < CARRIED_ALONG:
                for (_since, until), (since, _until) in pairwise(window.visible):
                    yield until, "pause", window
                    yield since, "resume", window
            yield window.ended_s, "decline" if is_given_up else "deliver", window

    def _command(self, at: float, command: str, window: Window) -> None:
        if command == "assign" and window.order not in self.orders:
            restaurants = [(float(x), float(y)) for x, y in RESTAURANTS]
            restaurant_id = FIRST_RESTAURANT + restaurants.index(window.restaurant)
            self.orders[window.order] = self.fleet.create_order(
                place_of(window.door), 1, instant(at), restaurant_id
            )
            self._apply(at, "confirm", window)
        if command in ("pause", "resume"):
            self._turn(instant(at), window.order, is_first=command == "resume")
            return
        if command == "deliver":
            self._apply(at, "pick_up", window)
        self._apply(at, command, window)

    def _turn(self, at: datetime, number: int, *, is_first: bool) -> None:
        """Let an order be the next stop, or the one that is carried along with it."""
        order_id, other_id = self.orders[number], self.orders.get(number + CARRIED_ALONG)
        if other_id is None:  # as if there were another one
            self.fleet.show(order_id, at, is_open=is_first)
            return
        sequence = [order_id, other_id] if is_first else [other_id, order_id]
        refusal = self.fleet.reorder(at, self.driver_id, sequence)
        assert not refusal, refusal

    def _apply(self, at: float, command: str, window: Window) -> None:
        state = self.fleet.command_order(
            instant(at),
            order_id=self.orders[window.order],
            command=command,
            actor="driver" if command == "decline" else "staff",
            actor_id=self.driver_id,
            driver_id=self.driver_id if command == "assign" else None,
            idempotency_key=None,
            stop_no=2 if window.order >= CARRIED_ALONG else 1,
        )
        assert state.islower(), f"{command}: {state}"

    def _record(self, before: float, now: float) -> None:
        """Record what has arrived since, in any order."""
        arrived = [
            copy for copy in self.world.copies if instant(before) < copy.received_at <= instant(now)
        ]
        self.chance.shuffle(arrived)
        for start in range(0, len(arrived), 40):
            self.fleet.record(self.fleet.batch_door, arrived[start : start + 40])

    def _compare(self, now: float) -> None:
        copies, stops = self.world.copies_by(now), self.world.stops_by(now)
        fixes = stored(copies)
        current = {stop.order_id: stop for stop in stops}  # an order's last assignment
        for number, order_id in self.orders.items():
            mine = current[number]
            shown: list[Fix] = []
            if mine.is_live:
                shown = RULE.visible_to(mine, stops, fixes, copies)
            self.shown += len(shown)
            instants = [(fix.fix_at, fix.received_at) for fix in shown]
            position = instants[-1] if instants else (None, None)
            since = instant(now) - TRAIL_LASTS
            trail = [one for one in instants if one[0] < position[0] and one[0] >= since]
            expected = Shown(instants, position, position, trail[-80:])
            seen = self.fleet.shown_to(order_id, instant(now))
            if seen != expected:
                raise Difference(f"order {number}\n  database: {seen}\n  model:    {expected}")


def play_shift(fleet: Fleet, shift: Shift) -> int:
    """Play a shift. Return how many fixes customers saw. Raises Difference."""
    playing = PlayShift(fleet, shift)
    try:
        return playing.run()
    finally:
        fleet.retire([playing.driver_id])
