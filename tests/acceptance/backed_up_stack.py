"""Commands on a stack with backups, and the devices that publish to it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from device.journal import PublishedBoot, read_published
from doorstep.provision import owner_connection
from ops.api_client import request_json
from ops.ledger import Ledger, compare
from ops.servers.waiting import wait_until
from ops.stack.stack import Stack

PROJECT = Path(__file__).resolve().parents[2]
TRACK = PROJECT / "simulators/tracks/delivery.gpx"
TRACK_FIXES = 260
DESTINATION = {"lon_deg": 11.26, "lat_deg": 43.78}


def environment_of(stack: Stack) -> dict[str, str]:
    return os.environ | {"DOORSTEP_HOME": str(stack.paths.root), "BACKUP_PORT": "0"}


def run(stack: Stack, *arguments: str, **variables: str) -> str:
    """Run a command, and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "ops", *arguments],
        env=environment_of(stack) | variables,
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def start_replay(stack: Stack, driver_id: str, speedup: int = 20) -> subprocess.Popen[str]:
    """Start a device that publishes a track. It ends once everything is committed."""
    argv = [sys.executable, "-m", "ops", "replay", str(TRACK), "--driver", driver_id]
    return subprocess.Popen(
        [*argv, "--speedup", str(speedup)],
        env=environment_of(stack), cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip


def published(stack: Stack, driver_id: str) -> list[PublishedBoot]:
    journal = stack.paths.journals / f"device-{driver_id}.sqlite"
    return read_published(journal) if journal.exists() else []


def acknowledged(stack: Stack, driver_id: str) -> int:
    """The fixes that the device has deleted, because the watermark covered them."""
    return sum(one.last_seq - one.pending for one in published(stack, driver_id))


def ledger_of(stack: Stack, driver_id: str) -> Ledger:
    with owner_connection(stack.database_admin_url) as conn:
        return compare(conn, published(stack, driver_id))


def api(stack: Stack, path: str, method: str = "GET", body: Any = None, token: str = "") -> Any:
    return request_json(
        f"{stack.addresses.tracking_api_url}{path}",
        token or stack.paths.staff_token(),
        method,
        body,
    )


def create_order(stack: Stack) -> Any:
    with owner_connection(stack.database_admin_url) as conn:
        [restaurant_id] = conn.execute("SELECT min(restaurant_id) FROM restaurant").fetchone() or ()
    new = {"restaurant_id": restaurant_id, "destination": DESTINATION}
    return api(stack, "/orders", "POST", new)


def lose_the_database(stack: Stack) -> None:
    """Kill PostgreSQL and erase its folder, while the supervisor tries to start it again."""
    data_dir = stack.cluster().data_dir
    os.kill(stack.pid_of("postgres"), signal.SIGKILL)

    def is_gone() -> bool:
        shutil.rmtree(data_dir, ignore_errors=True)  # its children may still write
        return not data_dir.exists()

    wait_until(is_gone, 60)
