"""The promise as plain Python: what a set of fixes and a list of commands must end in.

This is the specification that the database is held against. It knows no locks, triggers, ranges
or indexes: fixes are a set, evidence is asked of that set from scratch each time, a state is what
follows from evidence and commands.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.property import stops
from tests.property.records import (
    CARRYING,
    OVER,
    PROVABLE,
    WAITING,
    Assignment,
    Boot,
    Commanded,
    Fix,
    Order,
    Place,
    pairs_apart,
)

# command -> (actor -> from which states, the state it leads to; None: none but the one there is)
MATRIX: dict[str, tuple[dict[str, tuple[str, ...]], str]] = {
    "confirm": ({"staff": ("created",)}, "confirmed"),
    "assign": ({"staff": ("confirmed",), "driver": ("confirmed",)}, "assigned"),
    "decline": ({"driver": WAITING}, "confirmed"),
    "reassign": ({"staff": WAITING}, "assigned"),
    "pick_up": ({"staff": WAITING + CARRYING, "driver": WAITING + CARRYING}, "picked_up"),
    "deliver": ({"staff": CARRYING, "driver": CARRYING}, "delivered"),
    "fail": ({"staff": CARRYING, "driver": CARRYING}, "failed"),
    "cancel": (
        {
            "staff": ("created", "confirmed", *WAITING, *CARRYING),
            "customer": ("created", "confirmed", *WAITING),
        },
        "cancelled",
    ),
}
# command -> from which driver states, and the duty is the command's own name
DUTY_FROM = {
    "on_duty": ("off_duty", "on_break"),
    "on_break": ("available",),
    "off_duty": ("available", "on_break"),
}
DRIVER_STATE = {
    "assigned": "to_restaurant",
    "at_restaurant": "at_restaurant",
    "picked_up": "to_customer",
    "arriving": "to_customer",
    "at_customer": "at_customer",
}

FUTURE = timedelta(seconds=120)
LATENESS = timedelta(hours=24)
NEAREST_MAX_AGE = timedelta(seconds=300)
NEAREST_MAX_M = 50_000.0
WORST_ACCURACY_M = 200.0
MAX_OPEN_ORDERS = 3
AFTER_ALL = datetime.max.replace(tzinfo=UTC)


class Refused(Exception):
    """A command that the rules refuse; `name` is the error's class."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


