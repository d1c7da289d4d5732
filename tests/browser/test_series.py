"""The chart of series in a real browser, over the whole stack; sources publish over MQTT."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from playwright.async_api import Locator, Page, Route, expect

from doorstep.credentials import mqtt_password
from doorstep.settings import MqttBroker
from tests.browser.page_checks import (
    PHONE,
    TIMEOUT_S,
    accessibility_violations,
    collect_errors,
    eventually,
    overflowing_texts,
    rendered_features,
    wait_for_text,
)

WAIT_MS = TIMEOUT_S * 1000
STATE = "() => globalThis.doorstepSeries?.()"
RECORD_INVALID_TEXTS = """() => {
  globalThis.oddWords = [];
  new MutationObserver(() => {
    for (const id of ["newest", "range-text", "name"]) {
      const text = document.getElementById(id).textContent;
      if (/null|undefined|NaN|Infinity/.test(text)) oddWords.push(text);
    }
  }).observe(document.querySelector("main"), { subtree: true, childList: true });
}"""


class Source:
    """A source of series, and the address of its page."""

    def __init__(self, stack: Any, source_id: str | None = None) -> None:
        self.source_id = source_id or f"box-{uuid4().hex[:8]}"
        stack.add_sources([self.source_id])
        settings = stack.client_environment()
        self.token = Path(settings["STAFF_TOKEN_FILE"]).read_text().strip()
        broker = MqttBroker.parse(settings["MQTT_URL"])
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=self.source_id)
        self._client.max_inflight_messages_set(1000)
        password = mqtt_password(stack.paths.fleet_key(), self.source_id)
        self._client.username_pw_set(self.source_id, password)
        self._client.connect(broker.host, broker.port)
        self._client.loop_start()

    def name(self, measure: str) -> str:
        return f"{self.source_id}/{measure}"

    def page_of(self, measure: str) -> str:
        return f"/series?name={self.name(measure)}#{self.token}"

    def publish(self, measure: str, points: Sequence[tuple[float, float]]) -> mqtt.MQTTMessageInfo:
        """Publish (epoch ms, value) pairs, in one payload."""
        body = json.dumps([{"at": round(at), "value": value} for at, value in points])
        return self._client.publish(f"doorstep/v1/series/{self.name(measure)}", body, qos=1)

    async def publish_values(self, measure: str, *values: float, every_ms: float = 1000) -> None:
        """Publish values up to now, and wait for the broker's acknowledgement."""
        now = time.time() * 1000
        points = [(now - (len(values) - 1 - n) * every_ms, value) for n, value in enumerate(values)]
        info = self.publish(measure, points)
        await asyncio.to_thread(info.wait_for_publish, 20)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def source(stack: Any) -> Iterator[Source]:
    with closing(Source(stack)) as source:
        yield source


def entry(page: Page, name: str) -> Locator:
    """A series in the list."""
    return page.locator("#list button:not(.plus)", has_text=name)


