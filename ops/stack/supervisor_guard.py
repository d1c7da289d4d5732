"""The keeper: brings supervisord back if it is killed, and ends the stack with its owner.

It is a part of supervisord that outlives it. supervisord in turn restarts the keeper.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from ops.stack.paths import StackError, StackPaths, process_runs
from ops.stack.supervisor import Supervisor

EVERY_S = 0.5


def main() -> int:
    """Watch until supervisord or the owner is gone."""
    parser = argparse.ArgumentParser(prog="ops.stack.supervisor_guard", description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--owner", type=int, help="stop the stack when this process is gone")
    options = parser.parse_args()
    paths = StackPaths(options.home)
    supervisor = Supervisor(paths)
    parent = os.getppid()
    while os.getppid() == parent and _is_supervisord(parent):
        if options.owner is not None and not process_runs(options.owner):
            _log(paths, f"process {options.owner}, which started the stack, is gone")
            supervisor.stop()
            return 0
        time.sleep(EVERY_S)
    _log(paths, f"supervisord (pid {parent}) is gone; starting it again")
    while supervisor.pid() is None:
        try:
            supervisor.start(os.environ)
        except StackError as exc:
            _log(paths, str(exc))
            time.sleep(1)
    return 0


def _is_supervisord(pid: int) -> bool:
    """Tell supervisord from whoever adopted us, should it be killed while we start."""
    try:
        return b"ops.stack.supervisor" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _log(paths: StackPaths, line: str) -> None:
    """Write to a file of its own: supervisord's pipe may be gone."""
    with (paths.logs / "keeper.log").open("a", encoding="utf-8") as file:
        file.write(f"{datetime.now(UTC).isoformat(timespec='milliseconds')} {line}\n")


if __name__ == "__main__":
    sys.exit(main())
