"""Two Mosquitto brokers with bridges, two Kafka brokers, two driver_events: killed under load.

The first Kafka broker, which is the controller, and PostgreSQL are not killed here.
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
from doorstep.kafka.topic_reader import TopicReader, partition_and_offset
from doorstep.kafka.topic_specs import TOPICS
from ops.servers.waiting import wait_until
from tests.faults.checker import Checker
from tests.faults.consumers import second_consumer
from tests.faults.environment import EnvironmentSettings, FaultEnvironment
from tests.faults.load_process import PROBE

RATE = 40.0
COURIERS = 2
NORMAL_S = 20.0  # much longer than usual: the machine may be busy
WITHIN_S = 120.0
TOPIC = "driver-pos"
PARTITIONS = set(range(next(one.partitions for one in TOPICS if one.name == TOPIC)))


class RelayOnlyEnvironment(FaultEnvironment):
    """An environment that is healthy without tracking_api: it has no viewers."""

    def _unhealthy_reason(self, since_at_s: float) -> str:
        reason = super()._unhealthy_reason(since_at_s)
        return "" if reason == "tracking_api" else reason


@pytest.fixture(scope="module")
def env() -> Iterator[FaultEnvironment]:
    """A scaled-out environment under load."""
    settings = EnvironmentSettings(
        rate=RATE, couriers=COURIERS, brokers=2, two_kafkas=True, normal_s=NORMAL_S
    )
    with RelayOnlyEnvironment(settings, say=lambda _line: None) as env:
        yield env


def test_scaled_out__one_of_each_killed__nothing_is_lost_or_out_of_order(
    env: FaultEnvironment,
) -> None:
    assert {crc32(one.encode()) % 2 for one in env.load.driver_ids} == {0, 1}
    with second_consumer(env) as consumer:
        both = ("driver_events", consumer.name)
        wait_until(lambda: shared_by(env, *both), WITHIN_S, "each has partitions")
        env.wait_healthy()
        before = env.load.published()

        consumer.end(signal.SIGKILL)
        env.bridges[0].end(signal.SIGKILL)
        since = env.kill("bridge")  # supervisord restarts it
        env.bridges[0].launch()
        env.wait_healthy(since=since)
        assert owned_by(env, both[0]) == PARTITIONS

        kafka = env.second_kafka
        wait_until(lambda: kafka.count_in_sync(TOPIC) == 2, WITHIN_S, "two replicas in sync")
        kafka.elect_preferred_leaders()
        wait_until(
            lambda: kafka.count_led(TOPIC) == len(PARTITIONS) // 2, WITHIN_S, "it leads half"
        )
        since = time.monotonic()
        kafka.end(signal.SIGKILL)
        env.wait_healthy(since=since)  # the first broker leads its partitions
        assert (kafka.count_in_sync(TOPIC), kafka.count_led(TOPIC)) == (1, 0)
        kafka.launch()
        wait_until(lambda: kafka.count_in_sync(TOPIC) == 2, WITHIN_S, "it is in sync")

        consumer.launch()
        wait_until(lambda: shared_by(env, *both), WITHIN_S, "each has partitions again")
        env.wait_healthy()

        result = Checker(env).check(before)
    assert result.ok, result.violations
    assert result.commit_acked > 0
    assert (result.lost, result.duplicates) == (0, 0)
    assert first_appearances_out_of_order(env) == []


def owned_by(env: FaultEnvironment, part: str) -> set[int]:
    """Return the partitions that were assigned last to a driver_events."""
    lines = [line for line in env.log(part).splitlines() if '"event": "reading"' in line]
    return set(map(int, json.loads(lines[-1])["offsets"])) if lines else set()


def shared_by(env: FaultEnvironment, part: str, other: str) -> bool:
    """Say whether two consumers have some partitions each, and all together."""
    one, two = owned_by(env, part), owned_by(env, other)
    return bool(one and two) and not one & two and one | two == PARTITIONS


def first_appearances_out_of_order(env: FaultEnvironment) -> list[str]:
    """Return the fixes whose first record in driver-pos follows that of a later fix."""
    newest: dict[tuple[str, str], int] = defaultdict(int)
    seen: set[tuple[str, str, int]] = set()
    partitions: dict[str, int] = {}
    late: list[str] = []
    with TopicReader(env.kafka, TOPIC) as reader:
        for message in reader.read(reader.bounds()):
            driver_id = (message.key() or b"").decode()
            if not driver_id.startswith(PROBE):
                continue
            partition, offset = partition_and_offset(message)
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
