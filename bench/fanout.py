"""CPU time of a push to a viewer, compared with a simple FastAPI endpoint.

    python -m bench.fanout [--viewers 1000] [--many 18000] [--rounds 20] [--runs 5]

A push is one position frame written to one viewer. CPU time (user and system) of the serving
process is measured from before the first push until every viewer has read the last. Four variants,
interleaved:

  ours        tracking_api's streams, all viewers on one order
  own_orders  the same, each viewer with its own order (encoding and polling included, the
              database's work not)
  naive       a queue and a generator for each viewer, FastAPI's StreamingResponse
  bare        the lower bound: one write(2) per viewer

Then `--many` viewers on one process of ours: the same, and resident memory per viewer
(the kernel's socket buffers not included). The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from urllib.request import urlopen

from bench.measure import spread
from ops.stack.addresses import any_free_port

VIEWERS_PER_PROCESS = 9_000
START_TIMEOUT_S = 60
VARIANTS = ("ours", "own_orders", "naive", "bare")


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
    costs: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    memory: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    for run in range(options.runs):
        for variant in VARIANTS:
            cost_us, bytes_each = measure(variant, options.viewers, options.rounds)
            costs[variant].append(cost_us)
            memory[variant].append(bytes_each)
            progress(
                f"run {run + 1}: {variant} {cost_us:.1f} µs/push, {bytes_each / 1024:.1f} KiB each"
            )
    result: dict[str, object] = {
        "viewers": options.viewers,
        "cores": os.cpu_count(),
        "cpu_us_per_push": {variant: spread(costs[variant]) for variant in VARIANTS},
        "kib_per_viewer": {
            variant: spread([one / 1024 for one in memory[variant]]) for variant in VARIANTS
        },
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


def measure(variant: str, viewers: int, rounds: int) -> tuple[float, float]:
    """Serve viewers: (microseconds of CPU per push, bytes per viewer)."""
    port = any_free_port()
    orders = viewers if variant == "own_orders" else 1
    kind = "ours" if variant == "own_orders" else variant
    with contextlib.ExitStack() as stack:
        stack.enter_context(process("bench.fanout_server", kind, port))
        wait_for(port)
        before = control(port, "cost")
        viewer_processes = [
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
        for viewer_process in viewer_processes:
            expect(viewer_process, "ready")
        full = control(port, "cost")
        control(port, "push?rounds=1")  # warm
        for viewer_process in viewer_processes:
            expect(viewer_process, "done 1")
        start = control(port, "cost")
        control(port, f"push?rounds={rounds}")
        for viewer_process in viewer_processes:
            for n in range(rounds):
                expect(viewer_process, f"done {n + 2}")
        end = control(port, "cost")
    cost_us = (end["cpu_s"] - start["cpu_s"]) / (viewers * rounds) * 1e6
    return cost_us, (full["rss_bytes"] - before["rss_bytes"]) / viewers


@contextlib.contextmanager
def process(module: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run a module as a process; kill it at the end."""
    argv = [sys.executable, "-m", module, *map(str, arguments)]
    one = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    try:
        yield one
    finally:
        one.kill()
        one.communicate()


def expect(viewer_process: subprocess.Popen[str], line: str) -> None:
    """Read a line. Exits on any other."""
    found = viewer_process.stdout.readline().strip() if viewer_process.stdout else ""
    if found != line:
        raise SystemExit(f"a viewers process wrote {found!r} instead of {line!r}")


def control(port: int, path: str) -> dict[str, float]:
    """Call the server's control endpoint."""
    with urlopen(f"http://127.0.0.1:{port}/control/{path}", timeout=600) as response:
        found: dict[str, float] | None = json.load(response)
    return found or {}


def wait_for(port: int) -> None:
    """Wait until the server answers."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            control(port, "cost")
            return
        time.sleep(0.1)
    raise SystemExit("the server did not start")


def progress(line: str) -> None:
    """Print a progress line to stderr."""
    sys.stderr.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
