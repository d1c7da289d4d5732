"""The states of the customer's page. tracking_api's answers about the order are replaced.

The seam: `install` answers the session, GET /track, the stream, its history, the page's data and
the photo. The page's files, the cities and the streets are the real ones.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from playwright.async_api import Page, Route

from data import BUNDLED_CITY
from tests.browser.pictures.delivery_photo import delivery_photo

SHARE_LINK = "https://track.example.com/t/2a2675e8#trk_shared"
ORDER_ID = "2a2675e8-1c33-4a0d-8a40-58368decb37b"
NOW = datetime(2026, 12, 1, 19, 0, tzinfo=UTC)  # 20:00 in Florence
RESTAURANT = {"lon_deg": 11.2492329, "lat_deg": 43.7683008, "name": "Ristorante il Cantinone"}
DOOR = {"lon_deg": 11.2430394, "lat_deg": 43.7743038}
COURIER = (11.2475492, 43.7705481)
TRAIL = [
    (11.2494825, 43.7682272), (11.2500432, 43.7684924), (11.2494695, 43.7687516),
    (11.2486600, 43.7690096), (11.2478848, 43.7692666), (11.2468825, 43.7696495),
    (11.2471710, 43.7700652), COURIER,
]  # fmt: skip
ROUTE = [
    (11.24755, 43.77055), (11.24792, 43.77096), (11.24781, 43.77102), (11.24689, 43.77161),
    (11.24303, 43.77430),
]  # fmt: skip
EVENTS = ("created", "confirmed", "assigned", "picked_up", "arriving", "delivered")
AT_RESTAURANT = (*EVENTS[:3], "at_restaurant")


def at(minutes: float) -> str:
    """An instant, in minutes after NOW."""
    return (NOW + timedelta(minutes=minutes)).isoformat().replace("+00:00", "Z")


def events(*states: str) -> list[dict[str, Any]]:
    """The events of an order, the last one three minutes ago."""
    instants = [at(-3 - 7 * (len(states) - n)) for n in range(1, len(states) + 1)]
    return [
        {"order_seq": n, "state": state, "source": "staff", "occurred_at": instant}
        for n, (state, instant) in enumerate(zip(states, instants, strict=True), 1)
    ]


def eta(low: float, middle: float, high: float, **members: Any) -> dict[str, Any]:
    """An estimate whose arrival is so many minutes from now."""
    return {
        "arrives_at": at(middle), "p10_at": at(low), "p90_at": at(high), "as_of": at(0),
        "seconds": 60 * middle, "distance_m": 603, "speed_mps": 4.7, "route": "road",
        "speeds": "learned", "basis": "the way by road", **members,
    }  # fmt: skip


def position(place: tuple[float, float], age_s: float = 4) -> dict[str, Any]:
    properties = {
        "fix_at": at(-age_s / 60), "received_at": at(-age_s / 60), "accuracy_m": 8,
        "speed_mps": 5.6, "heading_deg": 320, "age_s": age_s, "freshness": "live",
    }  # fmt: skip
    return {
        "type": "Feature",
        "geometry": {"type": "Point", "coordinates": place},
        "properties": properties,
    }


def track(*states: str, **members: Any) -> dict[str, Any]:
    """What GET /track answers for an order that went through `states`."""
    return {
        "order_id": ORDER_ID, "state": states[-1], "assignment_no": 1, "order_seq": len(states),
        "city": BUNDLED_CITY, "late_by_s": None, "nearby_at": None, "position": None, "eta": None,
        "route": None, "other_delivery_first": False, "restaurant": RESTAURANT,
        "destination": DOOR, "events": events(*states), "is_shared": False, "pin": None,
        "ended_reason": None, "photo": False, **members,
    }  # fmt: skip


PAGE = {
    "customer_name": "Carla Rossi", "address": "Via della Scala 12", "door_note": None,
    "items": "2 x margherita", "promised_from": None, "promised_to": at(15),
    "contact_rule": "any", "courier_phone": None, "restaurant_phone": "+39055123456",
    "may_change": False, "shared_at": None, "push_key": None,
}  # fmt: skip


@dataclass(frozen=True)
class CustomerState:
    """One state of the page, and how to reach it."""

    name: str
    track: dict[str, Any] | None = None  # None: the link is not valid
    page: dict[str, Any] = field(default_factory=dict)
    has_trail: bool = False
    is_frozen: bool = False  # the stream ends after the snapshot, and nothing answers any more
    has_javascript: bool = True
    has_webgl: bool = True
    press: str | None = None  # a button that leads to the state

    async def install(self, page: Page) -> None:
        """Answer for tracking_api."""
        await page.clock.set_fixed_time(NOW)
        if not self.has_webgl:
            await page.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
        answers: dict[str, Callable[[Route], Any]] = {
            "session": lambda route: route.fulfill(status=204 if self.track else 404),
            "stream": self._stream,
            "history": lambda route: route.fulfill(json=self._history()),
            "page": lambda route: route.fulfill(json={**PAGE, **self.page}),
            "share": lambda route: route.fulfill(json={"share_link": SHARE_LINK}),
            "photo": lambda route: route.fulfill(body=delivery_photo(), content_type="image/jpeg"),
        }

        async def answer(route: Route) -> None:
            name = route.request.url.split("?")[0].rsplit("/", 1)[-1]
            if name in answers:
                await answers[name](route)
            elif self.is_frozen:
                await route.abort()
            elif self.track is None:
                await route.fulfill(status=404, json={})
            else:
                await route.fulfill(json=self.track)

        await page.route(f"**/track/{ORDER_ID}**", answer)

    async def _stream(self, route: Route) -> None:
        """The snapshot, and an end, after which the page does not connect again."""
        if self.track is None:
            await route.fulfill(status=404)
            return
        frames: list[tuple[str, Any]] = [("snapshot", self.track)]
        if not self.is_frozen:
            frames.append(("end", {"reason": "pictured"}))
        body = "".join(f"event: {name}\ndata: {json.dumps(data)}\n\n" for name, data in frames)
        await route.fulfill(body=body, content_type="text/event-stream")

    def _history(self) -> dict[str, Any]:
        """The line of the trail, as GET /track/{order_id}/history begins."""
        line = {"type": "LineString", "coordinates": TRAIL}
        trail = {"type": "Feature", "geometry": line, "properties": {"points": len(TRAIL)}}
        return {"type": "FeatureCollection", "features": [trail] if self.has_trail else []}


UNDER_WAY: dict[str, Any] = {
    "position": position(COURIER),
    "eta": eta(2, 3, 5),
    "route": {"type": "LineString", "coordinates": ROUTE},
    "pin": "4711",
}
EARLY = {"may_change": True}
CUSTOMER_STATES = [
    CustomerState("ordered", track("created", eta=eta(31, 36, 44)), EARLY),
    CustomerState("confirmed", track("created", "confirmed", eta=eta(26, 31, 38)), EARLY),
    CustomerState(
        "courier to restaurant",
        track(*EVENTS[:3], position=position((11.2515, 43.7669)), eta=eta(12, 15, 19)),
        EARLY,
    ),
    CustomerState(
        "courier not seen yet", track(*EVENTS[:3], eta=eta(14, 18, 24)), EARLY
    ),
    CustomerState(
        "at the restaurant",
        track(*AT_RESTAURANT, position=position((11.2492, 43.7683)), eta=eta(14, 17, 20)),
        EARLY,
    ),
    CustomerState(
        "cancel?", track("created", "confirmed", eta=eta(26, 31, 38)), EARLY, press="#cancel"
    ),
    CustomerState("on the way", track(*EVENTS[:4], **UNDER_WAY), has_trail=True),
    CustomerState(
        "almost there",
        track(*EVENTS[:5], **{**UNDER_WAY, "position": position((11.2440, 43.7737)),
                              "eta": eta(0.5, 0.7, 0.9)}),
        has_trail=True,
    ),
    CustomerState(
        "nearby", track(*EVENTS[:4], **UNDER_WAY, nearby_at=at(-0.5)), has_trail=True
    ),
    CustomerState(
        "at the door",
        track(*EVENTS[:5], "at_customer", **{**UNDER_WAY, "position": position((11.2431, 43.7743)),
                                             "eta": None, "route": None}),
        has_trail=True,
    ),
    CustomerState(
        "link shared", track(*EVENTS[:4], **UNDER_WAY), {"shared_at": at(-1)}, has_trail=True,
        press="#share",
    ),
    CustomerState(
        "a shared link",
        track(*EVENTS[:4], **{**UNDER_WAY, "route": None, "pin": None}, restaurant=None,
              destination=None, is_shared=True),
        has_trail=True,
    ),
    CustomerState(
        "another delivery first",
        track(*EVENTS[:4], other_delivery_first=True, pin="4711",
              eta={"earliest_at": at(10), "latest_at": at(25)}),
    ),
    CustomerState("late", track(*EVENTS[:4], **UNDER_WAY, late_by_s=720), has_trail=True),
    CustomerState(
        "courier lost",
        track(*EVENTS[:4], **{**UNDER_WAY, "position": position(COURIER, 1920)}),
        has_trail=True,
    ),
    CustomerState(
        "server frozen", track(*EVENTS[:4], **UNDER_WAY), has_trail=True, is_frozen=True
    ),
    CustomerState("delivered, photo", track(*EVENTS[:4], "delivered", photo=True)),
    CustomerState(
        "failed", track(*EVENTS[:4], "failed", ended_reason="customer_absent")
    ),
    CustomerState(
        "failed, a new attempt",
        track(*EVENTS[:4], "failed", ended_reason="wrong_address"),
        {"has_retry": True},
    ),
    CustomerState(
        "no signal before the first fix",
        track(*EVENTS[:4], events=[{**one, "occurred_at": at(-9)} for one in events(*EVENTS[:4])]),
    ),
    CustomerState(
        "cancelled", track("created", "confirmed", "cancelled", ended_reason="The oven is broken")
    ),
    CustomerState("invalid link"),
    CustomerState("without WebGL", track(*EVENTS[:4], **UNDER_WAY), has_webgl=False),
    CustomerState("without JavaScript", track("created"), has_javascript=False),
]  # fmt: skip
