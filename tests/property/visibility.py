"""Which of a driver's fixes a customer may see: the rule of docs/explanation/privacy.md.

The specification in plain Python, beside the evidence rules of `model.py`. A fix was taken at an
instant that is not known. What is known is a span that holds it: not before `fix_at` less the
`lead` of the phone's clock, and not after the fix arrived. A fix is shown only if all of that span
lies where it may be seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tests.property.model import FUTURE, LATENESS, World
from tests.property.records import Fix, Place

SLACK = timedelta(seconds=1)  # a fix is prompt if it arrives within this
LEAST_LEAD = timedelta(seconds=0.5)  # less is not kept: most phones are never ahead by more
LEAD_KEPT = timedelta(hours=24)  # the lateness window: nothing older is stored
DOOR_RADIUS_M = 150.0
DOOR_KEPT = timedelta(minutes=15)
DOOR_LOOKBACK = timedelta(hours=24)  # also a door that was never left is forgotten then

Range = tuple[datetime, datetime | None]  # [since, until), open without an end
Span = tuple[datetime, datetime]  # both ends included


@dataclass(frozen=True)
class Stop:
    """One assignment of a driver: whose door, and when its customer may look."""

    order_id: object
    customer: Place
    restaurant: Place
    assigned_at: datetime
    ended_at: datetime | None
    visible: tuple[Range, ...]

    @property
    def is_live(self) -> bool:
        """Whether the customer may look now."""
        return bool(self.visible) and self.visible[-1][1] is None


class Visibility:
    """The rule. Its parts are methods, so that a test can break one of them."""

    def visible_to(
        self, mine: Stop, stops: Iterable[Stop], fixes: Iterable[Fix], copies: Iterable[Fix]
    ) -> list[Fix]:
        """The fixes of one driver that the customer of `mine` may see, the oldest first.

        `stops` are all of the driver's assignments, `fixes` the stored ones without those in
        quarantine, `copies` every readable copy, refused ones included.
        """
        copies = list(copies)
        leads: dict[str | None, timedelta] = {}
        spans: dict[Fix, Span] = {}
        for fix in fixes:
            if fix.boot not in leads:
                leads[fix.boot] = self.lead(copies, fix.boot, mine.assigned_at)
            spans[fix] = self.span(fix, leads[fix.boot])
        doors = self.other_doors(mine, stops)
        shown = [
            fix
            for fix, span in spans.items()
            if any(is_inside(span, visible) for visible in mine.visible)
            and not any(self.is_hidden_by(door, mine, fix, spans) for door in doors)
        ]
        return sorted(shown, key=lambda fix: fix.age)

    def lead(self, copies: Iterable[Fix], boot: str | None, assigned_at: datetime) -> timedelta:
        """How far ahead the clock of a boot is known to run.

        Copies count from the hour on in which, `LEAD_KEPT` earlier, the order was assigned.
        """
        since = hour_of(assigned_at - LEAD_KEPT)
        ahead = [
            copy.at() - copy.received_at
            for copy in copies
            if copy.boot == boot and copy.received_at >= since
        ]
        return max([LEAST_LEAD, *ahead])

    def span(self, fix: Fix, lead: timedelta) -> Span:
        """When the fix can have been taken."""
        return fix.at() - lead - SLACK, fix.received_at

    def other_doors(self, mine: Stop, stops: Iterable[Stop]) -> list[Stop]:
        """The driver's stops at other customers."""
        return [stop for stop in stops if stop.order_id != mine.order_id]

    def is_hidden_by(self, other: Stop, mine: Stop, fix: Fix, spans: dict[Fix, Span]) -> bool:
        """Whether a fix would tell where another customer lives."""
        away_m = fix.distance_m(other.customer)
        if away_m > DOOR_RADIUS_M:
            return False
        if min(fix.distance_m(mine.customer), fix.distance_m(mine.restaurant)) <= away_m:
            return False  # and so within the radius of a place that is this customer's own
        return is_of_stop(spans[fix], other) or not self.is_left(other, spans[fix], spans)

    def is_left(self, stop: Stop, span: Span, spans: dict[Fix, Span]) -> bool:
        """Whether the driver has been away from the door between the order's end and the span."""
        if stop.assigned_at > span[1] or stop.ended_at is None:
            return True
        if stop.ended_at <= span[0] - DOOR_LOOKBACK:
            return True
        return any(
            stop.ended_at < other_span[0]
            and other_span[1] <= span[0]  # its clock may have been set back since
            and fix.distance_m(stop.customer) > DOOR_RADIUS_M
            for fix, other_span in spans.items()
        )


def hour_of(at: datetime) -> datetime:
    """The hour in which an instant lies, by UTC."""
    return at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def stops_of(world: World, driver_id: str) -> list[Stop]:
    """The assignments of a driver, and when each was the next stop."""
    return [
        Stop(
            order_id,
            order.customer,
            order.restaurant,
            held.assigned_at,
            held.ended_at,
            tuple(held.visible),
        )
        for order_id, order in world.orders.items()
        for held in order.assignments.values()
        if held.driver_id == driver_id
    ]


def leads_of(world: World) -> list[tuple[str, str, datetime, timedelta]]:
    """What is kept of clocks: (driver_id, boot or "", hour, lead)."""
    leads: dict[tuple[str, str, datetime], timedelta] = {}
    for driver_id, copies in world.copies.items():
        for copy in copies:
            key = (driver_id, copy.boot or "", hour_of(copy.received_at))
            leads[key] = max(leads.get(key, LEAST_LEAD), copy.at() - copy.received_at)
    return [(*key, lead) for key, lead in leads.items() if lead > LEAST_LEAD]


def shown_to(world: World, order_id: object) -> list[Fix]:
    """The fixes that the customer of an order may see now, the oldest first."""
    order = world.orders[order_id]
    if order.current is None:
        return []
    driver_id, assigned_at = order.current.driver_id, order.current.assigned_at
    stops = stops_of(world, driver_id)
    [mine] = [
        stop for stop in stops if (stop.order_id, stop.assigned_at) == (order_id, assigned_at)
    ]
    if not mine.is_live:
        return []
    fixes = [fix for fix in world.fixes[driver_id] if not world.quarantine(fix)]
    return Visibility().visible_to(mine, stops, fixes, world.copies.get(driver_id, set()))


def is_inside(span: Span, visible: Range) -> bool:
    """Whether one range holds all of a span."""
    since, until = visible
    return since <= min(span) and (until is None or max(span) < until)


def is_of_stop(span: Span, stop: Stop) -> bool:
    """Whether the order was the driver's in the span, or had ended shortly before."""
    return stop.assigned_at <= span[1] and (
        stop.ended_at is None or stop.ended_at > span[0] - DOOR_KEPT
    )


def stored(copies: Sequence[Fix]) -> list[Fix]:
    """What is kept of copies: each fix once, with the least `received_at` of the accepted ones."""
    kept: dict[tuple[object, ...], Fix] = {}
    for copy in copies:
        if copy.received_at - LATENESS <= copy.at() <= copy.received_at + FUTURE:
            known = kept.get(copy.identity)
            if known is None or copy.received_at < known.received_at:
                kept[copy.identity] = copy
    return list(kept.values())
