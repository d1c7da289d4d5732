"""Kafka's and PostgreSQL's disks, full to the last byte."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.faults.environment import FaultEnvironment
from tests.faults.fault import Fault, Outcome
from tests.faults.kafka import IN_PIPE_S, acked_since

FULL_S = 30.0
NOTICED_WITHIN_S = 120.0
MIB = 1024 * 1024
FREE_MIB = 300  # free space of the small disk


def disk_full(env: FaultEnvironment, part: str, data: Path, asked: str) -> Outcome:
    """Move a server's data to a small file system and fill it; ask a service for /readyz."""
    with _small_disk(env, part, data):
        began = time.monotonic()
        ballast = data / "ballast"
        status = 200
        while status != 503 and time.monotonic() - began < NOTICED_WITHIN_S:
            _fill(ballast)
            status = env.readyz(asked)
            time.sleep(0.5)
        noticed_s = time.monotonic() - began
        time.sleep(IN_PIPE_S)
        before = env.load.published()
        until = time.monotonic() + FULL_S
        while time.monotonic() < until:
            _fill(ballast)  # the server may have freed a file
            time.sleep(0.5)
        acked = acked_since(env, before)
        ballast.unlink()
        freed = time.monotonic()
        recovery_s = env.wait_healthy(timeout_s=180, since=freed)
    seen = f"/readyz {status} after {noticed_s:.0f} s, {acked} fixes acked while it was full"
    return Outcome(seen, recovery_s, ok=status == 503 and not acked)


@contextlib.contextmanager
def _small_disk(env: FaultEnvironment, part: str, data: Path) -> Iterator[None]:
    """Move a server's data to a small tmpfs, and back. Needs root."""
    aside = data.with_name("aside")
    with env.shut_down(part):
        used = sum(one.stat().st_blocks * 512 for one in data.rglob("*"))
        owner = data.stat()
        data.rename(aside)
        data.mkdir()
        options = f"size={used // MIB + FREE_MIB}m,uid={owner.st_uid},gid={owner.st_gid},mode=0700"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", data], check=True)
        subprocess.run(["cp", "-a", f"{aside}/.", data], check=True)
        subprocess.run(["rm", "-r", aside], check=True)
    try:
        env.wait_healthy(timeout_s=120)
        yield
    finally:
        (data / "ballast").unlink(missing_ok=True)
        with env.shut_down(part):
            subprocess.run(["cp", "-a", data, aside], check=True)
            subprocess.run(["umount", data], check=True)
            data.rmdir()
            aside.rename(data)
        env.wait_healthy(timeout_s=120)


def _fill(ballast: Path) -> None:
    """Fill the free space."""
    with ballast.open("ab", buffering=0) as file:
        for size in (MIB, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))


def kafka_disk_full(env: FaultEnvironment) -> Outcome:
    """Fill Kafka's disk."""
    return disk_full(env, "kafka", env.stack.paths.kafka / "data", "bridge")


def postgres_disk_full(env: FaultEnvironment) -> Outcome:
    """Fill PostgreSQL's disk: tables, write-ahead log and all."""
    return disk_full(env, "postgres", env.stack.paths.postgres / "data", "driver_events")


NOT_HERE = "" if os.geteuid() == 0 else "mounting a small file system needs root"
FAULTS = (
    Fault(
        11, "Kafka's disk full", "acks stop, /readyz 503, recovers by itself",
        None, False, kafka_disk_full, not_here=NOT_HERE,
    ),
    Fault(
        30, "PostgreSQL's disk full", "acks stop, /readyz 503, recovers by itself",
        None, False, postgres_disk_full, not_here=NOT_HERE,
    ),
)  # fmt: skip
