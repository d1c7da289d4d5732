"""All viewers come back at once: `python -m bench.storm`.

One temporary database with 10,000 drivers and 3,000 open orders; tracking_api, and in a process of
its own 18,000 viewers of 2,000 orders, each with a loopback address and the retries of a browser.

  storm   tracking_api is killed (SIGKILL) and started again; from when it accepts connections,
          the time until each viewer has a snapshot, and that of GET /track, 20 times a second
  pages   1,000 pages that open at once: each trades its token, reads GET /track and follows it

The last line is one JSON object. Viewers and API share the machine's processors.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from bench.fleet_database import running_database
from bench.growth import GrowthDatabase
from bench.measure import percentiles, progress
from bench.process_cpu import cpu_s
from bench.reads import OURS, fill, running
from ops.servers.postgres import PASSWORD
from ops.stack.addresses import any_free_port
from ops.stack.postgres import DATABASE, OWNER
from ops.stack.settings import PROJECT

ALL_BACK_WITHIN_S = 300.0
PROBE_EVERY_S = 0.05
PROBES_AT_ONCE = 100  # 5 s of them
CALM_S = 11.0  # every viewer has had a heartbeat, which sets its retry

Links = Sequence[tuple[str, str]]  # (order_id, token)


class ViewerProcess:
    """The viewers, in another process. `with` starts and stops them."""

    def __init__(self, port: int, links: Links, *, page: bool = False) -> None:
        self.count = len(links)
        self._plan = {"port": port, "viewers": links, "page": page}

    def __enter__(self) -> Self:
        with tempfile.NamedTemporaryFile("w", suffix=".json", delete=False) as file:
            json.dump(self._plan, file)
        self._path = Path(file.name)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.storm_viewers", file.name],
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._path.unlink()

    def request(self, command: str) -> Any:
        """Send a command and return its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def wait_for_all(self) -> list[float]:
        """Wait until each viewer has a snapshot; return when it came. Raises TimeoutError."""
        deadline_s = time.monotonic() + ALL_BACK_WITHIN_S
        while (count := self.request("count")) < self.count:
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"{count} of {self.count} viewers have a snapshot")
            time.sleep(0.1)
        times: list[float] = self.request("times")
        return times


class Prober(threading.Thread):
    """Requests GET /track 20 times a second, however long the answers take.

    `took_ms` are the response times of 200s, and `failed` counts other outcomes. `accepting_at` is
    when the first connection was accepted.
    """

    def __init__(self, port: int, links: Links) -> None:
        super().__init__(name="prober")
        self._address, self._links = ("127.0.0.1", port), links
        self.accepting_at = 0.0
        self.took_ms: list[float] = []
        self.failed = 0
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.accepting_at and not self.ended.wait(0.005):
            with contextlib.suppress(OSError), socket.create_connection(self._address):
                self.accepting_at = time.monotonic()
        with ThreadPoolExecutor(PROBES_AT_ONCE) as executor:
            for n in itertools.count():
                if self.ended.wait(PROBE_EVERY_S):
                    return
                link = self._links[n % len(self._links)]
                source = f"127.0.3.{1 + n % PROBES_AT_ONCE}"
                executor.submit(self._probe, *link, source, time.monotonic())

    def _probe(self, order_id: str, token: str, source: str, due_s: float) -> None:
        connection = http.client.HTTPConnection(*self._address, 30, (source, 0))
        try:
            headers = {"Authorization": f"Bearer {token}"}
            connection.request("GET", f"/track/{order_id}", headers=headers)
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            self.failed += 1
            return
        finally:
            connection.close()
        if answer.status == 200:
            self.took_ms.append((time.monotonic() - due_s) * 1e3)
        else:
            self.failed += 1


@contextmanager
def probing(port: int, links: Links) -> Iterator[Prober]:
    """Run a prober."""
    prober = Prober(port, links)
    prober.start()
    try:
        yield prober
    finally:
        prober.ended.set()
        prober.join()


def idle_start_cpu_s(urls: Mapping[str, str]) -> float:
    """Return what the API's start costs without viewers."""
    with running(OURS, urls) as api:
        return cpu_s(api.pid)


def storm(
    urls: Mapping[str, str], port: int, links: Links, viewers: ViewerProcess, start_s: float
) -> Any:
    """Start the API after its predecessor was killed; measure until all viewers are back."""
    viewers.request("reset")
    with probing(port, links) as prober, running(OURS, urls, port) as api:
        times = viewers.wait_for_all()
        cpu = cpu_s(api.pid)
        took_ms, failed = list(prober.took_ms), prober.failed
        time.sleep(CALM_S)
        os.kill(api.pid, signal.SIGKILL)
    back_at = prober.accepting_at
    return {
        "snapshots_s": percentiles([at - back_at for at in times]),
        "last_snapshot_s": round(max(times) - back_at, 2),
        "api_cpu_s": round(cpu, 2),
        "api_cpu_ms_per_viewer": round((cpu - start_s) * 1e3 / viewers.count, 3),
        "load_average": round(os.getloadavg()[0], 1),
        "track_failed": failed,
        "track_ms": percentiles(took_ms) | {"max": round(max(took_ms), 1)},
    }


def pages(urls: Mapping[str, str], links: Links) -> Any:
    """Let pages open at once at an API that is idle."""
    port = any_free_port()
    with running(OURS, urls, port) as api, probing(port, links) as prober:
        time.sleep(CALM_S)
        before_s, probed = cpu_s(api.pid), len(prober.took_ms)
        began_at = time.monotonic()
        with ViewerProcess(port, links, page=True) as viewers:
            times = viewers.wait_for_all()
        took_ms = prober.took_ms[probed:]
        cpu = cpu_s(api.pid) - before_s
    return {
        "last_snapshot_s": round(max(times) - began_at, 2),
        "api_cpu_s": round(cpu, 2),
        "track_ms": percentiles(took_ms) | {"max": round(max(took_ms), 1)},
    }


def main() -> int:
    """Run the bench and print its result."""
    parser = argparse.ArgumentParser(
        prog="bench.storm",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--viewers", type=int, default=18_000)
    parser.add_argument("--orders", type=int, default=2_000)
    parser.add_argument("--pages", type=int, default=1_000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    with running_database() as cluster:
        growth_database = GrowthDatabase(cluster, DATABASE, 10_000, 0.3)
        fill(cluster.url(OWNER, PASSWORD))
        found = growth_database.conn.execute(
            "SELECT order_id::text FROM orders ORDER BY order_id LIMIT %s", (options.orders,)
        ).fetchall()
        links = [(order_id, f"cst_{order_id}") for (order_id,) in found]
        growth_database.conn.commit()
        urls = {role: cluster.url(role, PASSWORD) for role in ("tracking_api", "customer")}
        many = [links[n % len(links)] for n in range(options.viewers)]
        port = any_free_port()
        result: dict[str, Any] = {"viewers": len(many), "orders": len(links), "storms": []}
        start_s = idle_start_cpu_s(urls)
        with ViewerProcess(port, many) as viewers:
            for run in range(options.runs + 1):  # in the first one they connect for the first time
                growth_database.refresh_presence()
                outcome = storm(urls, port, links, viewers, start_s)
                progress(json.dumps(outcome))
                if run:
                    result["storms"].append(outcome)
        growth_database.refresh_presence()
        result["pages"] = [
            pages(urls, [links[n % len(links)] for n in range(options.pages)])
            for _ in range(options.runs)
        ]
        growth_database.conn.close()
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
