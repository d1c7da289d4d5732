"""The reference device: order, messages in flight, resends, voids.

`FakeConnection` replaces the broker and sends nothing by itself. tests/integration/test_device.py
runs the device against a real Mosquitto.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from device import device as device_module
from device.connection import Login
from device.device import Device
from device.journal import Journal, read_published
from device.outbox import MAX_ARRAY_BYTES, MAX_ARRAY_FIXES, join_payloads
from device.retransmission import Ack, committed_spans
from device.settings import broker_of
from device.timeouts import MAX_IN_FLIGHT
from doorstep.sampling import SamplingPolicy
from doorstep.settings import MqttBroker
from tests.unit.device.fake_connection import FakeConnection

LOGIN = Login(MqttBroker("127.0.0.1", 1, tls=False), "anna", "secret", "will")
FIX: dict[str, Any] = {"fix_at": 1_700_000_000_000, "lat_deg": 43.77, "lon_deg": 11.25}


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


async def test_pump__single_fixes__are_sent_in_order(journal: Journal) -> None:
    device = Device(LOGIN, journal)
    connection = await connect(device)
    report(device, journal, 5)
    assert connection.seqs() == [1, 2, 3, 4, 5]
    assert connection.positions()[0] == {"boot": device.boot, "seq": 1, **FIX}


async def test_pump__no_puback__stops_at_the_limit_in_flight(journal: Journal) -> None:
    device = Device(LOGIN, journal)
    connection = await connect(device)
    report(device, journal, MAX_IN_FLIGHT + 10)
    assert len(connection.positions()) == MAX_IN_FLIGHT
    connection.puback_all()
    assert connection.seqs() == list(range(1, MAX_IN_FLIGHT + 11))


async def test_connect__after_an_outage__sends_all_pending_in_order_as_arrays(
    journal: Journal,
) -> None:
    device = Device(LOGIN, journal)
    report(device, journal, 600)
    connection = await connect(device)
    assert connection.seqs() == list(range(1, 601))
    sizes = [len(one) for one in connection.positions()]
    assert sizes == [MAX_ARRAY_FIXES, MAX_ARRAY_FIXES, 600 - 2 * MAX_ARRAY_FIXES]


async def test_connect__puback_but_no_ack__sends_pending_again(journal: Journal) -> None:
    device = Device(LOGIN, journal)
    first = await connect(device)
    report(device, journal, 3)
    first.puback_all()
    assert (await connect(device)).seqs() == [1, 2, 3]


async def test_connect__a_new_process_with_the_same_journal__continues_its_seqs(
    journal: Journal,
) -> None:
    report(Device(LOGIN, journal), journal, 3)
    device = Device(LOGIN, journal)
    connection = await connect(device)
    report(device, journal)
    assert connection.seqs() == [1, 2, 3, 4]


async def test_connect__accepted__publishes_online_and_has_an_offline_will(
    journal: Journal,
) -> None:
    connection = await connect(Device(LOGIN, journal))
    _, leaf, status = connection.sent[0]
    assert (leaf, status["status"]) == ("status", "online")
    assert json.loads(connection.will)["status"] == "offline"


async def test_ack__covered_fixes__leave_the_journal(journal: Journal) -> None:
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


async def test_ack__missing_fixes__are_resent(journal: Journal) -> None:
    device = Device(LOGIN, journal)
    connection = await connect(device)
    report(device, journal, 9)
    connection.ack(device.boot, 9, [[3, 4], [7, 7]])
    assert connection.seqs()[9:] == [3, 4, 7]
    assert device.pending == 3


async def test_ack__repeated_before_newer_fixes__resends_nothing(journal: Journal) -> None:
    device = Device(LOGIN, journal)
    connection = await connect(device)
    report(device, journal, 9)
    connection.ack(device.boot, 9, [[3, 3]])
    connection.ack(device.boot, 9, [[3, 3]])
    assert connection.seqs()[9:] == [3]


async def test_ack__repeated_for_three_periods__resends_and_never_voids(
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


async def test_ack__resent_three_times_in_vain__closes_it_as_void(
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
    connection.ack(device.boot, 3)  # all three are committed and deleted …
    connection.ack(device.boot, 3, [[2, 2]])  # … by a database that was restored since
    report(device, journal)
    connection.ack(device.boot, 4, [[2, 2]])  # a second, later ack confirms it
    assert connection.positions()[-1] == {"boot": device.boot, "seq": 2, "void": True}


async def test_ack__missing_fixes_that_were_never_sent__are_not_resent(journal: Journal) -> None:
    device = Device(LOGIN, journal)
    connection = await connect(device)
    report(device, journal, 2)
    connection.puback_all()
    report(device, journal, 40)
    sent = connection.seqs()
    connection.ack(device.boot, 42, [[len(sent) + 1, 42]])
    assert connection.seqs() == sent


async def test_ack_timeout__three_periods_with_pending_fixes__sends_them_again(
    journal: Journal,
) -> None:
    device = Device(LOGIN, journal, ack_every_s=30)
    connection = await connect(device)
    report(device, journal, 2)
    connection.puback_all()
    now = time.monotonic()
    device._check_timeouts(connection, now + 89)  # type: ignore[arg-type]
    assert connection.seqs() == [1, 2]
    device._check_timeouts(connection, now + 91)  # type: ignore[arg-type]
    assert connection.seqs() == [1, 2, 1, 2]


async def test_ack_timeout__no_ack_at_all__only_asks_with_the_ends_and_six_between(
    journal: Journal,
) -> None:
    device = Device(LOGIN, journal, ack_every_s=30)
    connection = await connect(device)
    for _ in range(30):
        report(device, journal, 10)
        connection.puback_all()
    now = time.monotonic()
    device._check_timeouts(connection, now + 91)  # type: ignore[arg-type]
    asked = connection.seqs()[300:]
    assert (asked[0], asked[-1]) == (1, 300)
    assert len(asked) <= 8
    connection.puback_all()
    device._check_timeouts(connection, now + 91 + 181)  # type: ignore[arg-type]
    again = connection.seqs()[300 + len(asked) :]
    assert (again[0], again[-1]) == (1, 300)
    assert set(again) & set(asked) != set(asked)  # others between


async def test_ack_timeout__the_answer_names_gaps__they_are_sent_again(journal: Journal) -> None:
    device = Device(LOGIN, journal, ack_every_s=30)
    connection = await connect(device)
    for _ in range(30):
        report(device, journal, 10)
        connection.puback_all()
    device._check_timeouts(connection, time.monotonic() + 91)  # type: ignore[arg-type]
    connection.puback_all()
    sent = len(connection.seqs())
    connection.ack(device.boot, 300, [[2, 299]])
    connection.puback_all()
    assert set(range(2, 300)) <= set(connection.seqs()[sent:])


async def test_ack_timeout__acks_that_leave_fixes_uncovered__sends_all_again(
    journal: Journal,
) -> None:
    device = Device(LOGIN, journal, ack_every_s=30)
    connection = await connect(device)
    report(device, journal, 12)
    connection.puback_all()
    connection.ack(device.boot, 1)
    connection.ack(device.boot, 1)  # without news
    device._check_timeouts(connection, time.monotonic() + 91)  # type: ignore[arg-type]
    assert connection.seqs()[12:] == list(range(2, 13))


async def test_ack_timeout__repeated__doubles_each_time(journal: Journal) -> None:
    device = Device(LOGIN, journal, ack_every_s=30)
    connection = await connect(device)
    report(device, journal)
    connection.puback_all()
    began = time.monotonic()
    for second in range(0, 1000, 10):
        device._check_timeouts(connection, began + second)  # type: ignore[arg-type]
        connection.puback_all()
    # after 90 s, then 180, 360, 720
    assert len(connection.seqs()) == 1 + 3


async def test_ack_timeout__nothing_pending__sends_nothing(journal: Journal) -> None:
    device = Device(LOGIN, journal, ack_every_s=30)
    connection = await connect(device)
    report(device, journal, 2)
    connection.puback_all()
    connection.ack(device.boot, 2)
    device._check_timeouts(connection, time.monotonic() + 1000)  # type: ignore[arg-type]
    assert connection.seqs() == [1, 2]


async def test_puback__overdue__closes_the_connection(journal: Journal) -> None:
    device = Device(LOGIN, journal)
    connection = await connect(device)
    report(device, journal)
    device._check_timeouts(connection, time.monotonic() + 21)  # type: ignore[arg-type]
    assert connection.lost.is_set()


def test_join_fixes__large_fixes__stay_within_the_message_size() -> None:
    rows = [(seq, b"x" * 1000) for seq in range(1, MAX_ARRAY_FIXES + 1)]
    message, taken = join_payloads(rows)
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
def test_committed_spans__gaps__are_excluded(
    seq: int, gaps: list[tuple[int, int]], ranges: list[tuple[int, int]]
) -> None:
    assert committed_spans(Ack("b", seq, gaps)) == ranges


def test_broker_of__several_brokers__is_crc32_modulo_the_list() -> None:
    brokers = tuple(MqttBroker("127.0.0.1", port, tls=False) for port in (1, 2, 3))
    assert broker_of("123456789", brokers) == brokers[0xCBF43926 % 3]  # CRC-32's check value
    assert {broker_of(f"courier-{n}", brokers).port for n in range(30)} == {1, 2, 3}
    assert broker_of("anna", brokers[:1]) == brokers[0]


async def test_ack__older_than_the_last__gives_nothing_up(journal: Journal) -> None:
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


async def test_full_journal__given_up_fixes__are_in_the_status_and_closed_as_void(
    tmp_path: Path,
) -> None:
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
        report(device, journal, 6)  # no ack: two are given up
        device._report_given_up(connection, time.monotonic() + 31)  # type: ignore[arg-type]
        assert (connection.sent[-1][1], connection.sent[-1][2]["given_up"]) == ("status", 698)


async def test_ack__above_the_newest_seq__begins_a_new_boot(
    journal: Journal,
) -> None:
    first = Device(LOGIN, journal)
    report(first, journal, 5)
    device = Device(LOGIN, journal)  # a restored journal: the platform has seqs up to 90
    connection = await connect(device)
    journal.append([(device._outbox.boot.boot_id, 6, b'{"boot": "x", "seq": 6, "number": 6}')])
    device._outbox.last_seq = 6
    connection.ack(first.boot, 90, [[3, 3]])
    assert device.boot != first.boot
    kept = journal.pending_after(device._outbox.boot.boot_id, 0, 99)
    assert [json.loads(payload).get("number") for _, payload in kept] == [None, 6]  # 3 and 6
    assert [seq for seq, _ in kept] == [1, 2]
    connection.puback_all()
    newest = connection.positions()[-1]
    assert [one["boot"] for one in newest] == [device.boot] * 2
    connection.ack(first.boot, 90)  # of the old boot
    assert device.pending == 2


async def test_command__report__sets_the_sampling_policy(journal: Journal) -> None:
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
    connection._on_message(topic, b'{"command": "report", "mode": "sometimes"}')  # ignored
    assert device.sampler.policy.mode == "distance"


async def test_batch__fixes_wait_for_others_and_go_out_in_one_message(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device(LOGIN, journal)
    connection = await connect(device)
    device.sampler.policy = SamplingPolicy(batch_s=20)
    began = time.monotonic()
    for second in range(0, 60, 4):
        monkeypatch.setattr(time, "monotonic", lambda now=began + second: now)
        device.observe(FIX | {"fix_at": FIX["fix_at"] + second * 1000})
        journal.commit()
        device.pump()
        connection.puback_all()
    assert [len(one) for one in connection.positions()] == [6, 6]
    assert device.unsent


async def test_flush__batch_that_waits__is_sent_and_the_next_fix_begins_another(
    journal: Journal,
) -> None:
    device = Device(LOGIN, journal)
    connection = await connect(device)
    device.sampler.policy = SamplingPolicy(batch_s=20)
    report(device, journal, 3)
    before = connection.seqs()
    device.flush()
    flushed = connection.seqs()
    report(device, journal, 1)
    assert (before, flushed, connection.seqs()) == ([], [1, 2, 3], [1, 2, 3])


def as_list(positions: list[Any]) -> list[Any]:
    batches = [one if isinstance(one, list) else [one] for one in positions]
    return [fix for batch in batches for fix in batch]
