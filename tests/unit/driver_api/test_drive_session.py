"""The courier's page of driver_api: its files, and its session, over a store in memory."""

from __future__ import annotations

from http.cookies import SimpleCookie

import httpx
import pytest

from driver_api.context import COURIER_COOKIE
from tests.unit.driver_api.memory_store import MemoryStore, make_fix, problem_of
from web import DIST

SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}
OUR_PAGE = {"Origin": "http://driver-api"}


@pytest.fixture
async def page(http: httpx.AsyncClient) -> httpx.AsyncClient:
    """A client without a bearer token."""
    del http.headers["Authorization"]
    return http


async def sign_in(page: httpx.AsyncClient, token: str = "tok-d1", **headers: str) -> httpx.Response:
    return await page.post(
        "/drive/session", json={"token": token}, headers={**SAME_ORIGIN, **headers}
    )


async def test_sign_in__driver_token__sets_a_cookie_that_only_the_page_gets(
    page: httpx.AsyncClient,
) -> None:
    answer = await sign_in(page)
    assert (answer.status_code, answer.json()) == (200, {"driver_id": "d1", "name": "Anna"})
    cookie = SimpleCookie(answer.headers["set-cookie"])[COURIER_COOKIE]
    assert cookie["path"] == "/drive"
    assert cookie["httponly"]
    assert cookie["samesite"] == "strict"
    assert not cookie["secure"]
    assert "tok-d1" not in answer.headers["set-cookie"]


async def test_sign_in__behind_https__cookie_is_secure(page: httpx.AsyncClient) -> None:
    answer = await sign_in(page, **{"X-Forwarded-Proto": "https"})
    assert SimpleCookie(answer.headers["set-cookie"])[COURIER_COOKIE]["secure"]


@pytest.mark.parametrize("token", ["tok-staff", "tok-customer", "phn-d1", "wrong"])
async def test_sign_in__any_other_token__is_refused(page: httpx.AsyncClient, token: str) -> None:
    answer = await sign_in(page, token)
    problem_of(answer, 401, "unauthenticated")
    assert "set-cookie" not in answer.headers


async def test_sign_in__guessed_tokens__are_limited(page: httpx.AsyncClient) -> None:
    statuses = [(await sign_in(page, f"wrong-{n}")).status_code for n in range(22)]
    assert statuses == [401] * 20 + [429] * 2
    assert (await sign_in(page)).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://evil.test"},
        {"Sec-Fetch-Site": "cross-site", **OUR_PAGE},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
    ],
)
async def test_write_with_the_cookie__from_another_page__is_refused(
    page: httpx.AsyncClient, store: MemoryStore, headers: dict[str, str]
) -> None:
    await sign_in(page)
    for path in ("/drive/drivers/d1/on-duty", "/drive/session"):
        refused = await page.post(path, json={"token": "tok-d1"}, headers=headers)
        problem_of(refused, 403, "foreign-origin")
    assert store.commands == []


@pytest.mark.parametrize("headers", [SAME_ORIGIN, OUR_PAGE])
async def test_page__with_the_cookie__reads_commands_and_sends_fixes(
    page: httpx.AsyncClient, store: MemoryStore, headers: dict[str, str]
) -> None:
    await sign_in(page)
    assert (await page.get("/drive/session")).json()["driver_id"] == "d1"
    assert (await page.get("/drive/drivers/d1")).json()["duty"] == "on_duty"
    assert (await page.post("/drive/drivers/d1/on-duty", headers=headers)).status_code == 200
    sent = await page.post(
        "/drive/drivers/d1/locations", json={"fixes": [make_fix()]}, headers=headers
    )
    assert (sent.status_code, sent.json()["committed"]) == (200, 1)
    assert store.commands == [("d1", "on_duty", None)]


async def test_cookie__another_driver_or_another_route__is_worth_nothing(
    page: httpx.AsyncClient,
) -> None:
    await sign_in(page)
    problem_of(await page.get("/drive/drivers/d2"), 403, "forbidden")
    session = page.cookies[COURIER_COOKIE]
    forced = {"Cookie": f"{COURIER_COOKIE}={session}", **SAME_ORIGIN}
    problem_of(await page.get("/drivers/d1", headers=forced), 401, "unauthenticated")
    problem_of(await page.post("/drivers/d1/on-duty", headers=forced), 401, "unauthenticated")


async def test_sign_out__session_ends(page: httpx.AsyncClient, store: MemoryStore) -> None:
    await sign_in(page)
    before = len(store.tokens)
    answer = await page.delete("/drive/session", headers=SAME_ORIGIN)
    assert answer.status_code == 204
    assert len(store.tokens) == before - 1
    assert COURIER_COOKIE not in page.cookies


@pytest.mark.skipif(not (DIST / "drive.html").is_file(), reason="the pages are not built")
async def test_page_files__headers__allow_what_the_page_needs_and_no_more(
    page: httpx.AsyncClient,
) -> None:
    html = await page.get("/drive")
    assert html.headers["permissions-policy"].split(", ")[2] == "geolocation=(self)"
    policy = html.headers["content-security-policy"]
    assert "manifest-src 'self'" in policy
    assert "script-src 'self'" in policy
    assert html.headers.get_list("content-security-policy", split_commas=True) == [policy]
    assert html.headers["x-frame-options"] == "DENY"
    worker = await page.get("/drive/service-worker.js")
    assert worker.headers["service-worker-allowed"] == "/drive"
    assert worker.headers["cache-control"] == "no-cache"
    assert "javascript" in worker.headers["content-type"]
    manifest = await page.get("/drive/manifest.webmanifest")
    assert manifest.headers["content-type"] == "application/manifest+json"
    assert manifest.json()["start_url"] == "/drive"
    other = await page.get("/healthz")
    assert "geolocation=()" in other.headers["permissions-policy"]
