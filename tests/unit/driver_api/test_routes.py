"""driver_api over a store in memory: the seam is `driver_api.queries.Store`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from doorstep.credentials import token_sha256
from doorstep.errors import (
    IllegalTransition,
    StoreUnavailable,
    TooManyRequests,
    UnknownDriver,
    UnknownOrder,
)
from doorstep.fix import Fix
from doorstep.store.records import DeadLetter, Driver, IncomingRow, Outcome, Token
from driver_api.app import build_app
from driver_api.positions import pack_position
from driver_api.queries import CommandedOrder, CurrentOrder, LettersOf, PhoneApp
from driver_api.quota_refusals import QuotaRefusals

ORDER_ID = uuid4()


class MemoryStore:
    """Tokens `tok-d1`, `tok-d2` and `tok-staff`; answers what a test puts into `outcomes`."""

    def __init__(self) -> None:
        self.tokens = {
            token_sha256("tok-d1"): Token("driver", "d1", None),
            token_sha256("tok-d2"): Token("driver", "d2", None),
            token_sha256("tok-staff"): Token("staff", None, None, "anna", "admin"),
            token_sha256("tok-customer"): Token("customer", None, ORDER_ID),
        }
        self.phones = {token_sha256("phn-d1"): Token("phone", "d1", None)}
        self.letters: list[DeadLetter] = []
        self.heard: list[PhoneApp] = []
        self.is_too_fast = False
        self.rows: list[IncomingRow] = []
        self.outcomes: list[Outcome] = []
        self.commands: list[tuple[str, str, str | None]] = []
        self.look_ups = 0
        self.transactions = 0
        self.over_quota: set[str] = set()
        self.away = False

    def _check(self) -> None:
        if self.away:
            raise StoreUnavailable

    async def find_token(self, sha256: bytes) -> Token | None:
        self._check()
        self.look_ups += 1
        return self.tokens.get(sha256)

    async def record_fixes(
        self, rows: Sequence[IncomingRow], *, has_quota: bool = True
    ) -> list[Outcome]:
        self._check()
        self.transactions += 1
        if has_quota and rows[0][1] in self.over_quota:
            raise TooManyRequests(8.0)
        self.rows.extend(rows)
        return self.outcomes

    async def find_phone(self, sha256: bytes) -> Token | None:
        self._check()
        return self.phones.get(sha256)

    async def record_phone(
        self, rows: Sequence[IncomingRow], letters_of: LettersOf, phone: PhoneApp
    ) -> list[Outcome]:
        self._check()
        if self.is_too_fast:
            raise TooManyRequests(60)
        self.letters += letters_of(self.outcomes)
        self.rows.extend(rows)
        self.heard.append(phone)
        return self.outcomes

    def _driver_of(self, token_sha256: bytes) -> str:
        driver_id = self.tokens[token_sha256].driver_id
        assert driver_id is not None
        return driver_id

    async def change_duty(
        self, token_sha256: bytes, command: str, idempotency_key: str | None
    ) -> Driver:
        driver_id = self._driver_of(token_sha256)
        self.commands.append((driver_id, command, idempotency_key))
        if command == "on_break":
            raise IllegalTransition(driver_id, command, "to_customer", ["off_duty"])
        return Driver(driver_id, command, "available", None)

    async def command_order(
        self, token_sha256: bytes, order_id: UUID, command: str, idempotency_key: str | None
    ) -> CommandedOrder:
        driver_id = self._driver_of(token_sha256)
        self.commands.append((driver_id, command, idempotency_key))
        if order_id != ORDER_ID:
            raise UnknownOrder
        return CommandedOrder(order_id, "delivered", 1, 7, driver_id)

    async def read_driver(self, token_sha256: bytes) -> tuple[Driver, CurrentOrder | None]:
        if self._driver_of(token_sha256) != "d1":
            raise UnknownDriver
        current = CurrentOrder(
            order_id=ORDER_ID,
            state="assigned",
            assignment_no=1,
            assigned_at=datetime(2026, 1, 1, tzinfo=UTC),
            restaurant_name="Da Mario",
            restaurant=(11.25, 43.77),
            destination=(11.26, 43.78),
        )
        return Driver("d1", "on_duty", "to_restaurant", ORDER_ID), current

    async def is_available(self) -> bool:
        return not self.away


class MemoryPositions:
    def __init__(self) -> None:
        self.published: list[tuple[str, Fix]] = []

    def publish(self, driver_id: str, fix: Fix, received_at_ms: int) -> None:
        self.published.append((driver_id, fix))

    def close(self) -> None:
        pass


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def positions() -> MemoryPositions:
    return MemoryPositions()


@pytest.fixture
async def http(store: MemoryStore, positions: MemoryPositions) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(
        build_app(store, positions, "tok-service"), raise_app_exceptions=False
    )
    async with httpx.AsyncClient(transport=transport, base_url="http://driver-api") as client:
        client.headers["Authorization"] = "Bearer tok-d1"
        yield client


def make_fix(**members: Any) -> dict[str, Any]:
    return {
        "boot": "b1",
        "seq": 1,
        "fix_at": "2026-01-01T12:00:00Z",
        "lat_deg": 43.77,
        "lon_deg": 11.25,
        **members,
    }


def problem_of(answer: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    document: dict[str, Any] = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, document["type"]) == (status, f"/problems/{slug}"), document
    assert document["status"] == status
    assert document["title"]
    assert document["detail"]
    return document


async def test_patch_location__good_fix__is_committed_and_published(http, store, positions):
    answer = await http.patch("/drivers/d1/location", json=make_fix(accuracy_m=5))
    assert answer.status_code == 200
    body = answer.json()
    assert (body["outcome"], body["reason"], body["driver_id"]) == ("committed", None, "d1")
    assert body["fix_at"] == "2026-01-01T12:00:00.000Z"
    (row,) = store.rows
    assert row[:4] == (0, "d1", "b1", 1)
    assert row[6:9] == (11.25, 43.77, 5.0)
    assert [driver_id for driver_id, _ in positions.published] == ["d1"]


@pytest.mark.parametrize("outcome", ["duplicate", "quarantined"])
async def test_patch_location__duplicate_or_quarantined__is_200_and_is_not_published(
    http, store, positions, outcome
):
    store.outcomes = [Outcome(0, outcome, None)]
    answer = await http.patch("/drivers/d1/location", json=make_fix())
    assert (answer.status_code, answer.json()["outcome"]) == (200, outcome)
    assert positions.published == []


async def test_patch_location__rejected__is_422_with_the_reason(http, store):
    store.outcomes = [Outcome(0, "rejected", "too_old")]
    answer = await http.patch("/drivers/d1/location", json=make_fix())
    assert problem_of(answer, 422, "rejected-fix")["reason"] == "too_old"


async def test_patch_location__taken_off_duty__is_200_and_not_live(http, store):
    store.outcomes = [Outcome(0, "dropped", "off_duty")]
    answer = await http.patch("/drivers/d1/location", json=make_fix())
    assert answer.status_code == 200
    assert (answer.json()["outcome"], answer.json()["reason"]) == ("dropped", "off_duty")


async def test_patch_location__known_identity_with_other_content__is_409(http, store):
    store.outcomes = [Outcome(0, "conflict", None)]
    problem_of(await http.patch("/drivers/d1/location", json=make_fix()), 409, "conflicting-fix")


@pytest.mark.parametrize("reason", ["unknown_driver", "forgotten"])
async def test_patch_location__unknown_driver_by_staff__is_404(http, store, reason):
    store.outcomes = [Outcome(0, "rejected", reason)]
    answer = await http.patch(
        "/drivers/nobody/location",
        json=make_fix(),
        headers={"Authorization": "Bearer tok-staff"},
    )
    problem_of(answer, 404, "unknown-driver")


@pytest.mark.parametrize(
    ("token", "status", "slug"),
    [
        (None, 401, "unauthenticated"),
        ("Bearer nobody", 401, "unauthenticated"),
        ("Basic ZDE6eA==", 401, "unauthenticated"),
        ("Bearer tok-d2", 403, "forbidden"),
        ("Bearer tok-customer", 403, "forbidden"),
    ],
)
async def test_patch_location__another_drivers_token__writes_nothing(
    http, store, token, status, slug
):
    del http.headers["Authorization"]
    headers = {"Authorization": token} if token else {}
    answer = await http.patch("/drivers/d1/location", json=make_fix(), headers=headers)
    problem_of(answer, status, slug)
    assert ("www-authenticate" in answer.headers) == (status == 401)
    assert store.rows == []


async def test_patch_location__several_fixes__look_the_token_up_once(http, store):
    for seq in range(5):
        await http.patch("/drivers/d1/location", json=make_fix(seq=seq + 1))
    assert store.look_ups == 1


@pytest.mark.parametrize("path", ["location", "locations"])
async def test_received_at__stated_by_the_service__is_the_arrival(http, store, path):
    fix, stated = make_fix(), "2026-01-01T12:00:01.250+00:00"
    method, body = ("PATCH", fix) if path == "location" else ("POST", {"fixes": [fix]})
    headers = {"Authorization": "Bearer tok-service", "Doorstep-Received-At": stated}
    answer = await http.request(method, f"/drivers/d1/{path}", json=body, headers=headers)
    assert answer.status_code == 200
    assert [row[5] for row in store.rows] == [datetime.fromisoformat(stated)]


@pytest.mark.parametrize("token", ["tok-d1", "tok-staff"])
@pytest.mark.parametrize("stated", ["2026-01-01T12:00:01Z", "2099-01-01T00:00:00Z", "nonsense"])
async def test_received_at__stated_by_anyone_else__is_ignored(http, store, token, stated):
    headers = {"Authorization": f"Bearer {token}", "Doorstep-Received-At": stated}
    before = datetime.now(UTC)
    answer = await http.patch("/drivers/d1/location", json=make_fix(), headers=headers)
    assert answer.status_code == 200
    assert before <= store.rows[0][5] <= datetime.now(UTC)


async def test_received_at__in_the_future__is_the_requests_time(http, store):
    headers = {
        "Authorization": "Bearer tok-service",
        "Doorstep-Received-At": "2099-01-01T00:00:00Z",
    }
    await http.patch("/drivers/d1/location", json=make_fix(), headers=headers)
    assert store.rows[0][5] <= datetime.now(UTC)


async def test_received_at__not_an_instant__is_422(http, store):
    headers = {"Authorization": "Bearer tok-service", "Doorstep-Received-At": "yesterday"}
    answer = await http.patch("/drivers/d1/location", json=make_fix(), headers=headers)
    assert problem_of(answer, 422, "unusable-request")["reason"] == "bad_instant"
    assert store.rows == []


async def test_service_token__commands__are_403(http, store):
    headers = {"Authorization": "Bearer tok-service"}
    problem_of(await http.post("/drivers/d1/on-duty", headers=headers), 403, "forbidden")


async def test_patch_location__database_unavailable__is_503_with_retry_after(http, store):
    store.away = True
    answer = await http.patch("/drivers/d1/location", json=make_fix())
    problem_of(answer, 503, "store-unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    ready = await http.get("/readyz")
    assert (ready.status_code, ready.json()) == (503, {"ready": False, "database": False})


async def test_patch_location__over_the_quota__is_429_and_asks_the_database_once(http, store):
    store.over_quota = {"d1"}
    for _ in range(20):
        answer = await http.patch("/drivers/d1/location", json=make_fix())
        problem_of(answer, 429, "too-many-requests")
        assert int(answer.headers["retry-after"]) >= 1
    assert store.transactions <= 2  # 20 answers may take more than a second
    for token, driver_id in (("tok-d2", "d2"), ("tok-staff", "d1"), ("tok-service", "d1")):
        headers = {"Authorization": f"Bearer {token}"}
        answer = await http.patch(
            f"/drivers/{driver_id}/location", json=make_fix(), headers=headers
        )
        assert answer.status_code == 200


def test_quota_refusals__after_a_second__are_forgotten():
    now_s = 0.0
    refusals = QuotaRefusals(lambda: now_s)
    refusals.add("d1")
    refusals.check("d2")
    now_s = 0.9
    with pytest.raises(TooManyRequests):
        refusals.check("d1")
    now_s = 1.0
    refusals.check("d1")


async def test_post_locations__bad_and_good_fixes__have_their_own_outcomes(http, store):
    store.outcomes = [Outcome(3, "duplicate", None), Outcome(1, "rejected", "wrong_type")]
    fixes = [
        make_fix(),
        make_fix(seq=2, lat_deg="north"),
        {"lat_deg": 1},
        make_fix(seq=3),
        make_fix(seq=4),
    ]
    answer = await http.post("/drivers/d1/locations", json={"fixes": fixes})
    assert answer.status_code == 200
    body = answer.json()
    assert [(one["outcome"], one["reason"]) for one in body["outcomes"]] == [
        ("committed", None),
        ("rejected", "wrong_type"),
        ("rejected", "missing_field"),
        ("duplicate", None),
        ("committed", None),
    ]
    assert (body["committed"], body["duplicate"], body["rejected"]) == (2, 1, 2)
    # the refused one with a seq goes to the store too, so that the watermark passes it
    assert [(row[0], row[-1]) for row in store.rows] == [
        (0, None),
        (1, "wrong_type"),
        (3, None),
        (4, None),
    ]


async def test_post_locations__more_than_256__is_422(http, store):
    fixes = [{"seq": seq} for seq in range(257)]
    answer = await http.post("/drivers/d1/locations", json={"fixes": fixes})
    assert problem_of(answer, 422, "malformed-fix")["reason"] == "too_many_fixes"
    assert store.rows == []


@pytest.mark.parametrize(
    ("body", "headers", "status", "slug"),
    [
        (b" " * 65537, {"Content-Type": "application/json"}, 413, "body-too-large"),
        (b"{}", {"Content-Type": "text/plain"}, 415, "unsupported-body"),
        (b"{}", {}, 415, "unsupported-body"),
        (
            b"{}",
            {"Content-Type": "application/json", "Content-Encoding": "gzip"},
            415,
            "unsupported-body",
        ),
    ],
)
async def test_patch_location__wrong_type_or_size__is_refused_before_parsing(
    http, body, headers, status, slug
):
    answer = await http.patch("/drivers/d1/location", content=body, headers=headers)
    problem_of(answer, status, slug)


async def test_patch_location__chunked_body_that_grows_too_large__is_413(http):
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(70):
            yield b" " * 1000

    headers = {"Content-Type": "application/json"}
    answer = await http.patch("/drivers/d1/location", content=chunks(), headers=headers)
    problem_of(answer, 413, "body-too-large")


async def test_commands__each_route__names_its_command(http, store):
    answer = await http.post("/drivers/d1/on-duty", headers={"Idempotency-Key": "k1"})
    assert (answer.status_code, answer.json()["duty"]) == (200, "on_duty")
    for path in ("decline", "picked-up", "delivered", "failed"):
        answer = await http.post(f"/drivers/d1/orders/{ORDER_ID}/{path}")
        assert answer.status_code == 200
        assert "customer_name" not in answer.json()
    assert store.commands == [
        ("d1", "on_duty", "k1"),
        ("d1", "decline", None),
        ("d1", "pick_up", None),
        ("d1", "deliver", None),
        ("d1", "fail", None),
    ]


async def test_on_break__with_an_order__is_409_with_what_is_allowed(http):
    document = problem_of(await http.post("/drivers/d1/on-break"), 409, "illegal-transition")
    assert (document["current_state"], document["allowed"]) == ("to_customer", ["off_duty"])


async def test_commands__staff_token__is_403(http, store):
    headers = {"Authorization": "Bearer tok-staff"}
    problem_of(await http.post("/drivers/d1/on-duty", headers=headers), 403, "forbidden")
    problem_of(await http.get("/drivers/d1", headers=headers), 403, "forbidden")
    assert store.commands == []


async def test_get_driver__own_token__has_the_restaurant_and_the_destination(http):
    body = (await http.get("/drivers/d1")).json()
    assert (body["duty"], body["state"]) == ("on_duty", "to_restaurant")
    assert body["order"]["restaurant"] == {"lon_deg": 11.25, "lat_deg": 43.77, "name": "Da Mario"}


async def test_unknown_path_or_method__any__is_a_problem_document(http):
    problem_of(await http.get("/nowhere"), 404, "not-found")
    answer = await http.delete("/drivers/d1")
    problem_of(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == "GET"


async def test_metrics__requests__are_labelled_by_route_without_ids(http):
    await http.get("/drivers/d1")
    await http.get("/drivers/d1/nowhere/else")
    text = (await http.get("/metrics")).text
    assert 'route="/drivers/{driver_id}"' in text
    assert 'route="(none)"' in text
    assert "d1/" not in text


async def test_openapi__is_3_1_with_problems_and_examples(http):
    document = (await http.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    patch = document["paths"]["/drivers/{driver_id}/location"]["patch"]
    assert patch["requestBody"]["content"]["application/json"]["examples"]
    assert {"401", "403", "404", "409", "413", "415", "422", "429", "503"} <= set(
        patch["responses"]
    )
    references = set(_references(document))
    assert references
    assert {name for name in references if name not in document["components"]["schemas"]} == set()


async def test_docs__every_operation__is_on_the_page_without_scripts(http):
    document = (await http.get("/openapi.json")).json()
    page = await http.get("/docs")
    assert page.status_code == 200
    assert "<script" not in page.text
    assert all(f"<code>{path}</code>" in page.text for path in document["paths"])
    assert (await http.get("/docs.css")).headers["content-type"].startswith("text/css")


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"].rpartition("/")[2]] if "$ref" in value else []
        return own + [name for inner in value.values() for name in _references(inner)]
    if isinstance(value, list):
        return [name for inner in value for name in _references(inner)]
    return []


def test_pack_position__a_fix__is_one_row_in_the_topics_order():
    at = datetime(2026, 1, 1, tzinfo=UTC)
    fix = Fix("b", 1, at, 43.77, 11.25, speed_mps=4.0)
    assert json.loads(pack_position("d1", fix, 99)) == {
        "v": 1,
        "positions": [["d1", 1767225600000, 99, 11.25, 43.77, None, 4.0, None]],
    }
