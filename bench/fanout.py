"""What a push to a viewer costs, beside the obvious FastAPI endpoint.

    python -m bench.fanout [--viewers 1000] [--many 18000] [--rounds 20] [--runs 5]

A push is one position frame written to one viewer. CPU time (user and system) of the serving
process is taken from before the first push until every viewer has read the last. Four ways, in
turn, in each run:

  ours        tracking_api's streams, all viewers on one order
  own_orders  the same, each viewer with an order of their own (encoding and look included, the
              database's work not)
  naive       a queue and a generator for each viewer, FastAPI's StreamingResponse
  bare        the floor: one write(2) for each viewer and nothing else

Then `--many` viewers on one process of ours: the cost again, and resident memory per viewer
(the kernel's socket buffers not included). The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from urllib.request import urlopen

VIEWERS_PER_PROCESS = 9_000
START_WITHIN_S = 60
WAYS = ("ours", "own_orders", "naive", "bare")


def main() -> int:
    """Run the bench and print its result."""
    parser = argparse.ArgumentParser(
        prog="bench.fanout",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--viewers", type=int, default=1000)
    parser.add_argument("--many", type=int, default=18_000, help="0 leaves it out")
    parser.add_argument("--rounds", type=int, default=20, help="pushes to each viewer, per run")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    costs: dict[str, list[float]] = {way: [] for way in WAYS}
    memory: dict[str, list[float]] = {way: [] for way in WAYS}
    for run in range(options.runs):
        for way in WAYS:
            cost_us, bytes_each = measure(way, options.viewers, options.rounds)
            costs[way].append(cost_us)
            memory[way].append(bytes_each)
            say(f"run {run + 1}: {way} {cost_us:.1f} us a push, {bytes_each / 1024:.1f} KiB each")
    result: dict[str, object] = {
        "viewers": options.viewers,
        "cores": os.cpu_count(),
        "cpu_us_per_push": {way: spread(costs[way]) for way in WAYS},
        "kib_per_viewer": {way: spread([one / 1024 for one in memory[way]]) for way in WAYS},
    }
    if options.many:
        cost_us, bytes_each = measure("ours", options.many, max(3, options.rounds // 4))
        result["many"] = {
            "viewers": options.many,
            "cpu_us_per_push": round(cost_us, 1),
            "kib_per_viewer": round(bytes_each / 1024, 1),
        }
    sys.stdout.write(json.dumps(result) + "\n")
    return 0


def spread(values: list[float]) -> dict[str, float]:
    """Minimum, median and maximum."""
    return {
        "min": round(min(values), 1),
        "median": round(statistics.median(values), 1),
        "max": round(max(values), 1),
    }


def measure(way: str, viewers: int, rounds: int) -> tuple[float, float]:
    """Serve so many viewers; give microseconds of CPU per push, and bytes per viewer."""
    port = free_port()
    orders = viewers if way == "own_orders" else 1
    kind = "ours" if way == "own_orders" else way
    with contextlib.ExitStack() as stack:
        stack.enter_context(process("bench.fanout_server", kind, port))
        wait_for(port)
        before = ask(port, "cost")
        crowds = [
            stack.enter_context(
                process(
                    "bench.fanout_viewers",
                    port,
                    min(VIEWERS_PER_PROCESS, viewers - first),
                    orders,
                    first,
                )
            )
            for first in range(0, viewers, VIEWERS_PER_PROCESS)
        ]
        for crowd in crowds:
            expect(crowd, "ready")
        full = ask(port, "cost")
        ask(port, "push?rounds=1")  # warm
        for crowd in crowds:
            expect(crowd, "done 1")
        start = ask(port, "cost")
        ask(port, f"push?rounds={rounds}")
        for crowd in crowds:
            for n in range(rounds):
                expect(crowd, f"done {n + 2}")
        end = ask(port, "cost")
    cost_us = (end["cpu_s"] - start["cpu_s"]) / (viewers * rounds) * 1e6
    return cost_us, (full["rss_bytes"] - before["rss_bytes"]) / viewers


@contextlib.contextmanager
def process(module: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run a module as a process, and kill it at the end."""
    argv = [sys.executable, "-m", module, *map(str, arguments)]
    one = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    try:
        yield one
    finally:
        one.kill()
        one.communicate()


def expect(crowd: subprocess.Popen[str], line: str) -> None:
    """Read a line that must come."""
    found = crowd.stdout.readline().strip() if crowd.stdout else ""
    if found != line:
        raise SystemExit(f"a crowd said {found!r} instead of {line!r}")


def ask(port: int, path: str) -> dict[str, float]:
    """Ask the server's control."""
    with urlopen(f"http://127.0.0.1:{port}/control/{path}", timeout=600) as answer:
        found: dict[str, float] | None = json.load(answer)
    return found or {}


def wait_for(port: int) -> None:
    """Wait until the server answers."""
    deadline = time.monotonic() + START_WITHIN_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            ask(port, "cost")
            return
        time.sleep(0.1)
    raise SystemExit("the server did not start")


def free_port() -> int:
    """A port that nobody listens on."""

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def say(line: str) -> None:
    """Tell how far it is."""
    sys.stderr.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
