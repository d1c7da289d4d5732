"""Plays one case on the model and on the database, and compares them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import groupby, permutations
from typing import Any
from uuid import UUID

from tests.property import snapshots, visibility
from tests.property.doors import Became, rows_of
from tests.property.fleet import Fleet, Shown
from tests.property.model import Refused, World
from tests.property.records import Event, Fix, Order
from tests.property.steps import (
    AREA,
    DRIVERS,
    RESTAURANT,
    START_AT,
    TICK,
    Case,
    Command,
    Deliver,
    During,
    Duty,
    Meet,
    Overtake,
    Race,
    Reorder,
    Repeat,
    Seal,
    Step,
    Unpark,
    fixes_of,
    north,
)

NEXT = {"created": "confirm", "confirmed": "assign", "assigned": "pick_up"}
NEXT |= {"at_restaurant": "pick_up", "picked_up": "deliver", "arriving": "deliver"}


TRAIL_LASTS = timedelta(minutes=5)
AFTERWARDS = timedelta(hours=1)  # every fix is past


class Difference(AssertionError):
    """The database and the model do not agree."""


class Play:
    """One case under way."""

    def __init__(self, fleet: Fleet, case: Case) -> None:
        self.fleet = fleet
        self.drivers = fleet.take_drivers(DRIVERS, START_AT)
        self.world = World((AREA,), now=START_AT)
        for driver_id in self.drivers:
            self.world.duty[driver_id] = "off_duty"
            self.world.command_driver(driver_id, "on_duty", START_AT)
            self.world.fixes[driver_id] = set()
        self.clock = self.latest = START_AT
        self._settle()
        self.orders: list[UUID] = []
        for metres, is_quick in case.orders:
            policy = fleet.policies[is_quick]
            order_id = fleet.create_order(north(metres), policy.policy_id, self.clock)
            order = Order(RESTAURANT, north(metres), policy, self.clock, state_at=self.clock)
            order.events.append(Event(0, "created", "staff", None, self.clock))
            self.world.orders[order_id] = order
            self.orders.append(order_id)
        self.fixes = [self._with_tie(fix) for fix in fixes_of(case.legs, self.drivers)]
        self.sent: set[int] = set()
        self.waiting: list[Fix] = []  # parked
        self.buried: list[tuple[object, ...]] = []  # parked, and refused at last
        self.accepted: list[dict[str, Any]] = []

    def _with_tie(self, fix: Fix) -> Fix:
        if fix.seq is not None or fix.place is None:
            return fix
        return replace(fix, tie=self.fleet.tie_of(fix.place))

    def run(self, steps: Iterable[Step]) -> None:
        """Play the steps, send what never arrived, and compare all that stands."""
        for step in steps:
            self.take(step)
        rest = [n for n in range(len(self.fixes)) if n not in self.sent]
        self.take(Deliver(tuple(rest), 7))
        self.take(Unpark())
        self.compare()
        self._pass_time(AFTERWARDS)
        self.compare()
        self.take(Deliver(tuple(range(len(self.fixes))), 100))  # a replay changes nothing
        self.compare()
        self._compare_announced()

    def take(self, step: Step) -> None:
        self._take(step)
        self._settle()
        if isinstance(step, Overtake) and not self.waiting:
            self.compare()  # the next batch would prove what this one has overlooked

    def _take(self, step: Step) -> None:
        match step:
            case Deliver(picks, size, by_http=False):
                fixes = self._picked(picks)
                for start in range(0, len(fixes), size):
                    part = fixes[start : start + size]
                    self._expect(part, self.fleet.record(self.fleet.batch_door, part))
            case Deliver(picks, size):
                for part in requests_of(self._picked(picks), size):
                    self._expect_of_http(part, self.fleet.http_door.record(part))
            case Meet(first, second):
                self._meet(self._picked(first), self._picked(second))
            case Overtake(first, second):
                batches = self._picked(first), self._picked(second)
                for fixes, seen in zip(batches, self.fleet.overtake(*batches), strict=True):
                    self._expect(fixes, seen)
            case Race(first, second, size):
                self._race(self._picked(first), self._picked(second), size)
            case Seal(tick):
                at = START_AT + tick * TICK
                self.world.sealed_before = max(at, self.world.sealed_before or at)
                self.fleet.seal(self.world.sealed_before)
            case Unpark():
                with self.fleet.batch_door.transaction():
                    self.fleet.batch_door.execute("SELECT record_parked_v1()")
                self._record([], self.drivers)
            case During(command, picks):
                self._during(command, self._picked(picks))
            case Command():
                self._command(step)
            case Reorder(driver, turns, wait):
                self._reorder(self.drivers[driver], turns, wait)
            case Duty(command, driver, wait):
                self._pass_time(wait * TICK)
                self._duty(self.drivers[driver], command)
            case Repeat(which):
                if self.accepted:
                    self._repeat(self.accepted[which % len(self.accepted)])

    # -- fixes -----------------------------------------------------------------------------

    def _picked(self, picks: Sequence[int]) -> list[Fix]:
        chosen = [n % len(self.fixes) for n in picks]
        self.sent.update(chosen)
        return [self.fixes[n] for n in chosen]

    def _unparked(self, driver_ids: Collection[str]) -> list[Fix]:
        """Take back what was parked of these drivers."""
        back = [fix for fix in self.waiting if fix.driver_id in driver_ids]
        self.waiting = [fix for fix in self.waiting if fix.driver_id not in driver_ids]
        return back

    def _record(
        self, fixes: list[Fix], driver_ids: Collection[str]
    ) -> list[tuple[str, str | None]]:
        """Let the model take what was parked of these drivers, then fixes; what it refuses of
        the first is a dead letter, what becomes of the others is returned.
        """
        back = self._unparked(driver_ids)
        became = self.world.record([*back, *fixes])
        for fix, (outcome, reason) in zip(back, became, strict=False):
            # a nameless fix is a phone app's, whose copies with other values are duplicates
            if outcome == "rejected" or (outcome == "conflict" and fix.boot is not None):
                self.buried.append(snapshots.letter(fix, reason or outcome))
        return became[len(back) :]

    def _expect(self, fixes: list[Fix], seen: dict[int, Became]) -> None:
        """Let the model take the fixes, what was parked first, and compare what became of them."""
        became = self._record(fixes, written_of(fixes))
        expected = {n: one for n, one in enumerate(became) if one[0] != "committed"}
        self._agree(f"fates of {fixes}", seen, expected)

    def _expect_of_http(self, fixes: list[Fix], seen: dict[int, Became]) -> None:
        """Like `_expect`; an answer over HTTP says of an entry that can't be read just that."""
        became = self._record(fixes, written_of(fixes))
        expected = {
            n: ("rejected", fix.reason) if fix.reason else became[n]
            for n, fix in enumerate(fixes)
            if fix.reason or became[n][0] != "committed"
        }
        self._agree(f"answers to {fixes}", seen, expected)

    def _race(self, first: list[Fix], second: list[Fix], size: int) -> None:
        """Let two writers record at once, with what ends the same in either order: no refused
        fixes, and no copies of one fix that differ.
        """
        self.take(Unpark())
        copies: dict[object, set[Fix]] = {}
        for fix in self.fixes:
            copies.setdefault(fix.identity, set()).add(fix)
        batches = [
            [
                fix
                for fix in fixes
                if len(copies[fix.identity]) == 1
                and not self.world.refusal(fix)
                and is_written(fix)
            ]
            for fixes in (first, second)
        ]
        shown = {order_id: len(order.events) for order_id, order in self.world.orders.items()}
        outcomes = self.fleet.race(batches[0], batches[1], size)
        if not outcomes <= {"quarantined", "duplicate", "parked"}:
            raise Difference(f"a race: {outcomes}")
        with self.fleet.batch_door.transaction():
            self.fleet.batch_door.execute("SELECT record_parked_v1()")
        self._record(batches[0] + batches[1], self.drivers)
        self._take_over_instants(shown)

    def _take_over_instants(self, shown: dict[UUID, int]) -> None:
        """An event keeps the instant that was known when it was shown, which in a race is any
        that was proved meanwhile: not before what is proved in the end.
        """
        instants = snapshots.instants_of_events(self.fleet, self.orders)
        for order_id, known in shown.items():
            for seq, event in enumerate(self.world.orders[order_id].events, 1):
                if seq > known and (order_id, seq) in instants:
                    seen = instants[order_id, seq]
                    if seen < event.occurred_at:
                        raise Difference(f"{event} was shown as of {seen}")
                    event.occurred_at = seen

    def _meet(self, first: list[Fix], second: list[Fix]) -> None:
        """Record two batches at once: the one that comes second must not wait, nor write of a
        locked driver.
        """
        with self.fleet.batch_door.transaction():
            seen_first = self.fleet.record(self.fleet.batch_door, first)
            seen = self.fleet.record(self.fleet.second_batch_door, second)
        self._expect(first, seen_first)
        locked = written_of(first)
        self._expect_parked(second, seen, locked, locked | self._sharing(locked))

    def _expect_parked(
        self,
        fixes: list[Fix],
        seen: dict[int, Became],
        locked: set[str],
        perhaps: set[str],
    ) -> None:
        """Like `_expect`, where another transaction held the rows of some drivers. The fixes of
        a driver are parked together; a driver who shares a locked order's row is parked or not.
        """
        here = written_of(fixes)
        parked = {fixes[n].driver_id for n, became in seen.items() if became[0] == "parked"}
        if not locked & here <= parked <= perhaps:
            raise Difference(f"locked {locked}, perhaps {perhaps}, parked {parked}")
        waiting = [n for n, fix in enumerate(fixes) if fix.driver_id in parked and is_written(fix)]
        taken = [n for n in range(len(fixes)) if n not in waiting]
        self._expect(
            [fixes[n] for n in taken], {k: seen[n] for k, n in enumerate(taken) if n in seen}
        )
        self.waiting += [fixes[n] for n in waiting]

    def _sharing(self, driver_ids: set[str]) -> set[str]:
        """All who have or had an order that one of these drivers has or had."""
        found = set()
        for order in self.world.orders.values():
            held = {assignment.driver_id for assignment in order.assignments.values()}
            found |= held if held & driver_ids else set()
        return found

    # -- commands --------------------------------------------------------------------------

    def _command(self, step: Command) -> bool:
        """Apply a command; return whether it was accepted."""
        order_id = self.orders[step.order % len(self.orders)]
        order = self.world.orders[order_id]
        command = NEXT.get(order.state, "deliver") if step.command == "next" else step.command
        wanted = self.drivers[step.driver] if step.driver < DRIVERS else None  # the nearest
        actor, by = step.actor, wanted or "dispatch"
        if command == "accept":  # of an offer that is made before
            wanted = wanted or self.drivers[0]
            command, actor, by = "assign", "driver", wanted
        elif actor == "holder":
            actor, by = "driver", order.current.driver_id if order.current else by
        key = f"key {len(self.accepted)}"
        self._pass_time(step.wait * TICK)
        stop_no = step.stop_no or None
        parameters: dict[str, Any] = {
            "order_id": order_id,
            "command": command,
            "actor": actor,
            "actor_id": by,
            "driver_id": wanted if command in ("assign", "reassign") else None,
            "idempotency_key": key,
        }
        is_offered = step.command == "accept" and order.state == "confirmed"
        if is_offered:
            self.fleet.offer(order_id, by)
        seen = self.fleet.command_order(self.clock, stop_no=stop_no, **parameters)
        try:
            self.world.command_order(
                *(order_id, command, actor, by, wanted, self.clock, key),
                is_offered=is_offered,
                stop_no=stop_no,
            )
            expected = order.state
            self.accepted.append({**parameters, "stop_no": stop_no})
        except Refused as refusal:
            expected = refusal.name
        self._agree(f"{parameters}", seen, expected)
        return seen == order.state

    def _repeat(self, again: dict[str, Any]) -> None:
        """Send an accepted command again. The answer is the order as it is now; to a driver who
        gave it up, as the command left it. With other parameters it is refused.
        """
        order = self.world.orders[again["order_id"]]
        [first] = [one for one in order.commands if one.key == again["idempotency_key"]]
        held = order.assignments.get(order.assignment_no)
        gave_up = first.actor == "driver" and not (held and held.driver_id == first.actor_id)
        state = first.to_state if gave_up else order.state
        self._agree("again", self.fleet.command_order(self.clock, **again), state)
        for other in (
            {"stop_no": (again["stop_no"] or 0) + 1},
            {"driver_id": None if again["driver_id"] else self.drivers[0]},
        ):
            refused = self.fleet.command_order(self.clock, **again | other)
            self._agree(f"again, with {other}", refused, "IdempotencyConflict")

    def _during(self, step: Command, fixes: list[Fix]) -> None:
        """Record a batch beside a command that is not committed: it holds the rows of its order,
        of the driver who has it and of the one who gets it.
        """
        order = self.world.orders[self.orders[step.order % len(self.orders)]]
        held = {order.current.driver_id} if order.current else set()
        with self.fleet.commands.transaction():
            is_accepted = self._command(step)
            seen = self.fleet.record(self.fleet.batch_door, fixes)
        held |= {order.current.driver_id} if order.current else set()
        ever = {assignment.driver_id for assignment in order.assignments.values()}
        perhaps = held | ever | self._sharing(held)
        self._expect_parked(fixes, seen, held if is_accepted else set(), perhaps)

    def _pass_time(self, span: timedelta) -> None:
        """Our clock goes on; it is set back only while a driver has one open order at most: what
        has counted in an earlier range would lie after its end.
        """
        if any(len(self.world.open_orders(driver_id)) > 1 for driver_id in self.drivers):
            span = abs(span)
            self.clock = max(self.clock, self.latest)
        self.clock += span or timedelta(milliseconds=1)
        self._settle()

    def _settle(self) -> None:
        """Let what was ahead of our clock count, up to its latest instant so far."""
        self.latest = max(self.latest, self.clock)
        self.fleet.pass_time(self.latest)
        self.world.pass_time(self.latest)

    def _reorder(self, driver_id: str, turns: int, wait: int) -> None:
        """Put the stops of a driver into one of their sequences."""
        self._pass_time(wait * TICK)
        sequences = list(permutations(self.world.open_orders(driver_id)))
        sequence = list(sequences[turns % len(sequences)])
        seen = self.fleet.reorder(self.clock, driver_id, sequence)
        try:
            self.world.reorder(driver_id, sequence, self.clock)
            expected = ""
        except Refused as refusal:
            expected = refusal.name
        self._agree(f"stops {sequence}", seen, expected)

    def _duty(self, driver_id: str, command: str) -> None:
        seen = self.fleet.command_driver(self.clock, driver_id, command)
        try:
            self.world.command_driver(driver_id, command, self.clock)
            expected = self.world.driver_state(driver_id)[0]
        except Refused as refusal:
            expected = refusal.name
        self._agree(command, seen, expected)

    # -- comparing -------------------------------------------------------------------------

    @staticmethod
    def _agree(what: str, seen: object, expected: object) -> None:
        if seen != expected:
            raise Difference(f"{what}\n  database: {seen}\n  model:    {expected}")

    def compare(self) -> None:
        seen = snapshots.of_database(self.fleet, self.drivers, self.orders)
        differing = snapshots.differences(seen, snapshots.of_model(self.world))
        if differing:
            raise Difference("\n".join(differing))
        for order_id in self.orders:
            self._compare_shown(order_id)

    def _compare_shown(self, order_id: UUID) -> None:
        """Hold what a customer sees, whichever way they look, to the rule."""
        shown = [(fix.fix_at, fix.received_at) for fix in visibility.shown_to(self.world, order_id)]
        position = shown[-1] if shown else (None, None)
        trail = [
            one for one in shown if one[0] < position[0] and one[0] >= self.clock - TRAIL_LASTS
        ]
        seen = self.fleet.shown_to(order_id, self.clock)
        self._agree("what a customer sees", seen, Shown(shown, position, position, trail[-80:]))

    def _compare_announced(self) -> None:
        seen = snapshots.announced(self.fleet, self.drivers, self.orders)
        self._agree("dead letters", seen.buried, sorted(self.buried, key=repr))
        self._agree("updates", sorted(seen.updates), sorted(snapshots.to_announce(self.world)))
        for order_id in self.orders:
            order_seqs = [update[1] for update in seen.updates if update[0] == order_id]
            self._agree("order of updates", order_seqs, sorted(order_seqs))


def written_of(fixes: Sequence[Fix]) -> set[str]:
    """The drivers of whom something gets as far as the database."""
    return {fix.driver_id for fix in fixes if is_written(fix)}


def is_written(fix: Fix) -> bool:
    """A fix whose number can't be read has no place in the ledger."""
    return bool(rows_of([fix])[0])


def requests_of(fixes: Sequence[Fix], size: int) -> Iterator[list[Fix]]:
    """Group fixes into requests: one driver and one arrival each, `size` fixes at most."""
    for _key, run in groupby(fixes, key=lambda fix: (fix.driver_id, fix.received_at)):
        alike = list(run)
        for start in range(0, len(alike), size):
            yield alike[start : start + size]


def play(fleet: Fleet, case: Case) -> World:
    """Play a case. Raises Difference."""
    playing = Play(fleet, case)
    try:
        playing.run(case.steps)
    finally:
        fleet.retire(playing.drivers)
    return playing.world
