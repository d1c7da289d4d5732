"""Two Mosquittos with a bridge each, two Kafka brokers, two driver_events: killed under load.

The first Kafka broker is the controller too, and PostgreSQL is one: neither is killed here.
"""

from __future__ import annotations

import json
import signal
import time
from collections import defaultdict
from collections.abc import Iterator
from zlib import crc32

import pytest

from doorstep.fix import Fix, decode_position
from doorstep.kafka.topic_reader import TopicReader, place_of
from doorstep.kafka.topic_specs import TOPICS
from tests.faults.checker import Checker
from tests.faults.consumers import second
from tests.faults.crew import PROBE
from tests.faults.lab import Lab, LabSettings
from tests.faults.waiting import wait_until

RATE = 40.0
COURIERS = 2
NORMAL_S = 20.0  # however busy the machine is: what is old would be older than that
WITHIN_S = 120.0
TOPIC = "driver-pos"
EVERY = set(range(next(one.partitions for one in TOPICS if one.name == TOPIC)))


class Relaying(Lab):
    """A lab that is healthy when fixes come through: nobody looks on here."""

    def _waits_for(self, since_at_s: float) -> str:
        waits_for = super()._waits_for(since_at_s)
        return "" if waits_for == "tracking_api" else waits_for


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A scaled-out lab at work."""
    settings = LabSettings(
        rate=RATE, couriers=COURIERS, brokers=2, two_kafkas=True, normal_s=NORMAL_S
    )
    with Relaying(settings, say=lambda _line: None) as lab:
        yield lab


def test_scaled_out__one_of_each_killed__nothing_is_lost_or_out_of_order(
    lab: Lab,
) -> None:
    assert {crc32(one.encode()) % 2 for one in lab.load.driver_ids} == {0, 1}
    with second(lab) as consumer:
        both = ("driver_events", consumer.name)
        wait_until(lambda: shared_by(lab, *both), WITHIN_S, "each has its partitions")
        lab.wait_healthy()
        before = lab.load.published()

        consumer.end(signal.SIGKILL)  # and its partitions wait
        lab.bridges[0].end(signal.SIGKILL)  # and what its broker takes waits there
        since = lab.kill("bridge")  # its supervisor starts it again
        lab.bridges[0].start()
        lab.wait_healthy(since=since)  # the newest fix of every driver: one has all partitions
        assert owned_by(lab, both[0]) == EVERY

        kafka = lab.kafka_beside
        wait_until(lambda: kafka.copies(TOPIC) == 2, WITHIN_S, "all is there twice")
        kafka.lead_its_half()
        wait_until(lambda: kafka.leads(TOPIC) == len(EVERY) // 2, WITHIN_S, "it leads its half")
        since = time.monotonic()
        kafka.end(signal.SIGKILL)
        lab.wait_healthy(since=since)  # its partitions go on with the other broker
        assert (kafka.copies(TOPIC), kafka.leads(TOPIC)) == (1, 0)
        kafka.start()
        wait_until(lambda: kafka.copies(TOPIC) == 2, WITHIN_S, "it has caught up")

        consumer.start()
        wait_until(lambda: shared_by(lab, *both), WITHIN_S, "each has its partitions again")
        lab.wait_healthy()

        verdict = Checker(lab).check(before)
    assert verdict.ok, verdict.complaints
    assert verdict.commit_acked > 0
    assert (verdict.lost, verdict.duplicates) == (0, 0)
    assert first_appearances_out_of_order(lab) == []


def owned_by(lab: Lab, part: str) -> set[int]:
    """The partitions that an instance of driver_events took up last."""
    lines = [line for line in lab.log_of(part).splitlines() if '"event": "reading"' in line]
    return set(map(int, json.loads(lines[-1])["offsets"])) if lines else set()


def shared_by(lab: Lab, part: str, other: str) -> bool:
    """Whether each of two has some of the partitions, and together they have all."""
    one, two = owned_by(lab, part), owned_by(lab, other)
    return bool(one and two) and not one & two and one | two == EVERY


def first_appearances_out_of_order(lab: Lab) -> list[str]:
    """Each fix of the load that came to driver-pos for the first time after a later one."""
    newest: dict[tuple[str, str], int] = defaultdict(int)
    seen: set[tuple[str, str, int]] = set()
    partitions: dict[str, int] = {}
    late: list[str] = []
    with TopicReader(lab.kafka_servers, TOPIC) as reader:
        for message in reader.read(reader.bounds()):
            driver_id = (message.key() or b"").decode()
            if not driver_id.startswith(PROBE):
                continue
            partition, offset = place_of(message)
            assert partitions.setdefault(driver_id, partition) == partition
            for fix in decode_position(message.value() or b""):
                assert isinstance(fix, Fix)
                assert fix.boot is not None
                assert fix.seq is not None
                known = (driver_id, fix.boot)
                if (*known, fix.seq) not in seen and fix.seq < newest[known]:
                    late.append(f"{driver_id} {fix.boot} {fix.seq} at {partition}:{offset}")
                seen.add((*known, fix.seq))
                newest[known] = max(newest[known], fix.seq)
    assert len(set(partitions.values())) > 1
    assert len(seen) > len(partitions)
    return late
