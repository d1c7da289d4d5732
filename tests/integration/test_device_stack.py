"""The reference device with a whole stack: commands, a day offline, a full journal."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import httpx
import pytest

from device.device import Device, make_login
from device.device_session import DeviceSession, open_device_session
from device.journal import Journal, read_published
from device.settings import DeviceSettings, FleetSecrets
from doorstep.provision import owner_connection
from doorstep.sampling import SamplingPolicy
from ops.ledger import Balance, compare
from ops.servers.waiting import wait_until_async
from ops.stack.stack import Stack

SOON_S = 120.0
HERE = {"lat_deg": 43.7731, "lon_deg": 11.2560, "accuracy_m": 5.0}


@pytest.fixture
def device_settings(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> DeviceSettings:
    """Device settings for the stack, with a journal folder of their own."""
    for name, value in stack.client_environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("JOURNAL_DIR", str(tmp_path))
    return DeviceSettings.load()


def balance_of(stack: Stack, path: Path) -> Balance:
    with owner_connection(stack.database_admin_url) as conn:
        ledger = compare(conn, read_published(path))
    assert ledger.agrees, ledger.complaints()
    (one,) = ledger.balances
    return one


async def test_sampling_policy__set_by_staff__reaches_connected_and_later_devices(
    stack: Stack, device_settings: DeviceSettings
) -> None:
    stack.add_drivers(["thrifty", "sleepy"])
    staff = {"Authorization": f"Bearer {FleetSecrets(device_settings).staff_token()}"}
    wanted = {"mode": "dead_reckoning", "off_by_m": 40, "heartbeat_s": 20, "batch_s": 10}
    policy = SamplingPolicy(mode="dead_reckoning", off_by_m=40, heartbeat_s=20, batch_s=10)
    async with httpx.AsyncClient(base_url=device_settings.tracking_api_url, headers=staff) as api:
        for driver_id in ("thrifty", "sleepy"):
            path = f"/drivers/{driver_id}/reporting"
            before = (await api.get(path)).json()
            assert (before["mode"], before["set_at"]) == ("all", None)
            if driver_id == "sleepy":  # not connected
                assert (await api.put(path, json=wanted)).status_code == 200
            async with open_device_session(driver_id, device_settings) as session:
                await session.wait_connected(SOON_S)
                if driver_id == "thrifty":
                    assert _sent(session, 10) == 10
                    assert (await api.put(path, json=wanted)).status_code == 200
                await wait_until_async(
                    lambda p=session: p.device.sampler.policy == policy, SOON_S, driver_id
                )
                assert _sent(session, 10) < 10
            deadline = time.monotonic() + SOON_S
            while not (after := (await api.get(path)).json())["delivered"]:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.1)
            assert {name: after[name] for name in wanted} == wanted
        refused = await api.put(path, json=wanted | {"heartbeat_s": 31})
        assert (refused.status_code, refused.headers["content-type"]) == (
            422,
            "application/problem+json",
        )
        assert (await api.put("/drivers/unknown-driver/reporting", json=wanted)).status_code == 404
        driver = {
            "Authorization": f"Bearer {FleetSecrets(device_settings).driver_token('thrifty')}"
        }
        path = "/drivers/thrifty/reporting"
        assert (await api.put(path, json=wanted, headers=driver)).status_code == 403


def _sent(session: DeviceSession, count: int) -> int:
    """Observe `count` fixes at one position within a second, and count those written."""
    before, now_ms = session.device.last_seq, time.time() * 1000
    for number in range(count):
        session.observe({"fix_at": round(now_ms - 1000 + 100 * number), **HERE})
    return session.device.last_seq - before


async def test_device__back_after_a_day__younger_fixes_are_stored_and_none_is_pending(
    stack: Stack, device_settings: DeviceSettings, tmp_path: Path
) -> None:
    stack.add_drivers(["rip"])
    now_ms = round(time.time() * 1000)
    hours = [30, 27, 25, 24.2, 23.5, 20, 10, 1, 0]
    path = tmp_path / "device-rip.sqlite"
    with Journal(path) as journal:
        device = Device(make_login("rip", device_settings, FleetSecrets(device_settings)), journal)
        for hour in hours:
            device.write({"fix_at": now_ms - round(hour * 3_600_000), **HERE})
    async with open_device_session("rip", device_settings) as session:
        await wait_until_async(
            lambda: session.device.pending == 0, SOON_S, "the watermark covers all"
        )
    account = balance_of(stack, path)
    assert (account.committed, account.rejected) == (5, 4)


async def test_device__full_journal__the_oldest_are_voids_in_the_ledger(
    stack: Stack, device_settings: DeviceSettings, tmp_path: Path
) -> None:
    stack.add_drivers(["full"])
    path = tmp_path / "device-full.sqlite"
    with Journal(path, max_fixes=100) as journal:
        device = Device(make_login("full", device_settings, FleetSecrets(device_settings)), journal)
        for number in range(900):
            fix = {"fix_at": round(time.time() * 1000) - 900_000 + 1000 * number, **HERE}
            device.write(fix)
    async with open_device_session("full", device_settings) as session:
        await wait_until_async(lambda: session.device.pending == 0, SOON_S, "the rest is committed")
        await wait_until_async(lambda: not session.device.unsent, SOON_S, "the voids are sent")
        assert session.device.given_up == 800

        def closed() -> bool:
            with owner_connection(stack.database_admin_url) as conn:
                return not compare(conn, read_published(path)).lost

        await wait_until_async(closed, SOON_S, "all 900 are stored or void")
    account = balance_of(stack, path)
    assert (account.committed, account.rejected, account.voids) == (100, 800, 800)
