"""The reference device: order, bounds, resends, voids.

`FakeConnection` replaces the broker: it takes messages and never answers by itself. The same
device against a real Mosquitto is in tests/integration/test_device.py.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from device import device as device_module
from device.connection import Login
from device.device import MAX_IN_FLIGHT, Device
from device.journal import Journal, read_published
from device.retransmission import (
    MAX_ARRAY_BYTES,
    MAX_ARRAY_FIXES,
    Ack,
    committed_ranges,
    join_fixes,
)
from device.settings import broker_of
from doorstep.sampling import SamplingPolicy
from doorstep.settings import MqttBroker

LOGIN = Login(MqttBroker("127.0.0.1", 1, tls=False), "anna", "secret", "will")
FIX: dict[str, Any] = {"fix_at": 1_700_000_000_000, "lat_deg": 43.77, "lon_deg": 11.25}


class FakeConnection:
    newest: ClassVar[FakeConnection]

    def __init__(
        self,
        login: Login,
        will: bytes,
        on_puback: Callable[[int], None],
        on_message: Callable[[str, bytes], None],
    ) -> None:
        FakeConnection.newest = self
        self.lost = asyncio.Event()
        self.sent: list[tuple[int, str, Any]] = []
        self.will = will
        self._on_puback, self._on_message = on_puback, on_message

    async def open(self) -> None: ...

    def subscribe(self, topics: list[str]) -> None:
        self.topics = topics

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> int:
        self.sent.append((len(self.sent), topic.rpartition("/")[2], json.loads(payload)))
        return len(self.sent) - 1

    def tick(self) -> None: ...

    def close(self) -> None:
        self.lost.set()

    async def disconnect(self) -> None:
        self.lost.set()

    def puback_all(self) -> None:
        for message_id, _, _ in list(self.sent):
            self._on_puback(message_id)

    def ack(self, boot: str, seq: int, missing: list[list[int]] | None = None) -> None:
        payload = {"boot": boot, "seq": seq, "missing": missing or []}
        self._on_message("doorstep/v1/drivers/anna/ack", json.dumps(payload).encode())

    def positions(self) -> list[Any]:
        return [payload for _, leaf, payload in self.sent if leaf == "position"]

    def seqs(self) -> list[int]:
        fixes = [one if isinstance(one, list) else [one] for one in self.positions()]
        return [fix["seq"] for batch in fixes for fix in batch]


@pytest.fixture(autouse=True)
def fake_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module, "Connection", FakeConnection)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "j.sqlite") as one:
        yield one


async def connect(device: Device) -> FakeConnection:
    await device._connect()
    return FakeConnection.newest


def report(device: Device, journal: Journal, count: int = 1) -> None:
    for _ in range(count):
        device.write(FIX)
        journal.commit()
        device.pump()


async def test_pump__fixes_reported_one_by_one__sends_each_in_order(journal: Journal) -> None:
    device = Device(LOGIN, journal)
    connection = await connect(device)
    report(device, journal, 5)
    assert connection.seqs() == [1, 2, 3, 4, 5]
    assert connection.positions()[0] == {"boot": device.boot, "seq": 1, **FIX}


async def test_pump__no_puback__stops_at_the_bound_in_flight(journal: Journal) -> None:
    device = Device(LOGIN, journal)
    connection = await connect(device)
    report(device, journal, MAX_IN_FLIGHT + 10)
    assert len(connection.positions()) == MAX_IN_FLIGHT
    connection.puback_all()
    assert connection.seqs() == list(range(1, MAX_IN_FLIGHT + 11))


async def test_connect__after_an_outage__sends_all_in_order_as_arrays(journal: Journal) -> None:
    device = Device(LOGIN, journal)
    report(device, journal, 600)
    connection = await connect(device)
    assert connection.seqs() == list(range(1, 601))
    sizes = [len(one) for one in connection.positions()]
    assert sizes == [MAX_ARRAY_FIXES, MAX_ARRAY_FIXES, 600 - 2 * MAX_ARRAY_FIXES]


async def test_connect__puback_but_no_ack__sends_again(journal: Journal) -> None:
    device = Device(LOGIN, journal)
    first = await connect(device)
    report(device, journal, 3)
    first.puback_all()
    assert (await connect(device)).seqs() == [1, 2, 3]


async def test_connect__a_new_process_with_the_same_journal__goes_on(journal: Journal) -> None:
    report(Device(LOGIN, journal), journal, 3)
    device = Device(LOGIN, journal)
    connection = await connect(device)
    report(device, journal)
    assert connection.seqs() == [1, 2, 3, 4]


async def test_connect__says_online_and_leaves_an_offline_will(journal: Journal) -> None:
    connection = await connect(Device(LOGIN, journal))
    _, leaf, status = connection.sent[0]
    assert (leaf, status["status"]) == ("status", "online")
    assert json.loads(connection.will)["status"] == "offline"


async def test_ack__covers_fixes__they_leave_the_journal(journal: Journal) -> None:
    device = Device(LOGIN, journal)
    connection = await connect(device)
    report(device, journal, 5)
    connection.ack(device.boot, 4)
    assert device.pending == 1
    assert (await connect(device)).seqs() == [5]


async def test_ack__of_another_boot_or_unreadable__changes_nothing(journal: Journal) -> None:
    device = Device(LOGIN, journal)
    connection = await connect(device)
    report(device, journal, 2)
    connection.ack("another", 2)
    connection._on_message("doorstep/v1/drivers/anna/ack", b"\xff{")
    connection._on_message("doorstep/v1/drivers/anna/ack", b'{"boot": 1}')
    assert device.pending == 2


async def test_ack__names_missing_fixes__they_are_sent_again(journal: Journal) -> None:
    device = Device(LOGIN, journal)
    connection = await connect(device)
    report(device, journal, 9)
    connection.ack(device.boot, 9, [[3, 4], [7, 7]])
    assert connection.seqs()[9:] == [3, 4, 7]
    assert device.pending == 3


async def test_ack__repeated_before_anything_newer__sends_nothing_again(journal: Journal) -> None:
    device = Device(LOGIN, journal)
    connection = await connect(device)
    report(device, journal, 9)
    connection.ack(device.boot, 9, [[3, 3]])
    connection.ack(device.boot, 9, [[3, 3]])
    assert connection.seqs()[9:] == [3]


async def test_ack__repeated_for_three_periods__sends_again_and_never_as_void(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device(LOGIN, journal, ack_every_s=30)
    connection = await connect(device)
    report(device, journal, 9)
    began = time.monotonic()
    for period in range(20):
        monkeypatch.setattr(time, "monotonic", lambda now=began + 91.0 * period: now)
        connection.ack(device.boot, 9, [[3, 3]])
        connection.puback_all()
    assert connection.seqs()[9:] == [3] * 20
    assert not any(one.get("void") for one in connection.positions())


async def test_ack__resent_three_times_for_nothing__closes_it_as_void(
    journal: Journal, tmp_path: Path
) -> None:
    device = Device(LOGIN, journal)
    connection = await connect(device)
    report(device, journal, 2)
    for newest in range(2, 6):
        connection.ack(device.boot, newest, [[1, 1]])
        connection.puback_all()
        report(device, journal)
    resent = [one for one in connection.positions() if one["seq"] == 1]
    assert [one.get("void", False) for one in resent] == [False, False, False, False, True]
    journal.commit()
    assert read_published(tmp_path / "j.sqlite")[0].voids == 1


async def test_ack__missing_fix_not_in_the_journal__closes_it_as_void(journal: Journal) -> None:
    device = Device(LOGIN, journal)
    connection = await connect(device)
    report(device, journal, 3)
    connection.ack(device.boot, 3)  # all three committed, so forgotten …
    connection.ack(device.boot, 3, [[2, 2]])  # … by a database that was then restored
    report(device, journal)
    connection.ack(device.boot, 4, [[2, 2]])  # or was that only an older ack? no: it says it again
    assert connection.positions()[-1] == {"boot": device.boot, "seq": 2, "void": True}


async def test_ack__names_fixes_never_sent__leaves_them_for_their_turn(journal: Journal) -> None:
    device = Device(LOGIN, journal)
    connection = await connect(device)
    report(device, journal, 2)
    connection.puback_all()
    report(device, journal, 40)
    sent = connection.seqs()
    connection.ack(device.boot, 42, [[len(sent) + 1, 42]])
    assert connection.seqs() == sent


async def test_silence__three_ack_periods_with_fixes_waiting__sends_them_again(
    journal: Journal,
) -> None:
    device = Device(LOGIN, journal, ack_every_s=30)
    connection = await connect(device)
    report(device, journal, 2)
    connection.puback_all()
    now = time.monotonic()
    device._check_progress(connection, now + 89)  # type: ignore[arg-type]
    assert connection.seqs() == [1, 2]
    device._check_progress(connection, now + 91)  # type: ignore[arg-type]
    assert connection.seqs() == [1, 2, 1, 2]


async def test_silence__goes_on__waits_twice_as_long_each_time(journal: Journal) -> None:
    device = Device(LOGIN, journal, ack_every_s=30)
    connection = await connect(device)
    report(device, journal)
    connection.puback_all()
    began = time.monotonic()
    for second in range(0, 1000, 10):
        device._check_progress(connection, began + second)  # type: ignore[arg-type]
        connection.puback_all()
    # after 90 s, then 180, 360, 720
    assert len(connection.seqs()) == 1 + 3


async def test_silence__nothing_waits__sends_nothing(journal: Journal) -> None:
    device = Device(LOGIN, journal, ack_every_s=30)
    connection = await connect(device)
    report(device, journal, 2)
    connection.puback_all()
    connection.ack(device.boot, 2)
    device._check_progress(connection, time.monotonic() + 1000)  # type: ignore[arg-type]
    assert connection.seqs() == [1, 2]


async def test_puback_overdue__drops_the_connection(journal: Journal) -> None:
    device = Device(LOGIN, journal)
    connection = await connect(device)
    report(device, journal)
    device._check_progress(connection, time.monotonic() + 21)  # type: ignore[arg-type]
    assert connection.lost.is_set()


def test_join_fixes__large_fixes__stay_within_the_message_size() -> None:
    rows = [(seq, b"x" * 1000) for seq in range(1, MAX_ARRAY_FIXES + 1)]
    message, taken = join_fixes(rows)
    assert len(message) <= MAX_ARRAY_BYTES + 2
    assert 50 < taken < MAX_ARRAY_FIXES


@pytest.mark.parametrize(
    ("seq", "gaps", "ranges"),
    [
        (0, [], []),
        (5, [], [(1, 5)]),
        (5, [(1, 5)], []),
        (9, [(3, 4), (7, 7)], [(1, 2), (5, 6), (8, 9)]),
        (9, [(7, 7), (3, 4)], [(1, 2), (5, 6), (8, 9)]),
        (5, [(8, 9)], [(1, 5)]),  # a gap above the watermark
    ],
)
def test_committed_ranges__are_the_watermark_without_its_gaps(
    seq: int, gaps: list[tuple[int, int]], ranges: list[tuple[int, int]]
) -> None:
    assert committed_ranges(Ack("b", seq, gaps)) == ranges


def test_broker_of__is_crc32_modulo_the_ordered_list() -> None:
    brokers = tuple(MqttBroker("127.0.0.1", port, tls=False) for port in (1, 2, 3))
    assert broker_of("123456789", brokers) == brokers[0xCBF43926 % 3]  # CRC-32's check value
    assert {broker_of(f"courier-{n}", brokers).port for n in range(30)} == {1, 2, 3}
    assert broker_of("anna", brokers[:1]) == brokers[0]


async def test_ack__older_than_one_before__gives_nothing_up(journal: Journal) -> None:
    device = Device(LOGIN, journal)
    connection = await connect(device)
    report(device, journal, 9)
    connection.ack(device.boot, 9)
    sent = connection.seqs()
    for _ in range(3):
        connection.ack(device.boot, 7, [[2, 5]])
        connection.ack(device.boot, 9, [[3, 3]])
    assert connection.seqs() == sent
    assert device.given_up == 0


async def test_full_journal__is_told_in_the_status_and_closed_as_void(tmp_path: Path) -> None:
    with Journal(tmp_path / "full.sqlite", max_fixes=4) as journal:
        device = Device(LOGIN, journal)
        for _ in range(700):
            device.write(FIX)
        connection = await connect(device)
        assert connection.sent[0][2]["given_up"] == device.given_up == 696
        assert connection.seqs() == [697, 698, 699, 700]
        connection.ack(device.boot, 700, [[1, 696]])
        voids = connection.positions()[1:]
        assert [len(one) for one in voids] == [256, 256, 184]  # not 696 messages
        assert all(fix["void"] for one in voids for fix in one)
        assert device.pending == 0
        report(device, journal, 6)  # nobody acknowledges: two are given up
        device._say_given_up(connection, time.monotonic() + 31)  # type: ignore[arg-type]
        assert (connection.sent[-1][1], connection.sent[-1][2]["given_up"]) == ("status", 698)


async def test_ack__above_all_that_was_written__means_an_old_copy_and_a_new_boot(
    journal: Journal,
) -> None:
    first = Device(LOGIN, journal)
    report(first, journal, 5)
    device = Device(LOGIN, journal)  # the journal was put back: the platform knows up to 90
    connection = await connect(device)
    journal.append([(device._life.life_id, 6, b'{"boot": "x", "seq": 6, "number": 6}')])
    device._last_seq = 6
    connection.ack(first.boot, 90, [[3, 3]])
    assert device.boot != first.boot
    kept = journal.pending_after(device._life.life_id, 0, 99)
    assert [json.loads(payload).get("number") for _, payload in kept] == [None, 6]  # 3 and 6
    assert [seq for seq, _ in kept] == [1, 2]
    connection.puback_all()
    newest = connection.positions()[-1]
    assert [one["boot"] for one in newest] == [device.boot] * 2
    connection.ack(first.boot, 90)  # of the boot it has left
    assert device.pending == 2


async def test_command__report__thins_what_is_observed(journal: Journal) -> None:
    device = Device(LOGIN, journal)
    connection = await connect(device)
    topic = "doorstep/v1/drivers/anna/command"
    connection._on_message(
        topic, b'{"command": "report", "mode": "distance", "heartbeat_s": 20, "keep_every_s": 10}'
    )
    for second in range(0, 61, 4):
        assert device.observe(FIX | {"fix_at": FIX["fix_at"] + second * 1000}) in (0, 1, 2)
        journal.commit()
        device.pump()
    fix_ats = [fix["fix_at"] for fix in as_list(connection.positions())]
    assert [(at - FIX["fix_at"]) / 1000 for at in fix_ats] == [0, 12, 20, 32, 40, 52, 60]
    connection._on_message(topic, b'{"command": "report", "mode": "sometimes"}')  # stays as it was
    assert device.reporter.report.mode == "distance"


async def test_batch__fixes_wait_for_others_and_go_out_in_one_message(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device(LOGIN, journal)
    connection = await connect(device)
    device.reporter.follow(SamplingPolicy(batch_s=20))
    began = time.monotonic()
    for second in range(0, 60, 4):
        monkeypatch.setattr(time, "monotonic", lambda now=began + second: now)
        device.observe(FIX | {"fix_at": FIX["fix_at"] + second * 1000})
        journal.commit()
        device.pump()
        connection.puback_all()
    assert [len(one) for one in connection.positions()] == [6, 6]
    assert device.unsent


def as_list(positions: list[Any]) -> list[Any]:
    batches = [one if isinstance(one, list) else [one] for one in positions]
    return [fix for batch in batches for fix in batch]
