"""A driver who leaves: `./run drivers` against the whole stack, at both doors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
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


def lets_in(stack: Stack, generation: int) -> bool:
    password = mqtt_password(stack.paths.fleet_key(), LEAVER, generation)
    return probes.mqtt_accepts(stack.addresses.mqtt[0], LEAVER, password)


def api_status(stack: Stack, generation: int) -> int:
    """GET the driver's own state with the token of a generation."""
    token = driver_token(stack.paths.fleet_key(), LEAVER, generation)
    request = urllib.request.Request(
        f"{stack.addresses.driver_api_url}/drivers/{LEAVER}",
        headers={"Authorization": f"Bearer {token}"},
    )
    try:
        with urllib.request.urlopen(request) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        return refused.code


def test_drivers_remove__while_connected__old_secrets_end_and_stay_dead(stack: Stack) -> None:
    stack.add_drivers([LEAVER])
    device = Device(stack, LEAVER)
    device.client.reconnect_delay_set(600, 600)
    wait_until(device.connected.is_set)
    assert api_status(stack, 0) == 200

    assert run(stack, "drivers", "remove", LEAVER).returncode == 0

    wait_until(lambda: not device.client.is_connected(), 30)
    wait_until(lambda: api_status(stack, 0) == 401, 30)
    device.close()
    assert LEAVER not in run(stack, "drivers").stdout.split()

    sent = run(stack, "send", "--driver", LEAVER, "--lat", "43.77", "--lon", "11.25")
    assert sent.returncode == 1
    assert f"./run drivers add {LEAVER}" in sent.stderr

    for name in ("mosquitto-1", "broker_sync"):
        stack.stop_process(name)
        stack.start_process(name)
    stack.wait_ready()
    assert not lets_in(stack, 0)

    assert run(stack, "drivers", "add", LEAVER).returncode == 0
    assert lets_in(stack, 1)
    assert api_status(stack, 1) == 200
    assert not lets_in(stack, 0)
    assert api_status(stack, 0) == 401
    printed = run(stack, "drivers", "password", LEAVER).stdout.strip()
    assert printed == mqtt_password(stack.paths.fleet_key(), LEAVER, 1)


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
