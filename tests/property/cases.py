"""What Hypothesis draws: journeys, steps anywhere, and scenes that are rare by chance."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from tests.property.steps import (
    DRIVERS,
    ORDERS,
    Case,
    Command,
    Deliver,
    During,
    Duty,
    Leg,
    Meet,
    Overtake,
    Race,
    Reorder,
    Repeat,
    Seal,
    Step,
    Unpark,
)

# Metres north of the restaurant; no distance between two comes near a radius or the spread.
PLACES_M = (0, 20, 50, 70, 240, 270, 380, 400, 480, 600, 980, 1000, 1020, 1050)
CUSTOMERS_M = (1000, 400, 30)
FLAVOURS = (
    *("early", "too_early", "late", "too_late", "vague_60", "vague_200", *("vague_201",) * 3),
    *("null_island", "swapped", "unreadable", "void", "conflict", "resent", "bad_id", "fast"),
)


_NEXT = Command("next", 0, 0, "staff", 0)
_picks = st.lists(st.integers(0, 40), min_size=1, max_size=14).map(tuple)
_start_tick = st.integers(0, 40)
_legs = st.builds(
    Leg,
    driver=st.sampled_from((0, 0, 0, 1, 2)),
    boot=st.sampled_from((0, 0, 0, 0, 1, 2)),
    metres=st.sampled_from(PLACES_M),
    start=_start_tick,
    count=st.integers(1, 4),
    every=st.sampled_from((3, 1, 2, 4, 12, 13)),
    flavour=st.sampled_from(("plain",) * 16 + FLAVOURS),
)
# Without the flavours to which the promise does not extend: other contents, or other arrivals,
# under one identity.
clean_legs = _legs.filter(lambda leg: leg.flavour not in ("conflict", "resent", "void"))
_deliver = st.builds(
    lambda picks, how: Deliver(picks, *how),
    picks=_picks,
    how=st.sampled_from(
        ((100, False), (100, False), (1, False), (2, False), (5, False), (1, True), (3, True))
    ),
)
_command = st.builds(
    Command,
    command=st.sampled_from(
        ("next",) * 8
        + ("decline", "reassign", "cancel", "fail", "pick_up", "deliver", "confirm", "accept")
    ),
    order=st.integers(0, ORDERS - 1),
    driver=st.sampled_from((0, 0, 1, 1, 2, DRIVERS)),
    actor=st.sampled_from(("staff", "staff", "staff", "holder", "driver", "customer")),
    wait=st.sampled_from((1, 0, 2, 4, 9, 18, -3)),
    stop_no=st.sampled_from((0, 0, 0, 1, 2, 9)),
)
# Somewhere on the way, or after it, the assignment ends; what arrives later still counts for it.
_end = st.builds(
    Command,
    command=st.sampled_from(("next", "reassign", "decline", "cancel", "deliver")),
    order=st.just(0),
    driver=st.sampled_from((1, 0, DRIVERS)),
    actor=st.sampled_from(("staff", "holder")),
    wait=st.sampled_from((12, 18, 24, 30, 36)),
)
_together = st.one_of(
    st.builds(Meet, first=_picks, second=_picks),
    st.builds(Overtake, first=_picks, second=_picks),
    st.builds(Race, first=_picks, second=_picks, size=st.sampled_from((1, 2, 4))),
    st.builds(During, command=st.one_of(_command, _end), picks=_picks),
)
_aside = st.one_of(
    st.builds(
        Duty,
        command=st.sampled_from(("on_duty", "on_break", "off_duty")),
        driver=st.integers(0, DRIVERS - 1),
    ),
    st.builds(Repeat, which=st.integers(0, 5)),
    st.just(Unpark()),
    st.builds(Seal, tick=st.integers(0, 12)),
)
# A driver gives the order up and gets it again, at an instant before that.
_turned_back = st.builds(
    lambda wait, back: (
        Command("decline", 0, 0, "holder", wait),
        Command("next", 0, 0, "staff", -back),
    ),
    wait=st.sampled_from((9, 18)),
    back=st.sampled_from((4, 12)),
)
# A driver goes off duty for a while, among the instants of the fixes.
_break_off = st.builds(
    lambda driver, wait, off: (
        Duty("off_duty", driver, wait),
        Duty("on_duty", driver, off),
    ),
    driver=st.sampled_from((0, 1, 2)),
    wait=st.sampled_from((0, 3, 9)),
    off=st.sampled_from((2, 9, 18)),
)
# A driver has several orders, in a sequence that changes.
_stacked = st.builds(
    lambda orders, stop_no, turns, waits: (
        *(
            Command("next", order, 0, "staff", wait, stop_no)
            for order in orders
            for wait in (0, waits[0])
        ),
        Reorder(0, turns, waits[1]),
    ),
    orders=st.sampled_from(((1,), (1,), (1, 2), (2,))),
    stop_no=st.sampled_from((0, 1, 1, 2)),
    turns=st.integers(0, 5),
    waits=st.tuples(st.sampled_from((0, 2, 9)), st.sampled_from((1, 9, 18))),
)
_reorder = st.builds(
    Reorder, driver=st.just(0), turns=st.integers(0, 5), wait=st.sampled_from((1, 4, 9, 18))
)
# one_of would flatten these, and weigh each kind of step the same
_steps = st.sampled_from(
    (
        *(_deliver,) * 4,
        *(_command,) * 2,
        *(_end,) * 3,
        *(_together,) * 3,
        _aside,
        _turned_back,
        _break_off,
        *(_stacked,) * 2,
        _reorder,
    )
).flatmap(lambda kind: kind)


def flat(steps: list[Step | tuple[Step, ...]]) -> tuple[Step, ...]:
    """Some steps come as several."""
    return tuple(one for step in steps for one in (step if isinstance(step, tuple) else (step,)))


# -- scenes right after the first assignment, which are rare by chance ----------------------------

_wait = st.sampled_from((1, 2, 4, 6, 9, 14))
# The assignment ends among the instants of its fixes, of which some have arrived: what they prove
# after that end is taken back, and those from before it still count when they come.
_ended = st.builds(
    lambda first, ends, waits, late: (
        Deliver(first, 100),
        *(
            Command(command, 0, 1, actor, wait)
            for (command, actor), wait in zip(ends, waits, strict=False)
        ),
        Deliver(late, 5),
    ),
    first=st.sampled_from((st.just(tuple(range(40))), _picks)).flatmap(lambda picks: picks),
    ends=st.sampled_from(
        (
            (("decline", "holder"),),
            (("reassign", "staff"),),
            (("cancel", "staff"),),
            (("pick_up", "holder"), ("deliver", "holder")),
            (("pick_up", "holder"), ("fail", "staff")),
            (("pick_up", "staff"), ("cancel", "staff")),
        )
    ),
    waits=st.tuples(_wait, _wait),
    late=_picks,
)
# A second order comes behind the first one, which ends, or is picked up and may not move back.
_behind = st.builds(
    lambda arrived, then, waits: (
        *(Command("next", 1, 0, "staff", wait, 2) for wait in (0, waits[0])),
        arrived,
        *(replace(step, wait=wait) for step, wait in zip(then, waits, strict=False)),
    ),
    arrived=_deliver,
    then=st.sampled_from(
        (
            (Command("cancel", 0, 0, "staff", 0),),
            (Command("cancel", 0, 0, "staff", 0), Command("next", 1, 0, "holder", 0)),
            (Command("decline", 0, 0, "holder", 0),),
            (_NEXT, replace(_NEXT, actor="holder")),
            (_NEXT, Reorder(0, 1, 0)),
            (replace(_NEXT, order=1), Reorder(0, 1, 0)),
            (Reorder(0, 1, 0), Reorder(0, 1, 0)),
        )
    ),
    waits=st.tuples(_wait, _wait),
)
# Two batches with a fix each, often the two of a pair, and neither sees the other's.
_overtaken = st.builds(lambda n: (Overtake((n,), (n + 1,)),), st.integers(0, 40))
_scenes = st.sampled_from(
    (*(st.just(()),) * 4, *(_ended,) * 2, *(_behind,) * 2, _overtaken)
).flatmap(lambda scene: scene)


@st.composite
def journeys(draw: st.DrawFn) -> tuple[Leg, ...]:
    """Draw stays anywhere, and often a whole way: restaurant, on the road, customer."""
    legs = draw(st.lists(_legs, min_size=1, max_size=6))
    tick = draw(st.integers(0, 8))
    for driver in draw(st.sampled_from(((), (0,), (0,), (0, 1)))):
        for metres in (0, 600, 1000):
            count, every = draw(st.sampled_from((2, 3))), draw(st.sampled_from((3, 2, 4)))
            legs.append(Leg(driver, 0, metres, tick, count, every, "plain"))
            tick += (count - 1) * every + draw(st.integers(1, 3))
    return tuple(legs)


cases = st.builds(
    Case,
    legs=journeys(),
    orders=st.lists(
        st.tuples(st.sampled_from(CUSTOMERS_M), st.sampled_from((False, False, True))),
        min_size=1,
        max_size=ORDERS,
    ).map(tuple),
    steps=st.builds(
        lambda begin, scene, later: (_NEXT, *begin, *scene, *later),
        # seldom: fixes are there before the order is assigned, dated ahead of that
        begin=st.sampled_from(
            (
                *(st.just((_NEXT,)),) * 4,
                st.tuples(_deliver, st.just(_NEXT)),
                st.tuples(_deliver, st.just(replace(_NEXT, driver=DRIVERS))),
            )
        ).flatmap(lambda begin: begin),
        scene=_scenes,
        later=st.lists(_steps, min_size=2, max_size=14).map(flat),
    ),
)
