"""The supervisor guard: restarts supervisord if it is killed, and stops the stack with its owner.

It also renews the certificate of a stack with TLS.

It is a child of supervisord that outlives it. supervisord restarts the guard if that is killed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from ops.stack import tls
from ops.stack.addresses import Addresses
from ops.stack.errors import StackError
from ops.stack.paths import StackPaths
from ops.stack.pids import process_exists
from ops.stack.supervisor import Supervisor

POLL_S = 0.5
RETRY_S = 1.0
RENEWAL_POLL_S = 60.0  # a given certificate may be replaced at any time


def main() -> int:
    """Watch until supervisord or the owner ends."""
    parser = argparse.ArgumentParser(prog="ops.stack.supervisor_guard", description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--owner", type=int, help="stop the stack when this process ends")
    options = parser.parse_args()
    paths = StackPaths(options.home)
    supervisor = Supervisor(paths)
    parent = os.getppid()
    renew_at = time.monotonic() + RENEWAL_POLL_S
    while os.getppid() == parent and _is_supervisord(parent):
        if options.owner is not None and not process_exists(options.owner):
            _log(paths, f"process {options.owner}, which started the stack, has ended: stopping it")
            supervisor.stop()
            return 0
        if time.monotonic() >= renew_at:
            renew_at = time.monotonic() + RENEWAL_POLL_S
            _renew(paths, supervisor)
        time.sleep(POLL_S)
    _log(paths, f"supervisord (pid {parent}) has ended: starting it again")
    while supervisor.pid() is None:
        try:
            supervisor.start(os.environ)
        except StackError as exc:
            _log(paths, str(exc))
            time.sleep(RETRY_S)
    return 0


def _renew(paths: StackPaths, supervisor: Supervisor) -> None:
    try:
        addresses = Addresses.load(paths.addresses_file)
        if addresses is not None and tls.renew(paths, addresses, supervisor):
            _log(paths, "renewed the certificate")
    except (OSError, StackError) as exc:
        _log(paths, f"cannot renew the certificate: {exc}")


def _is_supervisord(pid: int) -> bool:
    """Tell supervisord from the process that adopts this one if supervisord is killed early."""
    try:
        return b"ops.stack.supervisor" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _log(paths: StackPaths, line: str) -> None:
    """Write to a file: supervisord's pipe may be closed."""
    with (paths.logs / "supervisor_guard.log").open("a", encoding="utf-8") as file:
        file.write(f"{datetime.now(UTC).isoformat(timespec='milliseconds')} {line}\n")


if __name__ == "__main__":
    sys.exit(main())
