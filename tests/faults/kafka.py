"""Kafka: killed, frozen, without room on its disk, and with its topic made anew."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from confluent_kafka.admin import AdminClient

from doorstep.kafka.topic_specs import TOPICS, create_topics
from ops.stack import probes
from tests.faults.crew import Published
from tests.faults.fault import Fault, Seen
from tests.faults.lab import Lab

FROZEN_S = 120.0
FULL_S = 30.0
AWAY_S = 20.0
IN_PIPE_S = 2.0  # what Kafka had and the processor has read may still be committed, and acked
CATCH_UP_S = 5.0
MIB = 1024 * 1024
FREE_MIB = 300  # for the disk of its own, beside what there is
TOPIC = "driver-pos"


def kill(lab: Lab) -> Seen:
    """Killed, and kept away for a while."""
    lab.kill("kafka")
    at_s = time.time()
    lab.stack.stop_process("kafka")  # or supervisord would have it back too soon to look
    early, first = _acked_during(lab, AWAY_S)
    lab.stack.start_process("kafka")
    return _back(lab, time.monotonic(), at_s, early, first)


def freeze(lab: Lab) -> Seen:
    """It stands still for two minutes with every connection open."""
    at_s = time.time()
    with lab.stopped("kafka"):
        early, first = _acked_during(lab, FROZEN_S)
    return _back(lab, time.monotonic(), at_s, early, first)


def _acked_during(lab: Lab, seconds: float) -> tuple[int, int]:
    """How many fixes published from now on were acknowledged while Kafka was away; of how many."""
    time.sleep(IN_PIPE_S)
    before = lab.load.published()
    began = time.monotonic()
    acked = 0
    while time.monotonic() - began < seconds:
        time.sleep(1)
        acked = max(acked, _acked_since(lab, before))
    return acked, sum(lab.load.published().values()) - sum(before.values())


def _acked_since(lab: Lab, before: Published) -> int:
    """How many fixes the devices have been told of that they published after `before`."""
    published = lab.load.published()
    waiting = lab.load.unacknowledged(published) - lab.load.unacknowledged(before)
    new = sum(seq - before.get(one, 0) for one, seq in published.items())
    return new - waiting


def _back(lab: Lab, since: float, at_s: float, acked: int, published: int) -> Seen:
    """Wait for Kafka, then for the rest, and tell how the APIs did meanwhile."""
    while not probes.kafka_is_ready(lab.addresses.kafka):
        time.sleep(0.1)
    back, back_s = time.monotonic(), time.time()
    recovery_s = lab.wait_healthy(timeout_s=180, since=since)
    catch_up_s = recovery_s - (back - since)
    answers = Counter(
        f"{what} {status}"
        for what in ("track", "patch")
        for status, _took_s in lab.load.answers(what, at_s, back_s)
    )
    are_fine = set(answers) == {"track 200", "patch 200"}
    told = ", ".join(f"{times} x {what}" for what, times in sorted(answers.items()))
    seen = f"{acked} of {published:,} fixes acked meanwhile; {told}; "
    seen += f"live {max(0.0, catch_up_s):.1f} s after its return"
    return Seen(seen, recovery_s, ok=not acked and are_fine and catch_up_s <= CATCH_UP_S)


def disk_full(lab: Lab) -> Seen:
    """Its data on a file system of their own, which is filled to the last byte."""
    with _disk_of_its_own(lab) as disk:
        began = time.monotonic()
        ballast = disk / "ballast"
        _fill(ballast)
        before = lab.load.published()
        status = 200
        while status != 503 and time.monotonic() - began < 120:
            _fill(ballast)
            status = lab.readyz("bridge")
            time.sleep(0.5)
        noticed_s = time.monotonic() - began
        time.sleep(IN_PIPE_S)
        before = lab.load.published()
        until = time.monotonic() + FULL_S
        while time.monotonic() < until:
            _fill(ballast)  # what Kafka freed by giving up on a segment
            time.sleep(0.5)
        acked = _acked_since(lab, before)
        ballast.unlink()
        freed = time.monotonic()
        recovery_s = lab.wait_healthy(timeout_s=180, since=freed)
    seen = f"/readyz {status} after {noticed_s:.0f} s, {acked} fixes acked while it was full"
    return Seen(seen, recovery_s, ok=status == 503 and not acked)


@contextlib.contextmanager
def _disk_of_its_own(lab: Lab) -> Iterator[Path]:
    """Move Kafka's data to a small tmpfs, and back. Needs root."""
    data = lab.stack.paths.kafka / "data"
    aside = data.with_name("aside")
    with lab.down("kafka"):
        used = sum(one.stat().st_blocks * 512 for one in data.rglob("*"))
        data.rename(aside)
        data.mkdir()
        size = f"size={used // MIB + FREE_MIB}m"
        subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(data)], check=True)
        shutil.copytree(aside, data, dirs_exist_ok=True)
        shutil.rmtree(aside)
    try:
        lab.wait_healthy(timeout_s=120)
        yield data
    finally:
        (data / "ballast").unlink(missing_ok=True)
        with lab.down("kafka"):
            shutil.copytree(data, aside)
            subprocess.run(["umount", str(data)], check=True)
            data.rmdir()
            aside.rename(data)
        lab.wait_healthy(timeout_s=120)


def _fill(ballast: Path) -> None:
    """Take all the room that is left."""
    with ballast.open("ab", buffering=0) as file:
        for size in (MIB, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))


def recreate_topic(lab: Lab) -> Seen:
    """The topic is deleted and made anew: what only Kafka held is gone from there."""
    admin = AdminClient({"bootstrap.servers": lab.kafka_servers, "log_level": 2})
    at = time.monotonic()
    admin.delete_topics([TOPIC], operation_timeout=20)[TOPIC].result(30)
    topics = [one for one in TOPICS if one.name == TOPIC]
    while TOPIC not in create_topics(lab.kafka_servers, topics=topics):
        time.sleep(0.2)
    recovery_s = lab.wait_healthy(timeout_s=120, since=at)
    rejoins = lab.log_of("driver_events").count("topic_recreated")
    return Seen(f"noticed {rejoins} times by its id", recovery_s, ok=rejoins > 0)


FAULTS = (
    Fault(
        9, "kill -9 Kafka",
        "no MQTT fix acked meanwhile, PATCH and GET /track 200, live <= 5 s after, T <= 60 s",
        60, False, kill,
    ),
    Fault(
        10, "SIGSTOP Kafka 120 s",
        "no MQTT fix acked meanwhile, PATCH and GET /track 200, live <= 5 s after, T <= 60 s",
        60, False, freeze,
    ),
    *(
        (
            Fault(
                11, "Kafka's disk full", "acks stop, /readyz 503, recovers by itself",
                None, False, disk_full,
            ),
        )
        if os.geteuid() == 0
        else ()
    ),
    Fault(12, "topic recreated", "consuming again <= 60 s", 60, False, recreate_topic),
)  # fmt: skip
