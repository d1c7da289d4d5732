"""What a case is made of: a few drivers' journeys and the steps in which they arrive.

Everything lies on one line north of the restaurant and on a grid of ten seconds, so that edges of
windows, radii and dwell times are hit often.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from tests.property.doors import NO_FIX_AT
from tests.property.records import Fix, Place, resent

TICK = timedelta(seconds=10)
# Shortly before midnight, so that journeys cross from one partition into the next.
START_AT = datetime.now(tz=UTC).replace(hour=0, minute=0, second=0, microsecond=0) - 18 * TICK
RESTAURANT = Place(11.2556, 43.7696)
AREA = (11.1, 43.7, 11.4, 43.9)  # west, south, east, north
DRIVERS, ORDERS, BOOTS = 3, 3, ("b1", "b2", None)


def north(metres: float) -> Place:
    return Place(RESTAURANT.lon_deg, RESTAURANT.lat_deg + metres / 111_195.0)


@dataclass(frozen=True)
class Leg:
    """A stay: `count` fixes at a place, from a tick on, one every so many ticks."""

    driver: int
    boot: int
    metres: int
    start: int
    count: int
    every: int
    flavour: str


@dataclass(frozen=True)
class Deliver:
    """Some of the fixes arrive, in this order, through a door; `size` splits them."""

    picks: tuple[int, ...]
    size: int
    by_http: bool = False


@dataclass(frozen=True)
class Meet:
    """Two batches at once: the second comes while the first is not committed."""

    first: tuple[int, ...]
    second: tuple[int, ...]


@dataclass(frozen=True)
class Overtake:
    """A transaction begins, another records its batch and commits, then the first goes on."""

    first: tuple[int, ...]  # to commit
    second: tuple[int, ...]


@dataclass(frozen=True)
class Race:
    """Two writers in threads of their own, each batch by batch."""

    first: tuple[int, ...]
    second: tuple[int, ...]
    size: int


@dataclass(frozen=True)
class Seal:
    """Fixes before this tick may be gone, and are no longer taken."""

    tick: int


@dataclass(frozen=True)
class Command:
    """`next` stands for whatever takes the order on."""

    command: str
    order: int
    driver: int  # DRIVERS: the nearest
    actor: str
    wait: int  # ticks since the last command; below 0 our clock is set back
    stop_no: int = 0  # where a new stop goes; 0: the least detour


@dataclass(frozen=True)
class During:
    """A batch comes while a command is not committed."""

    command: Command
    picks: tuple[int, ...]


@dataclass(frozen=True)
class Duty:
    command: str
    driver: int
    wait: int = 0  # ticks since the last command


@dataclass(frozen=True)
class Reorder:
    """The stops of a driver are put into another sequence."""

    driver: int
    turns: int  # which one of all
    wait: int


@dataclass(frozen=True)
class Repeat:
    """An accepted command is sent again with its key."""

    which: int


@dataclass(frozen=True)
class Unpark:
    """What was parked is tried again."""


Step = Deliver | Meet | Overtake | Race | During | Command | Duty | Reorder | Repeat | Unpark | Seal


@dataclass(frozen=True)
class Case:
    legs: tuple[Leg, ...]
    orders: tuple[tuple[int, bool], ...]  # metres to the customer, quick policy
    steps: tuple[Step, ...]


def fixes_of(legs: tuple[Leg, ...], driver_ids: list[str]) -> list[Fix]:
    """Work out the journeys' fixes, in the order in which they were taken down."""
    fixes: list[Fix] = []
    seqs: dict[tuple[int, int], int] = {}
    for leg in legs:
        for step in range(leg.count):
            seq = seqs[leg.driver, leg.boot] = seqs.get((leg.driver, leg.boot), 0) + 1
            at = START_AT + (leg.start + step * leg.every) * TICK
            boot = BOOTS[leg.boot]
            received_at = at + timedelta(seconds=1)
            fix = Fix(
                driver_ids[leg.driver],
                boot,
                seq if boot else None,
                at,
                received_at,
                north(leg.metres),
                speed_mps=leg.metres % 7 / 2 if step else None,  # up to 3: a person walks
                heading_deg=float(leg.start),
                altitude_m=50.5 if leg.count > 1 else None,
            )
            fixes += flavoured(fix, leg.flavour)
    return fixes


def flavoured(fix: Fix, flavour: str) -> list[Fix]:
    """Spoil a fix, or send something beside it."""
    assert fix.place is not None
    ahead = {"early": 120, "too_early": 121, "late": -86_400, "too_late": -86_401}
    vague = {"vague_60": 60.0, "vague_200": 200.0, "vague_201": 201.0}
    if flavour in ahead:
        return [replace(fix, received_at=fix.at() - timedelta(seconds=ahead[flavour]))]
    if flavour == "fast":
        return [replace(fix, speed_mps=3.01)]
    if flavour in vague:
        return [replace(fix, accuracy_m=vague[flavour])]
    if flavour == "null_island":
        return [replace(fix, place=Place(0.0, 0.0))]
    if flavour == "swapped":
        return [replace(fix, place=Place(fix.place.lat_deg, fix.place.lon_deg))]
    if flavour == "conflict":
        return [fix, replace(fix, battery=0.5)]
    if flavour == "resent" and fix.seq:
        return [fix, resent(fix, timedelta(seconds=90)), resent(fix, timedelta(hours=24))]
    if fix.boot and flavour in ("unreadable", "void"):
        reason = "void" if flavour == "void" else NO_FIX_AT
        broken = Fix(fix.driver_id, fix.boot, fix.seq, None, fix.received_at, None, reason=reason)
        return [fix, broken] if flavour == "void" else [broken]
    if fix.boot and flavour == "bad_id":
        return [replace(fix, seq=0)]
    return [fix]
