"""`./run demo`: orders are delivered, no fix is lost, customers can watch, nothing stays open.

The demo runs once, as a process. Its broker is killed meanwhile.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import sync_playwright

from device.journal import read_published
from ops.stack.addresses import Addresses
from ops.stack.settings import FREE_PORTS, StackSettings
from ops.stack.stack import Stack
from tests.browser.page_checks import CHROMIUM, CHROMIUM_ARGUMENTS

COURIERS = 60
RUN_S = 80
KILL_AFTER_S = 30
TIMEOUT_S = 400
ENDED = ("delivered", "cancelled", "failed")
STATES = [
    *("created", "confirmed", "assigned", "at_restaurant", "picked_up", "arriving", "at_customer"),
    *ENDED,
]


@dataclass
class Demo:
    """The demo's output, and what a customer saw."""

    status: int = -1
    messages: list[str] = field(default_factory=list)
    last_line: str = ""
    tracked: list[dict[str, Any]] = field(default_factory=list)
    answers: set[int] = field(default_factory=set)
    page_texts: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def demo(paths: Path) -> Demo:
    """Run the demo, follow its customer's link, and kill -9 the broker in the middle."""
    environment = os.environ | {"DOORSTEP_HOME": str(paths), **{n.upper(): "0" for n in FREE_PORTS}}
    argv = [sys.executable, "-m", "ops", "demo", "--couriers", str(COURIERS)]
    argv += ["--speedup", "10", "--exit-after", str(RUN_S), "--json"]
    process = subprocess.Popen(
        argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    found = Demo()
    assert process.stdout is not None
    assert process.stderr is not None
    watcher = threading.Thread(target=watch, args=(process.stderr, found, paths), daemon=True)
    watcher.start()
    too_long = threading.Timer(TIMEOUT_S, process.kill)
    too_long.start()
    try:
        found.last_line = process.stdout.read().rstrip("\n").rpartition("\n")[2]
        found.status = process.wait()
    finally:
        too_long.cancel()
        process.terminate()
        process.wait()
        watcher.join(10)
        process.stdout.close()
        process.stderr.close()
        Stack(StackSettings(doorstep_home=paths, **FREE_PORTS), echo=print).down()
    return found


def watch(lines: Any, found: Demo, paths: Path) -> None:
    """Read the demo's messages. From its curl line on, request the track as that line does."""
    killed_at = 0.0
    for line in lines:
        found.messages.append(line.rstrip("\n"))
        if curl := re.search(r"Bearer (cst_\S+)' (http\S+/track/\S+)", line):
            token, url = curl.groups()
            threading.Thread(target=follow, args=(url, token, found), daemon=True).start()
        if link := re.search(r"http\S+/t/\S+#cst_\S+", line):
            threading.Thread(target=open_page, args=(link[0], found), daemon=True).start()
        if not killed_at and re.match(rf"00:{KILL_AFTER_S // 10}\d ", line):
            stack = Stack(StackSettings(doorstep_home=paths, **FREE_PORTS), echo=lambda _: None)
            os.kill(stack.pid_of("mosquitto-1"), signal.SIGKILL)
            killed_at = time.monotonic()
            found.messages.append("-- killed mosquitto-1")


def open_page(link: str, found: Demo) -> None:
    """Open the customer's link in a browser, and keep the page's texts."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGUMENTS)
        page = browser.new_page(viewport={"width": 390, "height": 844})
        page.goto(link)
        page.wait_for_selector("#steps li.current", timeout=60_000)
        found.page_texts = [page.inner_text("#state"), page.inner_text("#number")]
        browser.close()


def follow(url: str, token: str, found: Demo) -> None:
    """Request the track once a second, until 5 s after the order has ended."""
    after = 0
    with httpx.Client(headers={"Authorization": f"Bearer {token}"}, timeout=5) as client:
        while after < 5:
            try:
                answer = client.get(url)
            except httpx.TransportError:
                return  # the demo has ended
            found.answers.add(answer.status_code)
            if answer.status_code == 200:
                found.tracked.append(answer.json())
                after += answer.json()["state"] in ENDED
            time.sleep(1)


@pytest.fixture(scope="module")
def report(demo: Demo) -> dict[str, Any]:
    """The demo's last line."""
    value: dict[str, Any] = json.loads(demo.last_line)
    return value


def test_demo__broker_killed__exits_with_0(demo: Demo) -> None:
    assert demo.status == 0, "\n".join(demo.messages)
    assert "-- killed mosquitto-1" in demo.messages


def test_demo__last_line__has_the_documented_keys(report: dict[str, Any]) -> None:
    assert list(report) == ["orders", "fixes", "evidence", "latency_ms"]
    assert list(report["orders"]) == STATES
    assert list(report["fixes"]) == ["published", "committed", "quarantined", "rejected", "lost"]
    assert list(report["latency_ms"]["publish_to_commit"]) == ["p50", "p95", "p99"]


def test_demo__orders__are_delivered(report: dict[str, Any], demo: Demo) -> None:
    assert report["orders"]["delivered"] >= 5, "\n".join(demo.messages)
    assert sum(report["orders"].values()) >= COURIERS // 2


def test_demo__fixes__none_is_lost(report: dict[str, Any], demo: Demo) -> None:
    fixes = report["fixes"]
    assert fixes["lost"] == 0, "\n".join(demo.messages)
    assert fixes["published"] == fixes["committed"] + fixes["rejected"]
    # 60 couriers, a fix each 4 s / 10; the couriers' own start takes some of the time
    assert fixes["published"] >= 0.5 * COURIERS * RUN_S / 0.4


def test_demo__evidence__proves_arrivals(report: dict[str, Any]) -> None:
    assert report["evidence"]["at_restaurant"] >= 5
    assert report["evidence"]["at_customer"] >= 5


def test_demo__customer_s_track__moves_under_way_and_is_hidden_afterwards(
    demo: Demo,
) -> None:
    assert 200 in demo.answers
    assert demo.answers <= {200, 503}  # 503: a busy machine
    places = {
        tuple(one["position"]["geometry"]["coordinates"])
        for one in demo.tracked
        if one["position"] is not None
    }
    assert len(places) >= 5
    assert all(one["position"] is None for one in demo.tracked if one["state"] in ENDED)
    ranks = [STATES.index(one["state"]) for one in demo.tracked]
    assert ranks == sorted(ranks)  # never backwards


def test_demo__printed_link__opens_in_chromium_and_shows_the_order_s_state(demo: Demo) -> None:
    state, number = demo.page_texts
    assert state not in ("", "Your order")
    assert number == demo.tracked[0]["order_id"][:8]


def test_demo__ended__open_orders_are_cancelled_or_failed(
    demo: Demo, report: dict[str, Any]
) -> None:
    still_open = sum(count for state, count in report["orders"].items() if state not in ENDED)
    assert still_open > 0
    assert f"cancelled or failed {still_open} orders that were still open" in demo.messages


def test_demo__ended__leaves_no_process(demo: Demo, paths: Path) -> None:
    assert Addresses.load(paths / "stack.json") is None
    assert (
        str(paths)
        not in subprocess.run(
            ["ps", "-eo", "args"], capture_output=True, text=True, check=True
        ).stdout
    )


def test_demo__ended__journals_have_no_pending_fixes(demo: Demo, paths: Path) -> None:
    boots = read_published(paths / "journals" / "couriers.sqlite")
    assert len(boots) == COURIERS
    assert sum(boot.pending for boot in boots) == 0
