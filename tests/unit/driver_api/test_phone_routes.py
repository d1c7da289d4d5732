"""The routes of phone apps over a store in memory: only answers that do no harm to a queue."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doorstep.http import token_guessing
from doorstep.store.records import Outcome
from driver_api import phone_bodies, phone_routes
from driver_api.app import build_app
from tests.unit.driver_api.memory_store import MemoryPositions, MemoryStore

LOCATION = {"_type": "location", "tst": 1_790_000_000, "lat": 43.77, "lon": 11.25}
Send = Callable[[httpx.AsyncClient, bytes], Any]


async def owntracks(http: httpx.AsyncClient, body: bytes) -> httpx.Response:
    return await http.post("/owntracks", content=body, auth=("d1", "phn-d1"))


async def traccar(http: httpx.AsyncClient, body: bytes) -> httpx.Response:
    return await http.post("/osmand?id=phn-d1", content=body)


async def overland(http: httpx.AsyncClient, body: bytes) -> httpx.Response:
    return await http.post("/overland", content=body, headers={"Authorization": "Bearer phn-d1"})


ROUTES = pytest.mark.parametrize("send", [owntracks, traccar, overland])


@pytest.fixture
async def http(store: MemoryStore) -> AsyncIterator[httpx.AsyncClient]:
    app = build_app(store, MemoryPositions())
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://driver-api") as client:
        yield client


@ROUTES
async def test_body__over_1_mib__is_a_dead_letter_without_its_bytes(
    http: httpx.AsyncClient, store: MemoryStore, send: Send
) -> None:
    answer = await send(http, b"x" * (phone_bodies.MAX_BODY_BYTES + 1))
    assert answer.status_code == 200
    assert [(one.reason, one.payload, one.source) for one in store.letters] == [
        ("too_large", b"", "http")
    ]


@ROUTES
async def test_body__over_8_mib__is_503(http: httpx.AsyncClient, send: Send) -> None:
    answer = await send(http, b"x" * (phone_bodies.MAX_DISCARDED_BYTES + 1))
    assert answer.status_code == 503


@ROUTES
async def test_database_away__any_message__is_503(
    http: httpx.AsyncClient, store: MemoryStore, send: Send
) -> None:
    store.away = True
    answer = await send(http, b"{}")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")


@ROUTES
async def test_sender_too_fast__is_503_after_a_delay_and_nothing_is_written(
    http: httpx.AsyncClient, store: MemoryStore, send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phone_routes, "PATIENCE_S", 0.01)
    store.is_too_fast = True
    answer = await send(http, b"")
    assert answer.status_code == 503
    assert (store.rows, store.letters) == ([], [])


@pytest.mark.parametrize("content_type", ["text/plain", "application/json", "application/x-foo"])
async def test_owntracks__any_content_type__is_read(
    http: httpx.AsyncClient, store: MemoryStore, content_type: str
) -> None:
    answer = await http.post(
        "/owntracks",
        content=json.dumps(LOCATION),
        headers={"Content-Type": content_type},
        auth=("d1", "phn-d1"),
    )
    assert (answer.status_code, answer.json()) == (200, [])
    assert len(store.rows) == 1


@pytest.mark.parametrize(
    "authorization", ["", "Basic", "Basic !!!", "Basic ZDE=", "Bearer phn-d1", "Basic /w=="]
)
async def test_owntracks__bad_credentials__are_401(
    http: httpx.AsyncClient, authorization: str
) -> None:
    headers = {"Authorization": authorization} if authorization else {}
    answer = await http.post("/owntracks", content=b"", headers=headers)
    assert answer.status_code == 401


async def test_bad_tokens__over_the_limit__stay_401(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_guessing, "DELAY_S", 0.0)
    statuses = {
        (await http.get("/osmand", params={"id": f"phn-{n}"})).status_code
        for n in range(token_guessing.BURST_BAD_TOKENS + 10)
    }
    assert statuses == {401}


async def test_unreadable_message_with_a_password__is_not_kept(
    http: httpx.AsyncClient, store: MemoryStore
) -> None:
    await owntracks(http, b'{"_type":"dump","configuration":{"Password":"secret"')
    [letter] = store.letters
    assert (letter.reason, letter.payload) == ("not_json", b"")


async def test_conflict__of_a_nameless_position__is_a_duplicate_without_dead_letter(
    http: httpx.AsyncClient, store: MemoryStore
) -> None:
    store.outcomes = [Outcome(0, "conflict", None)]
    answer = await owntracks(http, json.dumps(LOCATION).encode())
    assert (answer.status_code, store.letters) == (200, [])


@pytest.mark.parametrize("reason", ["unknown_driver", "forgotten"])
async def test_driver_who_is_gone__is_401(
    http: httpx.AsyncClient, store: MemoryStore, reason: str
) -> None:
    store.outcomes = [Outcome(0, "rejected", reason)]
    answer = await owntracks(http, json.dumps(LOCATION).encode())
    assert answer.status_code == 401


async def test_traccar__dead_letter__holds_no_token(
    http: httpx.AsyncClient, store: MemoryStore
) -> None:
    await http.post("/osmand", data={"id": "phn-d1", "lat": "99", "lon": "1", "timestamp": "1"})
    [letter] = store.letters
    assert b"phn-d1" not in letter.payload
    assert letter.payload == b"lat=99&lon=1&timestamp=1"


async def test_heard__any_message__has_the_app_and_its_version(
    http: httpx.AsyncClient, store: MemoryStore
) -> None:
    await http.post(
        "/owntracks", content=b"", auth=("d1", "phn-d1"), headers={"User-Agent": "OwnTracks/26"}
    )
    assert [one[:2] for one in store.heard] == [("d1", "OwnTracks over HTTP (OwnTracks/26)")]


BODIES = st.one_of(
    st.binary(max_size=200),
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "_type",
                        "tst",
                        "lat",
                        "lon",
                        "locations",
                        "location",
                        "coords",
                        "geometry",
                        "properties",
                        "coordinates",
                        "timestamp",
                        "device_id",
                        "type",
                        "battery",
                        "x",
                    ]
                )
                | st.text(max_size=5),
                inner,
                max_size=6,
            )
        ),
        max_leaves=20,
    ).map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass")),
    st.dictionaries(
        st.sampled_from(["id", "lat", "lon", "timestamp", "location", "batt", "speed"]),
        st.text(max_size=20),
        max_size=6,
    ).map(lambda pairs: "&".join(f"{k}={v}" for k, v in pairs.items()).encode(errors="replace")),
)


@ROUTES
@settings(max_examples=60, deadline=None)
@given(body=BODIES)
async def test_any_body__gets_200_401_or_422(send: Send, body: bytes) -> None:
    app = build_app(MemoryStore(), MemoryPositions())
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://driver-api") as client:
        answer = await send(client, body)
    assert answer.status_code in (200, 401) or b"encrypted" in body
