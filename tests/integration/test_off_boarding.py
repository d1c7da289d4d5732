"""A driver who leaves: `./run drivers` against the whole stack, at both doors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

from doorstep.credentials import driver_token, mqtt_password
from ops.servers.waiting import wait_until
from ops.stack import probes
from ops.stack.stack import Stack
from tests.integration.devices import Device

LEAVER = "leaver"


def run(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ops", *arguments],
        env=os.environ | {"DOORSTEP_HOME": str(stack.paths.root)},
        capture_output=True,
        text=True,
        check=False,
    )


def lets_in(stack: Stack, password: str) -> bool:
    return probes.mqtt_accepts(stack.addresses.mqtt[0], LEAVER, password)


def status_of(request: urllib.request.Request) -> int:
    try:
        with urllib.request.urlopen(request) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        return refused.code


def patch_status(stack: Stack, token: str, driver_id: str = LEAVER) -> int:
    """PATCH a fix of a driver with a driver's token."""
    fix = {"fix_at": int(time.time() * 1000), "lat_deg": 43.77, "lon_deg": 11.25}
    return status_of(
        urllib.request.Request(
            f"{stack.addresses.driver_api_url}/drivers/{driver_id}/location",
            data=json.dumps(fix).encode(),
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
            method="PATCH",
        )
    )


class FleetStream:
    """The fleet's stream, read in a thread: which drivers it shows, and whether it has ended."""

    def __init__(self, stack: Stack, headers: dict[str, str]) -> None:
        self.drivers: set[str] = set()
        self.has_ended = False
        request = urllib.request.Request(
            f"{stack.addresses.tracking_api_url}/fleet/stream", headers=headers
        )
        self._answer = urllib.request.urlopen(request)
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def close(self) -> None:
        """Wait for the end of a stream that the server ends."""
        self._thread.join()
        self._answer.close()

    def _read(self) -> None:
        for line in self._answer:
            if line.startswith(b"event: end"):
                self.has_ended = True
            elif line.startswith(b"data: {"):
                body = json.loads(line[6:])
                self.drivers |= {row[0] for row in body.get("drivers", ())}
                self.drivers -= set(body.get("gone", ()))


def test_drivers_remove__while_connected__old_secrets_end_and_stay_dead(stack: Stack) -> None:
    key = stack.paths.fleet_key()
    password, token = mqtt_password(key, LEAVER), driver_token(key, LEAVER)
    watcher = run(stack, "staff", "add", "watcher", "--role", "viewer").stdout.strip()
    stack.add_drivers([LEAVER])
    device = Device(stack, LEAVER)
    device.client.reconnect_delay_set(600, 600)
    wait_until(device.connected.is_set)
    assert patch_status(stack, token) == 200
    stream = FleetStream(stack, {"Authorization": f"Bearer {watcher}"})
    wait_until(lambda: LEAVER in stream.drivers, 30)

    assert run(stack, "drivers", "remove", LEAVER).returncode == 0

    wait_until(lambda: not device.client.is_connected(), 30)
    wait_until(lambda: patch_status(stack, token) == 401, 30)
    wait_until(lambda: LEAVER not in stream.drivers, 30)
    device.close()
    assert LEAVER not in run(stack, "drivers").stdout.split()

    sent = run(stack, "send", "--driver", LEAVER, "--lat", "43.77", "--lon", "11.25")
    assert sent.returncode == 1
    assert f"./run drivers add {LEAVER}" in sent.stderr

    for name in ("mosquitto-1", "broker_sync", "driver_api"):
        stack.stop_process(name)
        stack.start_process(name)
    stack.wait_ready()
    assert not lets_in(stack, password)
    assert patch_status(stack, token) == 401

    assert run(stack, "drivers", "add", LEAVER).returncode == 0
    new_password = run(stack, "drivers", "password", LEAVER).stdout.strip()
    new_token = run(stack, "drivers", "token", LEAVER).stdout.strip()
    assert lets_in(stack, new_password)
    assert patch_status(stack, new_token) == 200
    assert not lets_in(stack, password)
    assert patch_status(stack, token) == 401
    sent = run(stack, "send", "--driver", LEAVER, "--lat", "43.77", "--lon", "11.25")
    assert sent.returncode == 0, sent.stderr

    assert run(stack, "staff", "revoke", "watcher").returncode == 0
    stream.close()
    assert stream.has_ended


def test_session__of_staff_who_is_revoked__ends_with_its_streams(stack: Stack) -> None:
    token = run(stack, "staff", "add", "sara", "--role", "viewer").stdout.strip()
    url = stack.addresses.tracking_api_url
    request = urllib.request.Request(
        f"{url}/session",
        data=json.dumps({"token": token}).encode(),
        headers={"Content-Type": "application/json", "Origin": url},
    )
    with urllib.request.urlopen(request) as answer:
        cookie = {"Cookie": answer.headers["Set-Cookie"].partition(";")[0]}
    orders = urllib.request.Request(f"{url}/orders", headers=cookie)
    assert status_of(orders) == 200
    stream = FleetStream(stack, cookie)

    assert run(stack, "staff", "revoke", "sara").returncode == 0

    wait_until(lambda: status_of(orders) == 401, 30)
    stream.close()
    assert stream.has_ended


def orders_status(stack: Stack, token: str) -> int:
    """GET the orders with a staff token."""
    request = urllib.request.Request(
        f"{stack.addresses.tracking_api_url}/orders", headers={"Authorization": f"Bearer {token}"}
    )
    try:
        with urllib.request.urlopen(request) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        return refused.code


def test_staff_command__add_rotate_revoke__ends_each_old_token_and_is_audited(
    stack: Stack,
) -> None:
    first = run(stack, "staff", "add", "nina", "--role", "viewer").stdout.strip()
    assert orders_status(stack, first) == 200
    second = run(stack, "staff", "rotate", "nina", "--days", "1").stdout.strip()
    wait_until(lambda: orders_status(stack, first) == 401, 30)
    assert orders_status(stack, second) == 200

    assert run(stack, "staff", "revoke", "nina").returncode == 0
    wait_until(lambda: orders_status(stack, second) == 401, 30)
    assert "nina viewer revoked" in run(stack, "staff").stdout

    stated = run(stack, "audit", "--json").stdout.splitlines()
    actions = [one["action"] for one in map(json.loads, stated) if one["subject"] == "nina"]
    assert actions == ["staff.add", "staff.rotate", "staff.revoke"]
    assert run(stack, "audit", "--since", "yesterday").returncode == 2


def test_drivers_token__of_several__is_each_one_of_the_driver_named(stack: Stack) -> None:
    names = ["token-anna", "token-bruno"]
    stack.add_drivers(names)
    assert run(stack, "drivers", "rotate", "token-bruno").returncode == 0
    printed = run(stack, "drivers", "token", *names).stdout
    tokens = dict(line.split() for line in printed.splitlines())
    assert list(tokens) == names
    statuses = {
        (holder, name): patch_status(stack, token, name)
        for holder, token in tokens.items()
        for name in names
    }
    assert statuses == {
        (holder, name): 200 if holder == name else 403 for holder in names for name in names
    }
    refused = run(stack, "drivers", "token", "token-anne")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "no driver is named token-anne (perhaps token-anna" in refused.stderr
