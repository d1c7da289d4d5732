"""Bad input over HTTP, on the running services: a 4xx with a reason, never a 5xx, nothing stored.

Numbers are those of docs/reference/bad-input.md; the fixes are the same as over MQTT.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx
import pytest

from doorstep.credentials import driver_token
from doorstep.provision import owner_connection
from ops.stack.stack import Stack
from tests.integration.bad_input import (
    CASES,
    DOUBTFUL,
    INJECTIONS,
    KEPT,
    LAT_DEG,
    LON_DEG,
    Case,
    Kept,
    ago_ms,
    each,
    fix_text,
)
from tests.integration.http_services import problem_of

JSON = {"Content-Type": "application/json"}
NAMES = [
    *(case.name for case in CASES),
    *(kept.name for kept in KEPT),
    *(f"{number:02d}_{slug}" for number, slug, _, _ in DOUBTFUL),
    *(
        "19_ignored_copy",
        "27_jump",
        "28_duplicate",
        "29_late",
        "30_conflict",
        "34_large",
        "35_burst",
        "strings",
    ),
]


def driver_of(name: str) -> str:
    return f"http-{name}"[:64]


@dataclass
class Services:
    """Clients of both services. `guesser` has another address, with its own count of bad links."""

    stack: Stack
    drivers: httpx.Client
    tracking: httpx.Client
    guesser: httpx.Client
    staff: dict[str, str]

    def token(self, driver_id: str) -> dict[str, str]:
        token = driver_token(self.stack.paths.fleet_key(), driver_id)
        return {"Authorization": f"Bearer {token}"}

    def patch(self, driver_id: str, body: bytes) -> httpx.Response:
        """PATCH one fix as its driver."""
        headers = self.token(driver_id) | JSON
        return self.drivers.patch(f"/drivers/{driver_id}/location", content=body, headers=headers)

    def post(self, driver_id: str, parts: list[bytes]) -> httpx.Response:
        """POST several fixes."""
        body = b'{"fixes":[' + b",".join(parts) + b"]}"
        headers = self.token(driver_id) | JSON
        return self.drivers.post(f"/drivers/{driver_id}/locations", content=body, headers=headers)

    def stored(self, driver_id: str) -> list[int]:
        """Return a driver's seqs in the history."""
        return [
            row[0]
            for row in self.rows(
                "SELECT seq FROM doorstep.fix_history WHERE driver_id = %s ORDER BY seq", driver_id
            )
        ]

    def rows(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        with owner_connection(self.stack.database_admin_url) as conn:
            cursor = conn.execute(statement, parameters)  # type: ignore[arg-type]
            return cursor.fetchall() if cursor.description else []

    def order(self, *commands: str, **members: object) -> dict[str, Any]:
        """Create an order and apply staff commands."""
        new = {"restaurant_id": 7, "destination": {"lon_deg": 11.2486, "lat_deg": 43.7711}}
        answer = self.tracking.post("/orders", json=new | members, headers=self.staff)
        assert answer.status_code == 201, answer.text
        order: dict[str, Any] = answer.json()
        for command in commands:
            self.command(order, command)
        return order

    def command(self, order: dict[str, Any], command: str, **body: object) -> None:
        """Apply one staff command."""
        path = f"/orders/{order['order_id']}/{command}"
        answer = self.tracking.post(path, json=body, headers=self.staff)
        assert answer.status_code == 200, answer.text


@pytest.fixture(scope="module")
def services(stack: Stack) -> Iterator[Services]:
    stack.add_drivers([driver_of(name) for name in NAMES])
    with ExitStack() as clients:
        drivers = clients.enter_context(
            httpx.Client(base_url=stack.addresses.driver_api_url, timeout=30)
        )
        tracking, guesser = (
            clients.enter_context(
                httpx.Client(
                    base_url=stack.addresses.tracking_api_url,
                    timeout=30,
                    transport=httpx.HTTPTransport(local_address=address),
                )
            )
            for address in ("127.0.0.1", "127.0.0.35")
        )
        staff = {"Authorization": f"Bearer {stack.paths.staff_token()}"}
        yield Services(stack, drivers, tracking, guesser, staff)


@pytest.mark.parametrize("case", each(CASES))
def test_patch_location__bad_fix__is_422_with_its_reason_and_its_neighbours_are_stored(
    services: Services, case: Case
) -> None:
    driver_id = driver_of(case.name)
    assert services.patch(driver_id, fix_text(1).encode()).status_code == 200
    answer = services.patch(driver_id, case.make(2))
    slug = "rejected-fix" if case.number in (23, 24) else "malformed-fix"
    wanted = case.reason_alone if case.over_http is None else case.over_http
    assert problem_of(answer, 422, slug)["reason"] == wanted
    assert services.patch(driver_id, fix_text(9).encode()).status_code == 200
    assert services.stored(driver_id) == [1, 9]


@pytest.mark.parametrize("case", each([case for case in CASES if case.is_entry]))
def test_post_locations__one_bad_fix_of_three__is_rejected_and_its_neighbours_are_stored(
    services: Services, case: Case
) -> None:
    driver_id = driver_of(case.name)
    parts = [fix_text(3).encode(), case.make(4), fix_text(5).encode()]
    answer = services.post(driver_id, parts)
    assert answer.status_code == 200, answer.text
    assert [(one["outcome"], one["reason"]) for one in answer.json()["outcomes"]] == [
        ("committed", None),
        ("rejected", case.reason),
        ("committed", None),
    ]
    assert {3, 5} <= set(services.stored(driver_id))
    assert not {2, 4} & set(services.stored(driver_id))


@pytest.mark.parametrize("kept", each(KEPT))
def test_optional_field_or_instant_is_odd__at_both_routes__is_committed_and_named_in_ignored(
    services: Services, kept: Kept
) -> None:
    driver_id = driver_of(kept.name)
    answer = services.patch(driver_id, kept.make(2))
    assert answer.status_code == 200, answer.text
    assert (answer.json()["outcome"], answer.json()["ignored"]) == ("committed", [*kept.ignored])
    answer = services.post(driver_id, [fix_text(3).encode(), kept.make(4), kept.make(2)])
    assert [(one["outcome"], one["ignored"]) for one in answer.json()["outcomes"]] == [
        ("committed", []),
        ("committed", [*kept.ignored]),
        ("duplicate" if kept.fix_at else "conflict", [*kept.ignored]),
    ]
    assert services.stored(driver_id) == [2, 3, 4]
    rows = services.rows(
        "SELECT accuracy_m, speed_mps, heading_deg, altitude_m, battery FROM doorstep.fix_history"
        " WHERE driver_id = %s AND seq IN (2, 4)",
        driver_id,
    )
    assert rows == [kept.stored] * 2
    if kept.fix_at is not None:
        instants = services.rows(
            "SELECT fix_at FROM doorstep.fix_history WHERE driver_id = %s AND seq IN (2, 4)",
            driver_id,
        )
        assert instants == [(kept.fix_at(),)] * 2


def test_copy_with_an_ignored_field__of_a_fix_without_it__is_a_duplicate(
    services: Services,
) -> None:
    driver_id, fix_at = driver_of("19_ignored_copy"), ago_ms(1)
    plain = fix_text(2, fix_at=fix_at).encode()
    odd = fix_text(2, fix_at=fix_at, speed_mps=-1).encode()
    other = fix_text(2, fix_at=fix_at, speed_mps=1).encode()
    assert services.patch(driver_id, plain).json()["outcome"] == "committed"
    answer = services.patch(driver_id, odd).json()
    assert (answer["outcome"], answer["ignored"]) == ("duplicate", ["speed_mps"])
    problem_of(services.patch(driver_id, other), 409, "conflicting-fix")


@pytest.mark.parametrize(
    "case",
    each([one for one in CASES if not one.is_entry and one.number in (1, 2, 12, 13, 14, 16)]),
)
def test_post_locations__unreadable_body__is_422_as_a_whole(services: Services, case: Case) -> None:
    driver_id = driver_of(case.name)
    parts = [fix_text(3).encode(), case.make(4), fix_text(5).encode()]
    reason = problem_of(services.post(driver_id, parts), 422, "malformed-fix")["reason"]
    assert reason in {case.reason, "not_json"}
    assert not {3, 4, 5} & set(services.stored(driver_id))


def test_10_batch_of_257__is_422_and_256_are_committed(services: Services) -> None:
    driver_id = driver_of("10_batch_of_257")
    parts = [fix_text(seq).encode() for seq in range(100, 357)]
    problem = problem_of(services.post(driver_id, parts), 422, "malformed-fix")
    assert problem["reason"] == "too_many_fixes"
    answer = services.post(driver_id, parts[:256])
    assert (answer.status_code, answer.json()["committed"]) == (200, 256)


@pytest.mark.parametrize(
    ("name", "members", "reason"),
    [
        pytest.param(f"{number:02d}_{slug}", members, reason, id=f"{number:02d}_{slug}")
        for number, slug, members, reason in DOUBTFUL
    ],
)
def test_patch_location__doubtful__is_200_quarantined(
    services: Services, name: str, members: dict[str, object], reason: str
) -> None:
    answer = services.patch(driver_of(name), fix_text(2, **members).encode())
    assert (answer.status_code, answer.json()["outcome"]) == (200, "quarantined")
    assert answer.json()["reason"] == reason
    rows = services.rows(
        "SELECT quarantine FROM doorstep.fix_history WHERE driver_id = %s", driver_of(name)
    )
    assert rows == [(reason,)]


def test_27_jump__is_stored_and_flagged_on_read(services: Services) -> None:
    driver_id = driver_of("27_jump")
    order = services.order("confirm")
    headers = services.token(driver_id)
    assert services.drivers.post(f"/drivers/{driver_id}/on-duty", headers=headers).is_success
    services.command(order, "assign", driver_id=driver_id)
    for seq, north in enumerate((0.0, 0.0001, 0.05, 0.0002), start=1):  # 0.05 degrees: 5.5 km
        fix = fix_text(seq, lat_deg=LAT_DEG + north, fix_at=ago_ms(-4 * seq)).encode()
        assert services.patch(driver_id, fix).json()["outcome"] == "committed"
    path = f"/track/{order['order_id']}/history"
    features = services.tracking.get(path, headers=services.staff).json()["features"]
    points = [one for one in features if one["geometry"]["type"] == "Point"]
    assert [bool(one["properties"].get("jump")) for one in points] == [False, False, True, False]
    [line] = [one for one in features if one["geometry"]["type"] == "LineString"]
    assert len(line["geometry"]["coordinates"]) == 3
    services.command(order, "cancel")


def test_28_duplicate__is_200_and_stored_once(services: Services) -> None:
    driver_id, fix = driver_of("28_duplicate"), fix_text(1).encode()
    answers = [services.patch(driver_id, fix) for _ in range(3)]
    assert [one.status_code for one in answers] == [200] * 3
    outcomes = [one.json()["outcome"] for one in answers]
    assert outcomes == ["committed", "duplicate", "duplicate"]
    again = services.post(driver_id, [fix, fix]).json()
    assert (again["duplicate"], services.stored(driver_id)) == (2, [1])


def test_29_late_fix__is_200_committed(services: Services) -> None:
    driver_id = driver_of("29_late")
    services.patch(driver_id, fix_text(2).encode())
    late = services.patch(driver_id, fix_text(1, fix_at=ago_ms(7200)).encode())
    assert (late.status_code, late.json()["outcome"]) == (200, "committed")
    assert services.stored(driver_id) == [1, 2]


def test_30_other_content_under_known_identity__is_409_and_the_first_stays(
    services: Services,
) -> None:
    driver_id = driver_of("30_conflict")
    fix = {"boot": "b1", "seq": 1, "fix_at": ago_ms(1), "lat_deg": LAT_DEG, "lon_deg": LON_DEG}
    services.patch(driver_id, json.dumps(fix).encode())
    other = json.dumps(fix | {"lat_deg": 43.8}).encode()
    problem_of(services.patch(driver_id, other), 409, "conflicting-fix")
    assert services.post(driver_id, [other]).json()["conflict"] == 1
    rows = services.rows("SELECT lat_deg FROM doorstep.fix_history WHERE driver_id = %s", driver_id)
    assert rows == [(LAT_DEG,)]


def test_30_illegal_transition__is_409_with_state_and_allowed_commands(
    services: Services,
) -> None:
    order = services.order()
    path = f"/orders/{order['order_id']}/fail"
    problem = problem_of(
        services.tracking.post(path, headers=services.staff), 409, "illegal-transition"
    )
    assert problem["current_state"] == "created"
    assert problem["allowed"] == ["confirm", "cancel"]


def test_31_other_drivers_id__is_403_and_nothing_is_stored(services: Services) -> None:
    mine, other = driver_of("28_duplicate"), driver_of("strings")
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
    path, fix = "/drivers/nobody/location", fix_text(1)
    answer = services.drivers.patch(path, content=fix, headers=services.staff | JSON)
    problem_of(answer, 404, "unknown-driver")
    token = services.token(driver_of("strings"))
    problem_of(services.drivers.patch(path, content=fix, headers=token | JSON), 403, "forbidden")
    answer = services.tracking.get("/drivers/nobody", headers=services.staff)
    problem_of(answer, 404, "unknown-driver")
    forged = {"Authorization": f"Bearer {driver_token(b'another key' * 3, 'nobody')}"}
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
    # any text can be searched for; this one has no match
    found = services.tracking.get("/fleet/search", params={"q": text}, headers=services.staff)
    assert found.status_code == 422 or found.json() == {"drivers": [], "orders": []}, found.text
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
