"""Requests that are refused, on the running services: a 4xx, never a 5xx, nothing stored.

Numbers are those of docs/reference/bad-input.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import httpx
import pytest

from doorstep.credentials import driver_token
from ops.stack.stack import Stack
from tests.integration.bad_input import INJECTIONS, fix_text
from tests.integration.bad_input_clients import JSON, Services, driver_of, open_services
from tests.integration.http_services import problem_of

NAMES = ["34_large", "35_burst", "strings"]


@pytest.fixture(scope="module")
def services(stack: Stack) -> Iterator[Services]:
    with open_services(stack, NAMES) as services:
        yield services


def test_31_other_drivers_id__is_403_and_nothing_is_stored(services: Services) -> None:
    mine, other = driver_of("34_large"), driver_of("strings")
    before = services.stored(other)
    for method, path in (
        ("PATCH", f"/drivers/{other}/location"),
        ("POST", f"/drivers/{other}/locations"),
        ("POST", f"/drivers/{other}/on-duty"),
        ("POST", f"/drivers/{other}/orders/{uuid4()}/delivered"),
        ("GET", f"/drivers/{other}"),
    ):
        headers = services.token(mine) | JSON
        answer = services.drivers.request(method, path, content=fix_text(1), headers=headers)
        problem_of(answer, 403, "forbidden")
        problem_of(services.drivers.request(method, path), 401, "unauthenticated")
    assert services.stored(other) == before


def test_32_unknown_driver__is_404_for_staff_and_403_for_a_driver(services: Services) -> None:
    path, fix = "/drivers/unknown-driver/location", fix_text(1)
    answer = services.drivers.patch(path, content=fix, headers=services.staff | JSON)
    problem_of(answer, 404, "unknown-driver")
    token = services.token(driver_of("strings"))
    problem_of(services.drivers.patch(path, content=fix, headers=token | JSON), 403, "forbidden")
    answer = services.tracking.get("/drivers/unknown-driver", headers=services.staff)
    problem_of(answer, 404, "unknown-driver")
    forged = {"Authorization": f"Bearer {driver_token(b'another key' * 3, 'unknown-driver')}"}
    answer = services.drivers.patch(path, content=fix, headers=forged | JSON)
    problem_of(answer, 401, "unauthenticated")


@pytest.mark.parametrize("below", ["", "/history"])
def test_33_bad_link__any_reason__is_the_same_404(services: Services, below: str) -> None:
    order, other, ended, revoked = (services.order() for _ in range(4))
    services.command(ended, "cancel")
    services.rows(
        "UPDATE doorstep.orders SET ended_at = now() - interval '25 hours' WHERE order_id = %s",
        ended["order_id"],
    )
    path = f"/orders/{revoked['order_id']}/link"
    assert services.tracking.delete(path, headers=services.staff).status_code == 204

    def ask(order_id: object, token: str | None) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return services.tracking.get(f"/track/{order_id}{below}", headers=headers)

    bad = {
        "forged": ask(order["order_id"], "cst_" + "A" * 43),
        "empty": ask(order["order_id"], None),
        "another order's": ask(order["order_id"], other["customer_token"]),
        "an unknown order": ask(uuid4(), order["customer_token"]),
        "no order id": ask("x' OR 1=1--", order["customer_token"]),
        "expired": ask(ended["order_id"], ended["customer_token"]),
        "revoked": ask(revoked["order_id"], revoked["customer_token"]),
        "a driver's": ask(order["order_id"], services.token("d1")["Authorization"][7:]),
    }
    for answer in bad.values():
        problem_of(answer, 404, "bad-link")
    assert len({answer.content for answer in bad.values()}) == 1
    without_date = [
        {name: value for name, value in answer.headers.items() if name != "date"}
        for answer in bad.values()
    ]
    assert all(headers == without_date[0] for headers in without_date)
    assert ask(order["order_id"], order["customer_token"]).status_code == 200


def test_34_too_large__with_or_without_content_length__is_413(services: Services) -> None:
    driver_id = driver_of("34_large")
    large = b'{"fixes":[' + b" " * 65_536 + b"]}"
    driver, own = services.token(driver_id) | JSON, f"/drivers/{driver_id}"
    for client, method, path, headers in (
        (services.drivers, "PATCH", f"{own}/location", driver),
        (services.drivers, "POST", f"{own}/locations", driver),
        (services.tracking, "POST", "/orders", services.staff | JSON),
        (services.tracking, "POST", f"/orders/{uuid4()}/assign", services.staff | JSON),
        (services.tracking, "POST", f"/track/{uuid4()}/session", JSON),
        (services.tracking, "POST", "/policies", services.staff | JSON),
    ):
        declared = client.request(method, path, content=large, headers=headers)
        problem_of(declared, 413, "body-too-large")
        chunks = iter([large[:40_000], large[40_000:]])  # no Content-Length
        problem_of(
            client.request(method, path, content=chunks, headers=headers), 413, "body-too-large"
        )
    levels = services.patch(driver_id, b"[" * 100_000)  # 12: 100,000 levels are too large already
    problem_of(levels, 413, "body-too-large")


@pytest.mark.parametrize(
    "media_type",
    ["text/plain", "application/x-www-form-urlencoded", "", "json", "text/json; charset=utf-8"],
)
def test_34_other_media_type__is_415(services: Services, media_type: str) -> None:
    driver_id = driver_of("34_large")
    for client, method, path, who in (
        (services.drivers, "PATCH", f"/drivers/{driver_id}/location", services.token(driver_id)),
        (services.drivers, "POST", f"/drivers/{driver_id}/locations", services.token(driver_id)),
        (services.tracking, "POST", "/orders", services.staff),
        (services.tracking, "POST", f"/track/{uuid4()}/session", {}),
    ):
        headers = who | {"Content-Type": media_type}
        answer = client.request(method, path, content=b"{}", headers=headers)
        problem_of(answer, 415, "unsupported-body")
        encoded = who | JSON | {"Content-Encoding": "gzip"}
        answer = client.request(method, path, content=b"{}", headers=encoded)
        problem_of(answer, 415, "unsupported-body")


def test_34_too_large_head__is_431(services: Services) -> None:
    for client in (services.drivers, services.tracking):
        for headers, query in (({"X": "x" * 17_000}, ""), ({}, "?state=" + "x" * 17_000)):
            answer = client.get(f"/orders{query}", headers=headers)
            problem_of(answer, 431, "head-too-large")


def test_35_burst_of_2000__is_committed_and_more_is_429(services: Services) -> None:
    driver_id = driver_of("35_burst")
    for at in range(1, 2001, 250):
        answer = services.post(driver_id, [fix_text(seq).encode() for seq in range(at, at + 250)])
        assert (answer.status_code, answer.json()["committed"]) == (200, 250)
    refused = services.post(driver_id, [fix_text(seq).encode() for seq in range(3000, 3250)])
    problem_of(refused, 429, "too-many-requests")
    assert 1 <= int(refused.headers["Retry-After"]) <= 50
    assert len(services.stored(driver_id)) == 2000
    other = services.patch(driver_of("34_large"), fix_text(1).encode())
    assert other.status_code == 200  # the limit is per driver


def test_35_guessing_links__is_429_for_bad_links_only(services: Services) -> None:
    order = services.order()
    there = f"/track/{order['order_id']}"

    def guess(n: int) -> httpx.Response:
        return services.guesser.get(there, headers={"Authorization": f"Bearer cst_{n}"})

    problem_of(guess(0), 404, "bad-link")
    answers: list[httpx.Response] = []
    with ThreadPoolExecutor(20) as guessers:
        while len(answers) < 2000 and all(one.status_code == 404 for one in answers):
            answers += guessers.map(guess, range(100))
    refused = [one for one in answers if one.status_code != 404]
    assert len(answers) - len(refused) >= 40  # 60 at once, and one per second
    problem_of(refused[0], 429, "too-many-requests")
    assert int(refused[0].headers["Retry-After"]) >= 1
    good = {"Authorization": f"Bearer {order['customer_token']}"}
    assert services.guesser.get(there, headers=good).status_code == 200
    assert services.tracking.get(there).status_code == 404


def quoted(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode())


@pytest.mark.parametrize("text", INJECTIONS)
def test_injection__any_string_input__is_4xx_or_stored_unchanged(
    services: Services, text: str
) -> None:
    driver_id = driver_of("strings")
    driver, order = services.token(driver_id), services.order()
    order_id, path = order["order_id"], quoted(text)
    orders = services.rows("SELECT count(*) FROM doorstep.orders")
    customer = {"Authorization": f"Bearer {order['customer_token']}"}
    in_a_head = text.encode("utf-8").replace(b"\r", b"").replace(b"\n", b"")
    answers = [
        # ids
        services.drivers.get(f"/drivers/{path}", headers=driver),
        services.drivers.patch(
            f"/drivers/{path}/location", content=fix_text(1), headers=services.staff | JSON
        ),
        services.drivers.post(f"/drivers/{driver_id}/orders/{path}/decline", headers=driver),
        services.tracking.get(f"/orders/{path}", headers=services.staff),
        services.tracking.get(f"/drivers/{path}", headers=services.staff),
        services.guesser.get(f"/track/{path}", headers=customer),
        services.guesser.get(f"/track/{path}/history", headers=customer),
        # members of bodies
        services.tracking.post(
            f"/orders/{order_id}/assign", json={"driver_id": text}, headers=services.staff
        ),
        services.tracking.post("/orders", json={text: 1}, headers=services.staff),
        services.guesser.post(f"/track/{order_id}/session", json={"token": text}),
        services.tracking.post("/policies", json={"name": "x", text: 1}, headers=services.staff),
        # queries
        *(
            services.tracking.get("/orders", params={name: text}, headers=services.staff)
            for name in ("state", "cursor", "limit")
        ),
        services.tracking.get("/drivers/positions", params={"since": text}, headers=services.staff),
        services.tracking.get(
            "/drivers/nearest", params={"lon_deg": text, "lat_deg": text}, headers=services.staff
        ),
        services.tracking.get(
            f"/track/{order_id}/history", params={"from": text}, headers=services.staff
        ),
        # tokens, cookies and media types
        services.tracking.get("/orders", headers=[(b"Authorization", b"Bearer " + in_a_head)]),
        services.drivers.get(
            f"/drivers/{driver_id}", headers=[(b"Authorization", b"Bearer " + in_a_head)]
        ),
        services.guesser.get(
            f"/track/{order_id}", headers=[(b"Cookie", b"doorstep_track=" + in_a_head)]
        ),
        services.drivers.patch(
            f"/drivers/{driver_id}/location",
            content=fix_text(1),
            headers=[
                *((k.encode(), v.encode()) for k, v in driver.items()),
                (b"Content-Type", in_a_head),
            ],
        ),
    ]
    for n, answer in enumerate(answers):
        assert 400 <= answer.status_code < 500, (n, answer.request.url, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
    # any text can be searched for; it matches only customers of this test, whose names are such
    found = services.tracking.get("/fleet/search", params={"q": text}, headers=services.staff)
    if found.status_code != 422:
        assert found.json()["drivers"] == []
        names = {one["customer_name"] for one in found.json()["orders"]}
        assert names <= set(INJECTIONS)
    # a key is any printable ASCII; a name is any text, returned unchanged
    key = [(name.encode(), value.encode()) for name, value in driver.items()]
    answer = services.drivers.post(
        f"/drivers/{driver_id}/on-duty", headers=[*key, (b"Idempotency-Key", in_a_head)]
    )
    assert answer.status_code in (200, 409, 422), answer.text
    named = services.order(customer_name=text)
    shown = services.tracking.get(f"/orders/{named['order_id']}", headers=services.staff).json()
    assert shown["customer_name"] == text
    policy = services.tracking.post("/policies", json={"name": text}, headers=services.staff)
    assert policy.status_code == 201, policy.text
    assert services.rows("SELECT count(*) - 1 FROM doorstep.orders") == orders
