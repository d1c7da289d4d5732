"""What reporting by demand saves on recorded traces: `python -m bench.demand`.

The recorded fixes go through the device's sampler, with the policies of sql/schema/47_sampling.sql:
each one all the time, and by demand, as the server chooses it. Everything is compared with `live`,
which sends each fix alone.

Orders are those of the labels of the phone-days, and in the vans' runs one for each stop on foot,
from the end of the stop before. A half of them is watched all the time; the others are live within
500 m of their door. Apart from orders a driver is idle. The last line is one JSON object:

  messages, bytes      of a data set, with MQTT over TLS
  saved_..._percent    compared with each fix alone
  missed               of the arrivals that the full trace proves
  share                of the time, by demand
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from bench.battery import Message, Tally, add, replay, replay_by
from bench.recorded_drives import Drive, missed_arrivals, read_drives
from bench.recordings.labels import LABELS
from bench.recordings.places import place_of
from bench.recordings.traces import Place, metres, read_trace
from doorstep.sampling import Demand, SamplingPolicy
from sql import read_sql

NEAR_DOOR_M = 500.0  # policy.arriving_radius_m
ALONE: Demand = "live"
BY_DEMAND, MIXED = "by demand", "mixed"
MIX: dict[Demand, float] = {"idle": 0.7, "on_order": 0.15, "live": 0.15}
SAVED = ("messages", "bytes", "radio_on_5s")
_POLICY = re.compile(r"\('(idle|on_order|live)', '(\{[^']*\})'\)")


class Order(NamedTuple):
    """An order of a drive, in epoch seconds."""

    from_s: float
    to_s: float
    door: Place
    is_watched: bool

    def demand(self, at_s: float, place: Place) -> Demand:
        """How much its courier's positions are needed."""
        if not self.from_s <= at_s <= self.to_s:
            return "idle"
        is_live = self.is_watched or metres(place, self.door) <= NEAR_DOOR_M
        return "live" if is_live else "on_order"


def policies() -> dict[str, SamplingPolicy]:
    """The policies that the database sends, by demand."""
    found = _POLICY.findall(read_sql("schema/47_sampling.sql"))
    return {demand: msgspec.json.decode(text, type=SamplingPolicy) for demand, text in found}


def orders_of(drive: Drive) -> list[Order]:
    """The orders of a drive; every second one is watched."""
    labels = [label for label in LABELS if label.trace == drive.name]
    if labels:
        trace = read_trace(drive.name)
        return [
            Order(
                trace.begins_s + max(label.assigned_s, label.span_s[0] - 60),
                trace.begins_s + label.span_s[1],
                place_of(trace, label.customer),
                n % 2 == 0,
            )
            for n, label in enumerate(labels)
        ]
    ends_s = [to_s for *_, to_s in drive.arrivals]
    begins_s = [drive.fixes[0]["fix_at"] / 1000, *ends_s]
    return [
        Order(from_s, to_s, place, n % 2 == 0)
        for n, (from_s, (_, place, _, to_s)) in enumerate(
            zip(begins_s, drive.arrivals, strict=False)
        )
    ]


def demand_at(orders: Sequence[Order], fix: Mapping[str, Any]) -> Demand:
    """The greatest demand of the orders at a fix."""
    place = Place(fix["lon_deg"], fix["lat_deg"])
    found = {order.demand(fix["fix_at"] / 1000, place) for order in orders}
    greatest: list[Demand] = ["live", "on_order"]
    return next((one for one in greatest if one in found), "idle")


def measure(drives: Sequence[Drive]) -> dict[str, Any]:
    """Replay a data set with each policy, and by demand."""
    chosen = policies()
    tallies = {name: Tally() for name in (*chosen, BY_DEMAND)}
    seconds: Counter[str] = Counter()
    for drive in drives:
        orders = orders_of(drive)
        demands = [demand_at(orders, fix) for fix in drive.fixes]
        for demand, fix, after in zip(demands, drive.fixes, drive.fixes[1:], strict=False):
            seconds[demand] += (after["fix_at"] - fix["fix_at"]) / 1000
        sent: dict[str, list[Message]] = {
            name: replay(drive, policy) for name, policy in chosen.items()
        }
        sent[BY_DEMAND] = replay_by(drive, lambda fix, of=orders: chosen[demand_at(of, fix)])  # type: ignore[misc]
        for name, messages in sent.items():
            tally = tallies[name]
            add(tally, drive, messages)
            arrivals, missed = missed_arrivals(drive, [fix for m in messages for fix in m.fixes])
            tally.arrivals += arrivals
            tally.missed += len(missed)
    return {
        "share": {name: round(one / seconds.total(), 3) for name, one in seconds.items()},
        **{
            name: {
                **_saved({what: getattr(tally, what) for what in SAVED}, tallies[ALONE]),
                "arrivals": tally.arrivals,
                "missed": tally.missed,
            }
            for name, tally in tallies.items()
        },
        MIXED: _saved(
            {
                what: sum(share * getattr(tallies[name], what) for name, share in MIX.items())
                for what in SAVED
            },
            tallies[ALONE],
        ),
    }


def _saved(figures: Mapping[str, float], alone: Tally) -> dict[str, float]:
    saved = {
        f"saved_{what}_percent": round(100 * (1 - figure / getattr(alone, what)), 1)
        for what, figure in figures.items()
    }
    return {what: round(figure) for what, figure in figures.items()} | saved


def main() -> int:
    """Run the benchmark and print its result."""
    parser = argparse.ArgumentParser(
        prog="bench.demand",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--goal-runs", type=int, default=805, metavar="N", help="the first N (805)")
    options = parser.parse_args()
    drives = read_drives(options.goal_runs)
    names = ("emission_phones", "goal_delivery_agents")
    print(json.dumps({"bench": "demand", "results": {one: measure(drives[one]) for one in names}}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
