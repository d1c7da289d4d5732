"""`./run rotate-secrets` while a device publishes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from device.journal import read_published
from doorstep.provision import owner_connection
from ops.ledger import compare
from ops.servers.waiting import wait_until
from ops.stack import probes
from ops.stack.paths import DATABASE_ROLES
from ops.stack.processes import database_url
from ops.stack.stack import Stack

PROJECT = Path(__file__).resolve().parents[2]
TRACK = PROJECT / "simulators/tracks/delivery.gpx"
DRIVER_ID = "rotator"


def secret_files(stack: Stack) -> dict[str, str]:
    """The secrets of services by file name."""
    folders = ("database", "kafka", "mqtt")
    files = [file for name in folders for file in (stack.paths.secrets / name).iterdir()]
    files.append(stack.paths.driver_api_token_file)
    return {str(file): file.read_text() for file in files}


def test_rotate_secrets__while_a_device_publishes__loses_no_fix_and_ends_every_old_password(
    stack: Stack,
) -> None:
    environment = os.environ | {"DOORSTEP_HOME": str(stack.paths.root)}
    ops = [sys.executable, "-m", "ops"]
    before = secret_files(stack)
    old_urls = {role: database_url(stack.paths, stack.addresses, role) for role in DATABASE_ROLES}
    old_mqtt = stack.paths.mqtt_passwords()
    postgres_pid = stack.pid_of("postgres")
    replay = subprocess.Popen(
        [*ops, "replay", str(TRACK), "--driver", DRIVER_ID, "--speedup", "20"],
        env=environment,
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        text=True,
    )
    journal = stack.paths.journals / f"device-{DRIVER_ID}.sqlite"
    wait_until(lambda: journal.exists() and any(read_published(journal)), 60)

    rotated = subprocess.run(
        [*ops, "rotate-secrets"], env=environment, cwd=PROJECT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip

    assert rotated.returncode == 0, rotated.stderr
    assert replay.poll() is None, "the device ended before the rotation did"
    output, _ = replay.communicate(timeout=300)
    assert replay.returncode == 0, output
    with owner_connection(stack.database_admin_url) as conn:
        ledger = compare(conn, read_published(journal))
    assert ledger.agrees, ledger.complaints()
    assert ledger.committed == 260
    after = secret_files(stack)
    assert before.keys() == after.keys()
    assert not [name for name in before if before[name] == after[name]]
    for url in old_urls.values():
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(url).close()
    for service, password in old_mqtt.items():
        assert not probes.mqtt_accepts(stack.addresses.mqtt[0], service, password)
    assert stack.pid_of("postgres") == postgres_pid
