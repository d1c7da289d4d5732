"""How long viewers are without tracking_api after a kill -9, over the whole stack.

    python -m bench.healing [--viewers 500] [--kills 5]

Each viewer follows an order of its own with its own token, and comes back as the pages do: after
half a second, give or take half, again and again. A kill is counted from the signal: until the
port is taken again (`listening_s`), until the first and the last viewer have a new snapshot, and
the longest that anyone waited from its connection to the snapshot. Beside it stands what the
database was asked meanwhile: transactions, and its CPU seconds. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg

from doorstep.provision import owner_connection
from doorstep.store.admin import NewRestaurant, register_restaurants
from ops.stack.settings import StackSettings
from ops.stack.stack import Stack

VIEWERS_PER_PROCESS = 9_000
RESTAURANT_ID = 900_001
CALM_S = 4.0  # after a kill: supervisord calls a part started after 2 s
ANY_PORT: dict[str, Any] = {
    name: 0 for name in StackSettings.model_fields if name.endswith("_port")
}
ORDERS = """
SELECT made.order_id::text, token
FROM (SELECT 'cst_bench' || n AS token FROM generate_series(1, %s) n) t
CROSS JOIN LATERAL create_order_v1(%s, 11.26, 43.78, sha256(token::bytea), NULL, NULL, NULL) made
"""
TRANSACTIONS = """
SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()
"""


def main() -> int:
    """Run the bench and print its result."""
    parser = argparse.ArgumentParser(
        prog="bench.healing",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--viewers", type=int, default=500)
    parser.add_argument("--kills", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="doorstep-bench-") as folder:
        Path(folder).chmod(0o755)
        stack = Stack(
            StackSettings(doorstep_home=Path(folder) / "stack", **ANY_PORT), say=lambda _: None
        )
        try:
            stack.up(owner_pid=os.getpid())
            runs = measure(stack, options.viewers, options.kills)
        finally:
            stack.down(erase=True)
    result: dict[str, Any] = {"viewers": options.viewers, "cores": os.cpu_count(), "runs": runs}
    for name in runs[0]:
        figures = [run[name] for run in runs]
        result[name] = {
            "min": min(figures),
            "median": statistics.median(figures),
            "max": max(figures),
        }
    print(json.dumps(result))
    return 0


def measure(stack: Stack, viewers: int, kills: int) -> list[dict[str, float]]:
    """Let them look on, then kill and wait, again and again."""
    with owner_connection(stack.database_admin_url) as conn:
        register_restaurants(conn, [NewRestaurant(RESTAURANT_ID, "Da Mario", 11.25, 43.77)])
        asked = conn.execute(ORDERS, (viewers, RESTAURANT_ID)).fetchall()
        conn.execute("ANALYZE")  # as autovacuum would have done long before there were so many
        conn.commit()
    port = int(stack.client_environment()["TRACKING_API_URL"].rpartition(":")[2])
    say(f"{viewers} orders")
    with contextlib.ExitStack() as opened:
        crowds = [
            opened.enter_context(crowd(port, first, asked[first : first + VIEWERS_PER_PROCESS]))
            for first in range(0, viewers, VIEWERS_PER_PROCESS)
        ]
        for one in crowds:
            back(one)
        say("all look on")
        runs = []
        for _ in range(kills):
            time.sleep(CALM_S)
            runs.append(kill(stack, port, crowds))
            say(json.dumps(runs[-1]))
    return runs


def kill(stack: Stack, port: int, crowds: list[subprocess.Popen[str]]) -> dict[str, float]:
    """Kill tracking_api once, and wait until everybody sees again."""
    before = asked_of(stack)
    killed_at = time.monotonic()
    os.kill(stack.pid_of("tracking_api"), signal.SIGKILL)
    listening_s = until_listening(port) - killed_at
    found = [back(one) for one in crowds]
    after = asked_of(stack)
    return {
        "listening_s": round(listening_s, 2),
        "all_back_s": round(max(at for at, _ in found) - killed_at, 2),
        "slowest_snapshot_s": max(slowest for _, slowest in found),
        "transactions": after - before,
    }


def until_listening(port: int) -> float:
    """Wait until somebody takes connections again; give the instant."""
    gone = False
    while True:
        with socket.socket() as one:
            there = one.connect_ex(("127.0.0.1", port)) == 0
        if there and gone:
            return time.monotonic()
        gone = gone or not there
        time.sleep(0.01)


def asked_of(stack: Stack) -> int:
    """How many transactions the database has had."""
    with psycopg.connect(stack.database_admin_url, autocommit=True) as conn:
        row = conn.execute(TRANSACTIONS).fetchone()
    assert row is not None
    return int(row[0])


@contextlib.contextmanager
def crowd(port: int, first: int, asked: list[tuple[str, str]]) -> Iterator[subprocess.Popen[str]]:
    """Run viewers as a process of their own."""
    argv = [sys.executable, "-m", "bench.healing_viewers", str(port), str(first)]
    one = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert one.stdin is not None
    one.stdin.write("".join(f"{order_id} {token}\n" for order_id, token in asked))
    one.stdin.close()
    try:
        yield one
    finally:
        one.kill()
        one.wait()


def back(one: subprocess.Popen[str]) -> tuple[float, float]:
    """Wait until a crowd says that all of it sees: when that was, and the longest wait."""
    line = one.stdout.readline().split() if one.stdout else []
    if len(line) != 3:
        raise SystemExit("a crowd has ended")
    return float(line[1]), float(line[2])


def say(line: str) -> None:
    """Tell how far it is."""
    sys.stderr.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
