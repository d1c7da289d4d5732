"""When a device gets its watermark. The seams replaced: the clock, the database, MQTT."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

import pytest

from doorstep.errors import StoreUnavailable
from doorstep.store.records import Watermark
from driver_events.acks import MAX_MISSING, AckPublisher, AckSchedule, encode_watermark
from driver_events.batch import BootKey


class Scene:
    """A manual clock, and a database and a broker that may be unavailable."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.store_is_up = True
        self.broker_is_up = True
        self.sent: list[str] = []
        self.acks = AckPublisher(AckSchedule(30), self.read, self, 30, lambda: self.now_s)

    def read(self, boot_keys: Sequence[BootKey]) -> list[Watermark]:
        if not self.store_is_up:
            raise StoreUnavailable
        return [Watermark(driver_id, boot, 7, []) for driver_id, boot in boot_keys]

    def send(self, acks: Sequence[tuple[str, bytes]]) -> set[str]:
        drivers = [driver_id for driver_id, _ in acks]
        if not self.broker_is_up:
            return set(drivers)
        self.sent += drivers
        return set()

    def pass_time(self, seconds: float) -> None:
        for _ in range(int(seconds)):
            self.now_s += 1
            self.acks.send_due()


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_acks__first_fix__is_acknowledged_at_the_next_tick(scene: Scene) -> None:
    scene.acks.request({("d1", "b1")})
    scene.pass_time(1)
    assert scene.sent == ["d1"]


def test_acks__fixes_every_second__are_acknowledged_every_30_s(scene: Scene) -> None:
    for _ in range(91):
        scene.acks.request({("d1", "b1")})
        scene.pass_time(1)
    assert len(scene.sent) == 4  # at once, and after 30, 60 and 90 s


def test_acks__fix_after_the_interval__triggers_the_ack(scene: Scene) -> None:
    """The phone's radio is on just after it has sent a fix."""
    sent_after = []
    for second in range(200):
        if second % 25 == 0:
            scene.acks.request({("d1", "b1")})
        before = len(scene.sent)
        scene.pass_time(1)
        if len(scene.sent) > before:
            sent_after.append(second)
    assert sent_after == [0, 50, 100, 150]


def test_acks__no_further_fix__is_sent_after_twice_the_interval(scene: Scene) -> None:
    scene.acks.request({("d1", "b1")})
    scene.pass_time(10)
    scene.acks.request({("d1", "b1")})
    scene.pass_time(45)
    assert scene.sent == ["d1"]
    scene.pass_time(10)
    assert scene.sent == ["d1", "d1"]
    scene.pass_time(100)
    assert scene.sent == ["d1", "d1"]


def test_schedule__random_requests__are_all_sent_within_twice_the_interval() -> None:
    rng = random.Random(5)
    schedule = AckSchedule(30)
    boot_keys = [("d", str(number)) for number in range(40)]
    open_since: dict[BootKey, float] = {}
    last_sent: dict[BootKey, float] = {}
    for now_s in range(5000):
        for boot_key in schedule.pop_due(now_s):
            assert now_s - last_sent.get(boot_key, -1e9) >= 29
            assert boot_key in open_since
            last_sent[boot_key] = now_s
            del open_since[boot_key]
        requested = rng.sample(boot_keys, rng.choice([0, 0, 1, 5])) if now_s < 4900 else []
        schedule.request(requested, now_s)
        for boot_key in requested:
            open_since.setdefault(boot_key, now_s)
        assert all(now_s - since <= 61 for since in open_since.values())
    assert not open_since


def test_acks__no_further_fix__nothing_is_sent_again(scene: Scene) -> None:
    scene.acks.request({("d1", "b1")})
    scene.pass_time(300)
    assert scene.sent == ["d1"]


def test_acks__database_unavailable__are_sent_once_it_is_back(scene: Scene) -> None:
    scene.acks.request({("d1", "b1")})
    scene.store_is_up = False
    with pytest.raises(StoreUnavailable):
        scene.pass_time(1)
    scene.store_is_up = True
    scene.pass_time(2)
    assert scene.sent == ["d1"]


def test_acks__broker_unavailable__are_sent_once_it_is_back(scene: Scene) -> None:
    scene.acks.request({("d1", "b1")})
    scene.broker_is_up = False
    scene.pass_time(5)
    scene.broker_is_up = True
    scene.pass_time(2)
    assert scene.sent == ["d1"]


def test_encode_watermark__gaps__are_inclusive_ranges() -> None:
    payload = encode_watermark(Watermark("d1", "b1", 9, [(2, 3), (5, 5)]))
    assert json.loads(payload) == {"boot": "b1", "seq": 9, "missing": [[2, 3], [5, 5]]}


def test_encode_watermark__too_many_gaps__never_claims_one_of_them() -> None:
    missing = [(n, n) for n in range(2, 2002, 2)]
    ack = json.loads(encode_watermark(Watermark("d1", "b1", 3000, missing)))
    assert len(ack["missing"]) == MAX_MISSING
    named = {first for first, _ in ack["missing"]}
    assert all(first in named for first, _ in missing if first <= ack["seq"])
