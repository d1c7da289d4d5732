"""What a larger fleet needs, reckoned from unit costs: `python -m bench.scaling [--json]`.

Every figure is a product of the numbers in UNITS and nothing else. Each of those says where it was
measured, or that it is a guess; put better ones there and run it again.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

LOAD = (
    0.6  # of a core that is planned to be busy: the rest is for bursts and for a part that is down
)
INTERVAL_S = 4.0
HOURS_A_DAY = 8.0  # that a driver is on duty
CORES_A_DATABASE = 16
MIB, GIB, TIB = 2**20, 2**30, 2**40


class Unit(NamedTuple):
    """One cost, and where it comes from."""

    value: float
    unit: str
    source: str  # a document with a measurement, or "guess"


UNITS = {
    "mosquitto": Unit(35.0, "µs of CPU a fix", "docs/load.md"),
    "bridge": Unit(7.1, "µs of CPU a fix", "docs/load.md"),
    "kafka": Unit(12.0, "µs of CPU a fix, one copy", "docs/load.md"),
    "driver_events": Unit(15.0, "µs of CPU a fix", "docs/load.md"),
    "postgres": Unit(34.0, "µs of CPU a fix, 100,000 drivers", "docs/load.md"),
    "push": Unit(40.0, "µs of CPU a push, an order each", "docs/live.md"),
    "look": Unit(30.0, "µs of PostgreSQL's CPU a look at a watched order", "guess"),
    "hear": Unit(0.6, "µs of CPU a position in each process of tracking_api", "docs/live.md"),
    "viewers": Unit(18_000, "viewers a process of tracking_api", "docs/live.md"),
    "viewer_memory": Unit(8.7 * 1024, "bytes a viewer, without the kernel's", "docs/live.md"),
    "device_memory": Unit(
        32 * 1024, "bytes a connected device with TLS, the kernel's too", "guess"
    ),
    "wire": Unit(362, "bytes a fix between phone and broker, TLS", "docs/battery.md"),
    "push_wire": Unit(600, "bytes a push, with headers", "guess"),
    "in_kafka": Unit(120, "bytes a fix in Kafka, lz4, one copy", "guess"),
    "plain": Unit(266, "bytes a fix in fix_history, with index", "docs/history.md"),
    "packed": Unit(11.4, "bytes a fix in fix_chunk, with index", "docs/history.md"),
    "wal": Unit(730, "bytes of WAL a fix", "docs/performance.md"),
}
KAFKA_COPIES = 3
PLAIN_DAYS = 4  # until a day is sealed and packed
KAFKA_DAYS = 2


@dataclass(frozen=True, slots=True)
class Needs:
    """What so many drivers and viewers need at the same time. Sizes in bytes, rates per second."""

    drivers: int
    viewers: int
    fixes_per_s: float
    mqtt_brokers: int  # one thread each: as many as cores for them
    broker_memory_bytes: float
    bridges: int
    kafka_cores: float
    driver_events: int
    postgres_cores: float
    databases: int
    tracking_api: int
    live_cores: float
    hearing_cores: float  # in each process of tracking_api, for the positions of the whole fleet
    in_bits_per_s: float
    out_bits_per_s: float
    wal_bytes_per_s: float
    kafka_bytes: float
    plain_bytes_per_day: float
    packed_bytes_per_day: float


def needs_of(drivers: int, viewers: int, costs: Mapping[str, float]) -> Needs:
    """Reckon it."""
    rate = drivers / INTERVAL_S
    pushes = viewers / INTERVAL_S  # each viewer sees each fix of one courier
    a_day = drivers * HOURS_A_DAY * 3600 / INTERVAL_S

    def cores(part: str, times: float) -> float:
        return times * costs[part] / 1e6 / LOAD

    brokers = math.ceil(cores("mosquitto", rate))
    postgres = cores("postgres", rate) + cores("look", pushes)
    live = cores("push", pushes)
    return Needs(
        drivers,
        viewers,
        rate,
        brokers,
        drivers * costs["device_memory"],
        max(brokers, math.ceil(cores("bridge", rate))),
        cores("kafka", rate * KAFKA_COPIES),
        math.ceil(cores("driver_events", rate)),
        postgres,
        math.ceil(postgres / CORES_A_DATABASE),
        max(math.ceil(viewers / costs["viewers"]), math.ceil(live)),
        live,
        cores("hear", rate),
        rate * costs["wire"] * 8,
        pushes * costs["push_wire"] * 8,
        rate * costs["wal"],
        a_day * KAFKA_DAYS * costs["in_kafka"] * KAFKA_COPIES,
        a_day * costs["plain"],
        a_day * costs["packed"],
    )


def table_of(found: Sequence[Needs]) -> str:
    """A table in Markdown, a column for each fleet."""
    rows: list[tuple[str, list[str]]] = [
        ("drivers", [f"{one.drivers:,}" for one in found]),
        ("viewers", [f"{one.viewers:,}" for one in found]),
        ("fixes/s", [f"{one.fixes_per_s:,.0f}" for one in found]),
        ("Mosquitto brokers, a core each", [f"{one.mqtt_brokers:,}" for one in found]),
        ("their memory, GiB", [f"{one.broker_memory_bytes / GIB:,.0f}" for one in found]),
        ("bridges", [f"{one.bridges:,}" for one in found]),
        ("Kafka, cores (3 copies)", [f"{one.kafka_cores:,.0f}" for one in found]),
        ("Kafka, 2 days, TiB (3 copies)", [f"{one.kafka_bytes / TIB:,.1f}" for one in found]),
        ("driver_events = partitions at least", [f"{one.driver_events:,}" for one in found]),
        ("PostgreSQL, cores", [f"{one.postgres_cores:,.0f}" for one in found]),
        (f"databases of {CORES_A_DATABASE} cores", [f"{one.databases:,}" for one in found]),
        ("WAL, MiB/s", [f"{one.wal_bytes_per_s / MIB:,.0f}" for one in found]),
        ("tracking_api processes", [f"{one.tracking_api:,}" for one in found]),
        ("their cores, to push", [f"{one.live_cores:,.0f}" for one in found]),
        ("in each, to hear all positions", [f"{one.hearing_cores:,.2f}" for one in found]),
        ("from phones, Gbit/s", [f"{one.in_bits_per_s / 1e9:,.2f}" for one in found]),
        ("to viewers, Gbit/s", [f"{one.out_bits_per_s / 1e9:,.2f}" for one in found]),
        ("history a day, plain, GiB", [f"{one.plain_bytes_per_day / GIB:,.0f}" for one in found]),
        ("history a day, packed, GiB", [f"{one.packed_bytes_per_day / GIB:,.0f}" for one in found]),
        (
            "90 days, 4 of them plain, TiB",
            [
                f"{_kept(one, PLAIN_DAYS, 90) / TIB:,.1f} (plain: {_kept(one, 90, 90) / TIB:,.0f})"
                for one in found
            ],
        ),
    ]
    lines = [f"| {name} | {' | '.join(values)} |" for name, values in rows]
    lines.insert(1, "|---" * (len(found) + 1) + "|")
    return "\n".join(lines)


def _kept(needs: Needs, plain_days: int, days: int) -> float:
    plain = plain_days * needs.plain_bytes_per_day
    return plain + (days - plain_days) * needs.packed_bytes_per_day


def main() -> int:
    """Print the table, or one JSON object with the units."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    fleets = [100_000, 1_000_000, 10_000_000]
    parser.add_argument("--drivers", type=int, nargs="+", default=fleets, metavar="N")
    parser.add_argument("--viewers", type=int, default=400_000, metavar="N", help="(400,000)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    costs = {name: one.value for name, one in UNITS.items()}
    found = [needs_of(drivers, options.viewers, costs) for drivers in options.drivers]
    if options.json:
        units = {name: one._asdict() for name, one in UNITS.items()}
        json.dump({"units": units, "needs": [asdict(one) for one in found]}, sys.stdout, indent=2)
        print()
        return 0
    print(table_of(found))
    print()
    for name, one in UNITS.items():
        print(f"{name:14} {one.value:>10,.6g} {one.unit} ({one.source})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
