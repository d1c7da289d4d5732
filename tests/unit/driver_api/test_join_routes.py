"""Joining over a store in memory: what an invitation answers, and who may use it."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import httpx
import pytest

from doorstep.credentials import token_sha256
from doorstep.settings import MqttBroker
from driver_api.app import build_app
from driver_api.context import COURIER_COOKIE, PhoneDoors
from tests.unit.driver_api.memory_store import MemoryPositions, MemoryStore, problem_of

BROKERS = tuple(MqttBroker(f"b{n}.example", 8883, tls=True) for n in range(2))
DOORS = PhoneDoors("https://fleet.example/driver-api", BROKERS)


@pytest.fixture
async def http(store: MemoryStore) -> AsyncIterator[httpx.AsyncClient]:
    app = build_app(store, MemoryPositions(), phone_doors=DOORS)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    own = {"Sec-Fetch-Site": "same-origin"}
    async with httpx.AsyncClient(
        transport=transport, base_url="https://fleet.example", headers=own
    ) as client:
        yield client


async def join(http: httpx.AsyncClient, app: str, token: str = "inv-d1") -> httpx.Response:
    return await http.post("/join", json={"token": token, "app": app})


def configuration_of(link: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(base64.b64decode(unquote(link.partition("=")[2])))
    return found


async def test_join__owntracks__answers_configurations_whose_secret_is_good(
    http: httpx.AsyncClient, store: MemoryStore
) -> None:
    answer = await join(http, "owntracks")
    assert answer.status_code == 200
    document = answer.json()
    assert (document["driver_id"], document["traccar"]) == ("d1", None)
    over_http, over_mqtt = (
        configuration_of(document["owntracks"][name]) for name in ("http_link", "mqtt_link")
    )
    assert over_http["url"] == "https://fleet.example/driver-api/owntracks"
    assert over_mqtt["host"] in {broker.host for broker in BROKERS}
    assert (over_mqtt["port"], over_mqtt["tls"]) == (8883, True)
    assert over_mqtt["remoteConfiguration"] is True
    assert over_http["password"] == over_mqtt["password"]
    assert list(store.phones) == [token_sha256(over_http["password"])]


async def test_join__traccar__answers_a_link_a_code_and_the_values(
    http: httpx.AsyncClient, store: MemoryStore
) -> None:
    document = (await join(http, "traccar")).json()
    found = document["traccar"]
    assert parse_qs(urlsplit(found["link"]).query)["id"] == [found["device_id"]]
    assert found["url"] == "https://fleet.example/driver-api/osmand"
    assert found["qr_svg"].startswith("<svg")
    assert list(store.phones) == [token_sha256(found["device_id"])]
    assert document["owntracks"] is None


async def test_join__browser__opens_a_session_and_ends_the_phone(
    http: httpx.AsyncClient, store: MemoryStore
) -> None:
    answer = await join(http, "browser")
    document = answer.json()
    assert (document["owntracks"], document["traccar"]) == (None, None)
    assert store.phones == {}
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"{COURIER_COOKIE}=ses_")
    assert {"HttpOnly", "Secure", "Path=/drive"} <= set(cookie.split("; "))
    assert (await http.get("/drive/session")).json()["driver_id"] == "d1"


async def test_join__used_twice_or_guessed__is_one_answer(http: httpx.AsyncClient) -> None:
    assert (await join(http, "browser")).status_code == 200
    answers = [await join(http, "owntracks", token) for token in ("inv-d1", "inv-guess")]
    assert {one.text for one in answers} == {answers[0].text}
    problem_of(answers[0], 404, "bad-invitation")
    assert "set-cookie" not in answers[0].headers


async def test_join__from_a_page_of_another_site__is_refused(http: httpx.AsyncClient) -> None:
    body = {"token": "inv-d1", "app": "browser"}
    answer = await http.post("/join", json=body, headers={"Sec-Fetch-Site": "cross-site"})
    problem_of(answer, 403, "foreign-origin")
    assert (await join(http, "browser")).status_code == 200


async def test_join__many_guesses__are_slowed_down(http: httpx.AsyncClient) -> None:
    answers = [(await join(http, "browser", f"inv-{n}")).status_code for n in range(30)]
    assert set(answers) == {404, 429}


async def test_position__with_the_follow_up_token__tells_whether_one_has_come(
    http: httpx.AsyncClient, store: MemoryStore
) -> None:
    follow = (await join(http, "owntracks")).json()["follow_token"]
    headers = {"Authorization": f"Bearer {follow}"}
    answer = await http.get("/join/position", headers=headers)
    assert answer.json() == {"has_position": False}
    store.followed[follow] = True
    assert (await http.get("/join/position", headers=headers)).json() == {"has_position": True}
    for path in ("/drivers/d1", "/drive/session"):
        http.cookies.clear()
        assert (await http.get(path, headers=headers)).status_code == 401
    problem_of(await http.get("/join/position"), 404, "bad-invitation")


async def test_owntracks__wanted_mode__is_a_command_in_the_answers_array(
    http: httpx.AsyncClient, store: MemoryStore
) -> None:
    store.wanted_mode = 1
    message = {"_type": "location", "tst": 1_790_000_000, "lat": 43.77, "lon": 11.25, "m": 2}
    answer = await http.post("/owntracks", json=message, auth=("d1", "phn-d1"))
    [command] = answer.json()
    assert command["action"] == "setConfiguration"
    assert command["configuration"]["monitoring"] == 1
    assert (store.heard[0].mode, store.heard[0].has_position) == (2, True)
    answer = await http.post("/owntracks", json={"_type": "status"}, auth=("d1", "phn-d1"))
    assert (store.heard[1].mode, store.heard[1].has_position) == (None, False)


@pytest.mark.parametrize("mode", ["2", True, 3, None, 1.5])
async def test_owntracks__a_mode_that_is_none__is_ignored_and_the_position_kept(
    http: httpx.AsyncClient, store: MemoryStore, mode: object
) -> None:
    message = {"_type": "location", "tst": 1_790_000_000, "lat": 43.77, "lon": 11.25, "m": mode}
    answer = await http.post("/owntracks", json=message, auth=("d1", "phn-d1"))
    assert answer.json() == []
    assert store.heard[0].mode is None
    assert len(store.rows) == 1