async def state_of(page: Page, fits: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """Wait until the chart's state fits."""

    async def poll() -> dict[str, Any] | None:
        state: dict[str, Any] | None = await page.evaluate(STATE)
        return state if state and fits(state) else None

    state: dict[str, Any] | None = await eventually(poll)
    assert state is not None, await page.evaluate(STATE)
    return state


async def test_series__history_then_live__moves_keeps_signs_and_zooms_by_key(
    source: Source, open_page: Any, screenshots: Path
) -> None:
    await source.publish_values("box_c", *(((n * 7919) % 40) - 25.5 for n in range(120)))
    errors: list[list[str]] = []
    page = await open_page(
        f"/series#{source.token}", before=lambda page: errors.append(collect_errors(page))
    )
    await page.fill("#search", source.name("bo"))
    await entry(page, source.name("box_c")).click()
    shown = await state_of(page, lambda state: len(state["ys"]) >= 120)
    assert shown["ys"][:3] == [-25.5, 13.5, 12.5]
    await source.publish_values("box_c", -7.25)
    moved = await state_of(
        page, lambda state: state["ys"][-1] == -7.25 and state["to"] > shown["to"]
    )
    assert moved["from"] > shown["from"]
    assert await wait_for_text(page, "#newest", "-7.25 °C")
    await page.screenshot(path=screenshots / "series.png")
    await page.locator("#chart").focus()
    await page.keyboard.press("ArrowLeft")
    held = await state_of(page, lambda state: not state["isLive"])
    await source.publish_values("box_c", 3.0)
    await page.keyboard.press("+")
    zoomed = await state_of(page, lambda state: state["from"] > held["from"])
    assert zoomed["to"] - zoomed["from"] == pytest.approx((held["to"] - held["from"]) / 2)
    await page.keyboard.press("Home")
    await state_of(page, lambda state: state["isLive"] and state["ys"][-1] == 3.0)
    await page.locator("#table summary").click()
    assert await wait_for_text(page, "#table tbody", "3 °C")
    assert await accessibility_violations(page) == []
    assert errors == [[]]


async def test_series__switched__never_shows_null_or_points_of_another_series(
    source: Source, open_page: Any
) -> None:
    await source.publish_values("slow", 1000.0, 1001.0)
    await source.publish_values("fast", -1.0, -2.0)
    page = await open_page(f"/series#{source.token}")
    released = asyncio.Event()
    answered = asyncio.Event()

    async def hold(route: Route) -> None:
        answer = await route.fetch()
        await released.wait()
        try:
            await route.fulfill(response=answer)
        finally:
            answered.set()

    await page.route(f"**/series/{source.name('slow')}?*", hold)
    await page.fill("#search", source.source_id)
    await page.evaluate(RECORD_INVALID_TEXTS)
    await entry(page, source.name("slow")).click()
    await entry(page, source.name("fast")).click()
    await state_of(page, lambda state: state["ys"] == [-1.0, -2.0])
    await source.publish_values("slow", 1002.0)  # a live point of the previous selection
    released.set()
    await asyncio.wait_for(answered.wait(), 30)
    await source.publish_values("fast", -3.0)
    state = await state_of(page, lambda state: len(state["ys"]) >= 3)
    assert (state["name"], state["ys"]) == (source.name("fast"), [-1.0, -2.0, -3.0])
    for measure in ("slow", "fast") * 4:
        await entry(page, source.name(measure)).click()
    await state_of(page, lambda state: state["ys"] == [-1.0, -2.0, -3.0])
    assert await page.evaluate("oddWords") == []


async def test_series__a_flood_of_points__is_drawn_once_per_frame_with_bounded_memory(
    source: Source, open_page: Any
) -> None:
    await source.publish_values("flood", 0.0)
    page = await open_page(source.page_of("flood"))
    before = await state_of(page, lambda state: state["ys"] == [0.0])
    await page.evaluate("""() => {
      globalThis.frames = 0;
      const count = () => { frames++; requestAnimationFrame(count); };
      requestAnimationFrame(count);
    }""")
    start = time.time() * 1000 - 60_000
    infos = [
        source.publish(
            "flood", [(start + n * 256 + m, 9.0 if n == m == 100 else 1.0) for m in range(256)]
        )
        for n in range(110)  # 28,160 points
    ]
    await asyncio.to_thread(infos[-1].wait_for_publish, 30)
    await source.publish_values("flood", -5.0)
    state = await state_of(page, lambda state: state["ys"][-1] == -5.0)
    assert state["held"] <= 26_000  # 20,000 of the chart and 5,000 of the latest
    assert state["draws"] - before["draws"] <= await page.evaluate("frames") + 1
    # The page still responds; points that it dropped are in the history.
    await page.select_option("#window", "900")
    await state_of(page, lambda state: 9.0 in state["ys"] and state["ys"][-1] == -5.0)


async def test_series__two_series__share_the_range_and_report_a_lost_connection(
    source: Source, open_page: Any
) -> None:
    await source.publish_values("up", 1.0, 2.0, 3.0)
    await source.publish_values("down", -1.0, -2.0)
    page = await open_page(source.page_of("up"))
    await page.fill("#search", source.source_id)
    await page.get_by_role("button", name=f"Show {source.name('down')} below").click()
    await state_of(page, lambda state: state["secondYs"] == [-1.0, -2.0])
    await source.publish_values("down", -4.0)
    state = await state_of(page, lambda state: state["secondYs"] == [-1.0, -2.0, -4.0])
    assert state["ys"] == [1.0, 2.0, 3.0]  # separate points
    assert await wait_for_text(page, "#second-newest", "-4")
    await page.reload()  # both are in the address
    await state_of(page, lambda state: len(state["secondYs"]) == 3 and len(state["ys"]) == 3)
    assert await wait_for_text(page, "#connection", "live")
    assert await accessibility_violations(page) == []
    await page.context.set_offline(True)
    assert await wait_for_text(page, "#connection-banner", "No connection to the server since")
    assert await wait_for_text(page, "#connection", "not connected")
    await page.context.set_offline(False)
    assert await eventually(lambda: page.locator("#connection-banner").is_hidden())
    assert await wait_for_text(page, "#connection", "live")
    await page.get_by_role("button", name="Close").click()
    assert await page.locator("#second").is_hidden()


@pytest.mark.parametrize(
    ("locale", "banner", "at"),
    [
        ("en-GB", r"No connection to the server since \d\d:\d\d:\d\d", r"at \d\d:\d\d:\d\d"),
        ("it-IT", r"Nessuna connessione al server dalle \d\d:\d\d:\d\d", r"alle \d\d:\d\d:\d\d"),
    ],
)
async def test_series__without_a_connection__stands_still_says_since_when_and_comes_back(
    source: Source, open_page: Any, locale: str, banner: str, at: str
) -> None:
    await source.publish_values("up", 1.0, 2.0)
    await source.publish_values("down", -1.0)
    beside = f"{source.name('up')}&beside={source.name('down')}"
    page = await open_page(f"/series?name={beside}#{source.token}", locale=locale)
    await state_of(page, lambda state: state["ys"] == [1.0, 2.0] and state["secondYs"] == [-1.0])
    await page.context.set_offline(True)
    for newest in ("#newest", "#second-newest"):
        await expect(page.locator(f"{newest} .as-of")).to_have_text(re.compile(at), timeout=WAIT_MS)
    await expect(page.locator("#connection-banner")).to_have_text(re.compile(banner))
    held = await page.evaluate(STATE)
    await source.publish_values("up", 3.0)
    await page.wait_for_timeout(2500)  # live, the chart moves several times
    now = await page.evaluate(STATE)
    assert (now["from"], now["to"]) == (held["from"], held["to"])
    assert await accessibility_violations(page) == []
    await page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    assert await overflowing_texts(page) == []
    await page.context.set_offline(False)
    await state_of(page, lambda state: state["ys"] == [1.0, 2.0, 3.0] and state["to"] > held["to"])
    await expect(page.locator("#connection-banner")).to_be_hidden(timeout=WAIT_MS)
    await expect(page.locator(".as-of")).to_have_count(0, timeout=WAIT_MS)


async def test_series__only_the_second_ones_stream_is_lost__says_so(
    source: Source, open_page: Any
) -> None:
    await source.publish_values("up", 1.0)
    await source.publish_values("down", -1.0)
    page = await open_page(source.page_of("up"))
    await state_of(page, lambda state: state["ys"] == [1.0])
    stream = f"**/series/{source.name('down')}/stream"
    await page.route(stream, lambda route: route.abort())
    await page.fill("#search", source.source_id)
    await page.get_by_role("button", name=f"Show {source.name('down')} below").click()
    await expect(page.locator("#connection-banner")).to_be_visible(timeout=WAIT_MS)
    async with page.expect_response("**/series?*"):  # of the list, which is not lost
        pass
    await page.wait_for_timeout(1000)
    assert await page.locator("#connection-banner").is_visible()
    await page.unroute(stream)
    await expect(page.locator("#connection-banner")).to_be_hidden(timeout=WAIT_MS)
    assert await wait_for_text(page, "#connection", "live")


async def test_series__name_that_nothing_has__is_not_a_lost_connection(
    source: Source, open_page: Any
) -> None:
    page = await open_page(source.page_of("nothing"))
    assert await wait_for_text(page, "#newest", "No series with this name.")
    await page.wait_for_timeout(4000)  # the banner shows after 2.5 s
    assert await page.locator("#connection-banner").is_hidden()
    assert await page.text_content("#connection") == "live"
    await source.publish_values("nothing", 5.0)
    await state_of(page, lambda state: state["ys"] == [5.0])


async def test_fleet__zoomed_out__shows_a_van_on_the_outline_of_the_country(
    city: Any, open_page: Any, screenshots: Path
) -> None:
    await city.driver("city-001", (2.35, 48.85))
    page = await open_page(f"/fleet#{city.staff_token}")
    assert await eventually(lambda: page.evaluate("Boolean(globalThis.doorstepMap?.loaded())"))
    await page.evaluate("doorstepMap.jumpTo({ center: [2.5, 46.6], zoom: 4.6 })")
    assert await eventually(lambda: rendered_features(page, "outline-border"))
    assert await eventually(lambda: page.evaluate("doorstepFleet.drawn")) == 1
    await page.screenshot(path=screenshots / "france.png")