@dataclass
class World:
    """Drivers, orders, and everything that has arrived so far."""

    areas: tuple[tuple[float, float, float, float], ...]  # west, south, east, north
    duty: dict[str, str] = field(default_factory=dict)
    orders: dict[Any, Order] = field(default_factory=dict)
    fixes: dict[str, set[Fix]] = field(default_factory=dict)  # stored, of each driver
    copies: dict[str, set[Fix]] = field(default_factory=dict)  # readable, refused ones too
    boots: dict[tuple[str, str], Boot] = field(default_factory=dict)
    sealed_before: datetime | None = None
    now: datetime = AFTER_ALL  # by our clock, which is never set back here
    duty_commands: list[tuple[str, str, str, str, datetime]] = field(default_factory=list)

    # -- fixes -----------------------------------------------------------------------------

    def record(self, batch: Iterable[Fix]) -> list[tuple[str, str | None]]:
        """Take fixes in; then show what is proved. Return what became of each."""
        became = [self._take(fix) for fix in batch]
        for order in self.orders.values():
            self.show_proved(order)
        return became

    def _take(self, fix: Fix) -> tuple[str, str | None]:
        """Decide one fix: known or new first, then whether it may be stored."""
        refusal = self.refusal(fix)
        if not fix.reason and (fix.seq is None or (fix.boot and 1 <= fix.seq <= 2**62)):
            self.copies.setdefault(fix.driver_id, set()).add(fix)
        if fix.seq is None or fix.boot is None:  # known by instant and place
            if refusal and refusal not in ("too_old", "in_the_future", "sealed", "off_duty"):
                return "rejected", refusal
            known = [
                other
                for other in self.fixes[fix.driver_id]
                if other.seq is None and (other.fix_at, other.place) == (fix.fix_at, fix.place)
            ]
            if known:
                return self._compare(fix, known[0])
            if refusal:
                return "dropped" if refusal == "off_duty" else "rejected", refusal
        else:
            if not fix.boot or not 1 <= fix.seq <= 2**62:
                return "rejected", "bad_id"
            boot = self.boots.setdefault((fix.driver_id, fix.boot), Boot())
            if fix.seq in boot.stored:
                if fix.reason:
                    return ("duplicate", None) if fix.reason == "void" else ("rejected", fix.reason)
                if self._is_sealed(fix):  # what was stored may be gone: nothing to compare with
                    return "duplicate", None
                key = (fix.boot, fix.seq)
                [stored] = [f for f in self.fixes[fix.driver_id] if (f.boot, f.seq) == key]
                return self._compare(fix, stored)
            if refusal:
                known = fix.seq in boot.rejected
                boot.rejected.add(fix.seq)
                if refusal == "off_duty":
                    return "dropped", refusal
                return "rejected", "rejected_before" if known else refusal
            boot.rejected.discard(fix.seq)
            boot.stored.add(fix.seq)
        self.fixes[fix.driver_id].add(fix)
        quarantine = self.quarantine(fix)
        return ("quarantined", quarantine) if quarantine else ("committed", None)

    def _compare(self, fix: Fix, stored: Fix) -> tuple[str, str | None]:
        """Tell a copy from a conflict. Of accepted copies the first arrival counts."""
        if fix.content != stored.content:
            return "conflict", None
        if fix.received_at < stored.received_at and not self.refusal(fix):
            self.fixes[fix.driver_id] -= {stored}
            self.fixes[fix.driver_id] |= {replace(stored, received_at=fix.received_at)}
        return "duplicate", None

    def _is_sealed(self, fix: Fix) -> bool:
        return self.sealed_before is not None and fix.at() < self.sealed_before

    def refusal(self, fix: Fix) -> str | None:
        """Judge a fix by itself and its own arrival."""
        if fix.reason:
            return fix.reason
        if self.is_off_duty(fix):
            return "off_duty"
        if fix.at() > fix.received_at + FUTURE:
            return "in_the_future"
        if fix.at() < fix.received_at - LATENESS:
            return "too_old"
        return "sealed" if self._is_sealed(fix) else None

    def is_off_duty(self, fix: Fix) -> bool:
        """Tell whether a fix was taken off duty, and in no assignment."""
        taken_at = min(fix.at(), fix.received_at)
        duties = [
            command
            for driver_id, command, _before, _after, at in self.duty_commands
            if driver_id == fix.driver_id and at <= taken_at
        ]
        return duties[-1:] == ["off_duty"] and not any(
            held.driver_id == fix.driver_id
            and held.assigned_at <= taken_at
            and (held.ended_at is None or taken_at < held.ended_at)
            for order in self.orders.values()
            for held in order.assignments.values()
        )

    def quarantine(self, fix: Fix) -> str | None:
        """Tell why a stored fix proves nothing."""
        assert fix.place is not None
        lon_deg, lat_deg = fix.place.lon_deg, fix.place.lat_deg
        if lon_deg == lat_deg == 0:
            return "null_island"
        if self._is_served(lat_deg, lon_deg) and not self._is_served(lon_deg, lat_deg):
            return "swapped"
        if fix.accuracy_m is not None and fix.accuracy_m > WORST_ACCURACY_M:
            return "inaccurate"
        return None

    def _is_served(self, lon_deg: float, lat_deg: float) -> bool:
        return any(w <= lon_deg <= e and s <= lat_deg <= n for w, s, e, n in self.areas)

    def newest(self, driver_id: str) -> Fix | None:
        good = [fix for fix in self.fixes[driver_id] if not self.quarantine(fix)]
        return max(good, key=lambda fix: fix.age, default=None)

    # -- evidence --------------------------------------------------------------------------

    def proved(self, order: Order, assignment: Assignment) -> dict[str, datetime]:
        """What the driver's fixes in the assignment's window prove, and since when."""
        policy = order.policy
        fixes = [
            fix
            for fix in self.fixes[assignment.driver_id]
            if assignment.assigned_at <= fix.at()
            and (assignment.ended_at is None or fix.at() < assignment.ended_at)
            and not self.quarantine(fix)
            and (fix.accuracy_m is None or fix.accuracy_m <= policy.worst_accuracy_m)
        ]
        facts: dict[str, datetime] = {}

        def prove(state: str, pairs: Iterable[tuple[Fix, Fix]], since: datetime | None) -> None:
            found = [a.at() for a, _b in pairs if since is not None and a.at() >= since]
            if found:
                facts[state] = min(found)

        def dwells(place: Place, fixes: list[Fix]) -> Iterator[tuple[Fix, Fix]]:
            near = [
                fix
                for fix in fixes
                if fix.distance_m(place) <= policy.enter_radius_m
                and (fix.speed_mps is None or fix.speed_mps <= policy.dwell_max_mps)
            ]
            for a, b in pairs_apart(near, policy.dwell_min_s, policy.dwell_max_s):
                assert b.place is not None
                if a.distance_m(b.place) <= policy.dwell_spread_m:
                    yield a, b

        prove("at_restaurant", dwells(order.restaurant, fixes), assignment.assigned_at)
        away = [fix for fix in fixes if fix.distance_m(order.restaurant) > policy.leave_radius_m]
        leaving = pairs_apart(away, policy.leave_min_s, policy.leave_max_s)
        prove("picked_up", leaving, facts.get("at_restaurant"))
        pick_ups = [at for at in (facts.get("picked_up"), assignment.picked_up_at) if at]
        picked_up_at = min(pick_ups, default=None)
        # with the customer: both in one range, while this is the next stop, and both past
        past = [fix for fix in fixes if fix.at() < self.now]
        arriving: list[tuple[Fix, Fix]] = []
        dwelling: list[tuple[Fix, Fix]] = []
        for since, until in assignment.visible:
            shown = [fix for fix in past if since <= fix.at() and (not until or fix.at() < until)]
            near = [f for f in shown if f.distance_m(order.customer) <= policy.arriving_radius_m]
            arriving += pairs_apart(near, policy.arriving_min_s, None)
            dwelling += dwells(order.customer, shown)
        prove("arriving", arriving, picked_up_at)
        prove("at_customer", dwelling, picked_up_at)
        return facts

    def show_proved(self, order: Order) -> None:
        if order.current:
            facts = self.proved(order, order.current)
            for state in PROVABLE:
                if state in facts:
                    order.show(order.assignment_no, state, "gps", facts[state])
            if order.source == "gps":
                order.state_at = facts[order.state]  # shown before, and earlier than was known

    def pass_time(self, now: datetime) -> None:
        """Our clock goes on: pairs that were ahead of it count."""
        self.now = max(now, self.now)
        for order in self.orders.values():
            self.show_proved(order)

    # -- commands --------------------------------------------------------------------------

    def driver_state(self, driver_id: str) -> tuple[str, Any]:
        """A driver's state and next stop: duty and that order decide."""
        for order_id in self.open_orders(driver_id)[:1]:
            return DRIVER_STATE[self.orders[order_id].state], order_id
        duty = self.duty[driver_id]
        return ("available" if duty == "on_duty" else duty), None

    def command_driver(self, driver_id: str, command: str, at: datetime) -> None:
        before = self.driver_state(driver_id)[0]
        if self.duty[driver_id] != command:
            if before not in DUTY_FROM[command]:
                raise Refused("IllegalTransition")
            self.duty[driver_id] = command
            after = self.driver_state(driver_id)[0]
            # even if the clock is set back, no command precedes an earlier one
            at = max([at, *(one[4] for one in self.duty_commands if one[0] == driver_id)])
            self.duty_commands.append((driver_id, command, before, after, at))

    def command_order(
        self,
        order_id: object,
        command: str,
        actor: str,
        by: str,
        driver_id: str | None,
        at: datetime,
        key: str | None = None,
        *,
        is_offered: bool = False,
        stop_no: int | None = None,
    ) -> None:
        """Apply a command, or refuse it on what is visible now. `driver_id`: whom to assign; None
        for the nearest. `is_offered`: the order is confirmed, and offered to the driver `by`.
        `stop_no`: where the new stop goes; None for the least detour.
        """
        order = self.orders[order_id]
        held = order.assignments.get(order.assignment_no)
        if actor == "driver" and not is_offered and not (held and held.driver_id == by):
            raise Refused("UnknownOrder")
        starts, target = MATRIX[command]
        if order.state not in starts.get(actor, ()):
            raise Refused("IllegalTransition")
        chosen = self._choose(order, driver_id, at) if target == "assigned" else None

        if command == "pick_up" and order.current:
            first = order.current.picked_up_at
            order.current.picked_up_at = min(first, at) if first else at
        if command == "pick_up" and order.state in CARRYING:
            target = order.state
        if order.current and (target in OVER or command in ("decline", "reassign")):
            self._end(order.current, command, at)
        number = order.assignment_no + (command in ("decline", "reassign"))
        if chosen is not None:
            number = max(number, 1)
            self._insert(order_id, number, chosen, at, stop_no)
        order.commands.append(
            Commanded(command, actor, by, chosen, order.state, target, number, key, at)
        )
        order.show(number, target, actor, at)
        order.ended_at = at if order.is_over else None
        self.show_proved(order)

    def reorder(self, driver_id: str, sequence: list[Any], at: datetime) -> None:
        """Put a driver's stops into another sequence."""
        before = self.open_orders(driver_id)
        if sorted(map(str, sequence)) != sorted(map(str, before)):
            raise Refused("StopsChanged")
        picked_up = {one for one in before if self.orders[one].state in CARRYING}
        if stops.is_behind(before, sequence, picked_up):
            raise Refused("StopBehind")
        self._arrange(driver_id, sequence, self._free_from(driver_id, at, begun=False))
        for order_id in sequence:
            self.show_proved(self.orders[order_id])

    # -- stops -----------------------------------------------------------------------------

    def open_orders(self, driver_id: str) -> list[Any]:
        """A driver's open orders, the next stop first."""
        found = [
            (order.current.stop_no, order_id)
            for order_id, order in self.orders.items()
            if order.current and order.current.driver_id == driver_id
        ]
        return [order_id for _stop_no, order_id in sorted(found, key=lambda one: one[0] or 0)]

    def _legs(self, driver_id: str) -> list[stops.Leg]:
        return [self._leg(self.orders[order_id]) for order_id in self.open_orders(driver_id)]

    @staticmethod
    def _leg(order: Order) -> stops.Leg:
        return stops.Leg(order.restaurant, order.customer, order.state in CARRYING)

    def _best_stop(self, driver_id: str, order: Order) -> tuple[int, int]:
        newest = self.newest(driver_id)
        start = newest.place if newest else None
        return stops.best_stop(start, self._legs(driver_id), self._leg(order))

    def _insert(
        self, order_id: object, number: int, driver_id: str, at: datetime, stop_no: int | None
    ) -> None:
        """Open an assignment among the driver's other stops."""
        order, others = self.orders[order_id], self.open_orders(driver_id)
        if stop_no is None:
            stop_no = self._best_stop(driver_id, order)[0]
        first = stops.first_possible(self._legs(driver_id))
        stop_no = min(max(stop_no, first), len(others) + 1)
        since = self._free_from(driver_id, at)
        new = order.assignments[number] = Assignment(driver_id, since)
        sequence = [*others[: stop_no - 1], new, *others[stop_no - 1 :]]
        self._arrange(driver_id, sequence, since)

    def _end(self, held: Assignment, command: str, at: datetime) -> None:
        """Close an assignment; later stops move up."""
        held.ended_by = command
        held.ended_at = max(at, held.assigned_at)
        held.stop_no = None
        held.close_range(held.ended_at)
        left = self.open_orders(held.driver_id)
        since = self._free_from(held.driver_id, held.ended_at, begun=False)
        self._arrange(held.driver_id, left, since)

    def _arrange(self, driver_id: str, sequence: list[Any], at: datetime) -> None:
        """Number a driver's stops; what is the first now is visible from `at` on."""
        for n, one in enumerate(sequence, 1):
            held = one if isinstance(one, Assignment) else self.orders[one].current
            assert held is not None
            assert held.driver_id == driver_id
            if held.stop_no == 1 != n:
                held.close_range(at)
            if n == 1 and held.stop_no != 1:
                held.open_range(at)
            held.stop_no = n

    def _may_take(self, driver_id: str, order: Order) -> bool:
        """Whether a driver on duty is below the limit, and does not have this order."""
        return (
            self.duty[driver_id] == "on_duty"
            and len(self.open_orders(driver_id)) < MAX_OPEN_ORDERS
            and not (order.current and order.current.driver_id == driver_id)
        )

    def _choose(self, order: Order, driver_id: str | None, at: datetime) -> str:
        """The named driver; or, of those with a recent fix near, the nearest available one, or
        else the one with the least detour.
        """
        if driver_id is not None:
            if not self._may_take(driver_id, order):
                raise Refused("DriverUnavailable")
            return driver_id
        free, busy = [], []
        for other in self.duty:
            newest = self.newest(other)
            if newest and self._may_take(other, order):
                away_m = newest.distance_m(order.restaurant)
                if newest.at() > at - NEAREST_MAX_AGE and away_m <= NEAREST_MAX_M:
                    if self.open_orders(other):
                        busy.append((self._best_stop(other, order)[1], other))
                    else:
                        free.append((away_m, other))
        if not free and not busy:
            raise Refused("NoDriverAvailable")
        return min(free)[1] if free else min(busy)[1]

    def _free_from(self, driver_id: str, at: datetime, *, begun: bool = True) -> datetime:
        """When a driver's next range may begin: ranges never overlap, nor do two assignments
        begin together, even if the clock is set back.
        """
        before = [at]
        for order in self.orders.values():
            for held in order.assignments.values():
                if held.driver_id == driver_id:
                    before += [one for two in held.visible for one in two if one]
                    before.append(held.ended_at or at)
                    if begun:
                        before.append(held.assigned_at + timedelta(microseconds=1))
        return max(before)
