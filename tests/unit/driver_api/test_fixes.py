"""Fixes over HTTP: outcomes, senders, the quota. The seam is `driver_api.queries.Store`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from doorstep.errors import TooManyRequests
from doorstep.fix import Fix
from doorstep.store.records import Outcome
from driver_api.positions import pack_position
from driver_api.quota_refusals import QuotaRefusals
from tests.unit.driver_api.memory_store import make_fix, problem_of


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
        "/drivers/unknown-driver/location",
        json=make_fix(),
        headers={"Authorization": "Bearer tok-staff"},
    )
    problem_of(answer, 404, "unknown-driver")


@pytest.mark.parametrize(
    ("token", "status", "slug"),
    [
        (None, 401, "unauthenticated"),
        ("Bearer unknown-token", 401, "unauthenticated"),
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


async def test_patch_location__database_unavailable__is_503_with_retry_after(http, store):
    store.away = True
    answer = await http.patch("/drivers/d1/location", json=make_fix())
    problem_of(answer, 503, "store-unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    ready = await http.get("/readyz")
    assert (ready.status_code, ready.json()) == (
        503,
        {"ready": False, "database": False, "clock": True},
    )


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


def test_pack_position__a_fix__is_one_row_in_the_topics_order():
    at = datetime(2026, 1, 1, tzinfo=UTC)
    fix = Fix("b", 1, at, 43.77, 11.25, speed_mps=4.0)
    assert json.loads(pack_position("d1", fix, 99)) == {
        "v": 1,
        "positions": [["d1", 1767225600000, 99, 11.25, 43.77, None, 4.0, None]],
    }
