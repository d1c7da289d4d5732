"""Direct routes answer as the documented ones. The seam replaced: the database, by a store."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import msgspec
import pytest

from doorstep.store import deadline
from tests.unit.tracking_api.memory_store import (
    CUSTOMER,
    NOON,
    ORDER_ID,
    OTHER_ID,
    STAFF,
    MemoryStore,
)
from tracking_api import app as application
from tracking_api.stores import Stores
from tracking_api.track.links import COOKIE
from tracking_api.track.presenters import track_etag, track_members
from tracking_api.track.visibility import Event, TrackedOrder

TRACK = f"/track/{ORDER_ID}"
HISTORY = "/drivers/d1/history?from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00"
REQUESTS: list[tuple[str, Mapping[str, str]]] = [
    (TRACK, CUSTOMER),
    (TRACK, STAFF),
    (TRACK, {"Authorization": CUSTOMER["Authorization"].lower()}),
    (TRACK, {"Authorization": "Basic dG9r"}),
    (TRACK, {"Cookie": f"{COOKIE}=tok-customer"}),
    (TRACK, {}),
    (f"/track/{OTHER_ID}", CUSTOMER),
    ("/track/not-an-order", CUSTOMER),
    (f"/track/{'x' * 300}", CUSTOMER),
    (f"{TRACK}?unknown=1", CUSTOMER),
    ("/drivers/nearest?lon_deg=11.25&lat_deg=43.77", STAFF),
    ("/drivers/nearest?lon_deg=11.25&lat_deg=43.77&limit=3", STAFF),
    ("/drivers/nearest?lon_deg=11.25&lat_deg=43.77", CUSTOMER),
    ("/drivers/nearest?lon_deg=11.25&lat_deg=43.77", {}),
    ("/drivers/nearest?lon_deg=nan&lat_deg=43.77", STAFF),
    ("/drivers/nearest?lon_deg=11.25&lat_deg=91", STAFF),
    ("/drivers/nearest?lon_deg=11.25", STAFF),
    ("/drivers/nearest?lon_deg=11.25&lat_deg=43.77&limit=0", STAFF),
    ("/drivers/nearest?lon_deg=11.25&lat_deg=43.77&limit=x", STAFF),
    ("/fleet/tiles/15/17000/12000.mvt", STAFF),
    ("/fleet/tiles/15/17000/12000.mvt?state=available", STAFF),
    ("/fleet/tiles/15/17000/12000.mvt", {}),
    ("/fleet/tiles/1/2/0.mvt", STAFF),
    ("/fleet/tiles/99/0/0.mvt", STAFF),
    ("/fleet/tiles/-1/0/0.mvt", STAFF),
    ("/fleet/tiles/a/0/0.mvt", STAFF),
    (f"{HISTORY}Z", STAFF),
    (f"{HISTORY}%2B02:00", STAFF),
    (HISTORY, STAFF),  # without a zone
    (f"{HISTORY}Z&limit=1", STAFF),
    (f"{HISTORY}Z&limit=0", STAFF),
    (f"{HISTORY}Z&to=2026-01-03T00:00:00Z", STAFF),
    ("/drivers/d1/history?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", STAFF),
    ("/drivers/d1/history?from=2026-01-02T00:00:00Z&to=2027-01-01T00:00:00Z", STAFF),
    ("/drivers/d%20/history?from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z", STAFF),
    (f"{HISTORY}Z", CUSTOMER),
]


async def responses_to(path: str, headers: Mapping[str, str]) -> tuple[Any, ...]:
    app = application.build_app(Stores.backed_by(MemoryStore()), "http://testserver")
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as http:
        answer = await http.get(path, headers=dict(headers))
    reads = app.state.context.read_log._reads
    audited = {who: one.to_json() for who, one in reads.items()}
    return answer.status_code, answer.content, sorted(answer.headers.items()), audited


@pytest.mark.parametrize(("path", "headers"), REQUESTS)
async def test_direct_route__any_request__is_answered_as_by_the_documented_route(
    path: str, headers: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    direct = await responses_to(path, headers)
    monkeypatch.setattr(application, "DIRECT_ROUTES", ())
    monkeypatch.setattr(application, "STAFF_DIRECT_ROUTES", ())
    assert direct == await responses_to(path, headers)
    assert direct[0] < 500


@pytest.fixture
def http() -> httpx.AsyncClient:
    app = application.build_app(Stores.backed_by(MemoryStore()), "http://testserver")
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver")


async def test_get_track__known_etag__is_304_without_a_body(http: httpx.AsyncClient) -> None:
    etag = (await http.get(TRACK, headers=CUSTOMER)).headers["etag"]
    assert etag.startswith('W/"')
    for known in (etag, f'"other", {etag}', "*"):
        answer = await http.get(TRACK, headers={**CUSTOMER, "If-None-Match": known})
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers["etag"] == etag
        assert answer.headers["cache-control"] == "no-store"


async def test_get_track__known_etag_and_a_bad_link__is_the_same_404(
    http: httpx.AsyncClient,
) -> None:
    etag = (await http.get(TRACK, headers=CUSTOMER)).headers["etag"]
    other = {"Authorization": "Bearer tok-other", "If-None-Match": etag}
    answer = await http.get(TRACK, headers=other)
    assert answer.status_code == 404
    assert "etag" not in answer.headers


def etag_of(order: TrackedOrder) -> str:
    return track_etag(track_members(order))


def test_etag__only_the_clock_moved__is_the_same() -> None:
    order = replace(MemoryStore()._track(ORDER_ID), state="at_customer")  # without an estimate
    assert etag_of(order) == etag_of(replace(order, now=NOON + timedelta(seconds=1)))


@pytest.mark.parametrize(
    "change",
    [
        {"fix_at": NOON - timedelta(seconds=6)},
        {"received_at": NOON + timedelta(milliseconds=1)},
        {"lon_deg": 11.2550001},
        {"lat_deg": 43.7750001},
        {"accuracy_m": 6.0},
        {"speed_mps": None},
        {"heading_deg": 91.0},
    ],
    ids=str,
)
def test_etag__any_other_position__is_another(change: dict[str, Any]) -> None:
    order = MemoryStore()._track(ORDER_ID)
    assert order.position is not None
    moved = replace(order, position=msgspec.structs.replace(order.position, **change))
    assert etag_of(order) != etag_of(moved)


@pytest.mark.parametrize(
    "change",
    [
        {"position": None},
        {"order_seq": 5},
        {"state": "arriving"},
        {"assignment_no": 2},
        {"now": NOON + timedelta(seconds=20)},  # no longer live
        {"events": [Event(1, "created", "staff", NOON - timedelta(minutes=8))]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_etag__any_other_order__is_another(change: dict[str, Any]) -> None:
    order = MemoryStore()._track(ORDER_ID)
    assert etag_of(order) != etag_of(replace(order, **change))


class SlowStore(MemoryStore):
    """Each look-up waits."""

    async def read_tracks(self, links: Any, held: object = None) -> dict[Any, TrackedOrder]:
        await asyncio.sleep(0.2)
        return await super().read_tracks(links, held)

    async def find_token(self, sha256: bytes) -> Any:
        await asyncio.sleep(0.2)
        return await super().find_token(sha256)


@pytest.mark.parametrize("headers", [CUSTOMER, STAFF])
async def test_track__several_slow_look_ups__is_refused_within_one_deadline(
    monkeypatch: pytest.MonkeyPatch, headers: Mapping[str, str]
) -> None:
    app = application.build_app(Stores.backed_by(SlowStore()), "http://testserver")
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as http:
        answered = await http.get(TRACK, headers=dict(headers))
        monkeypatch.setattr(deadline, "REQUEST_WITHIN_S", 0.3 if headers is STAFF else 0.1)
        refused = await http.get(TRACK, headers=dict(headers))
    assert answered.status_code == 200
    assert refused.status_code == 503
    assert refused.json()["type"].endswith("store-unavailable")
    assert "Retry-After" in refused.headers
