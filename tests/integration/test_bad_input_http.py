"""FAULTS' bad input over HTTP, by number, on a real database: a 4xx with a reason, never a 5xx."""

from __future__ import annotations

import json
import zlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.database import Database
from tests.integration.http_services import (
    STAFF,
    as_customer,
    as_driver,
    create_order,
    make_fix,
    open_driver_api,
    open_tracking_api,
    populate,
    problem_of,
)

JSON = {"Content-Type": "application/json"}
INJECTIONS = ["'; DROP TABLE orders;--", "d1' OR '1'='1", '"', "\\", "%00", "$1", "{}", "é☃"]


@pytest.fixture
async def driver_api(database: Database) -> AsyncIterator[httpx.AsyncClient]:
    populate(database)
    async with open_driver_api(database) as client:
        yield client


@pytest.fixture
async def tracking_api(
    database: Database, driver_api: httpx.AsyncClient
) -> AsyncIterator[httpx.AsyncClient]:
    async with open_tracking_api(database) as client:
        yield client


def fix_text(**members: Any) -> bytes:
    """A good fix with some members replaced: a `bytes` value goes in as raw JSON."""
    parts = []
    for name, value in (make_fix(boot="b1", seq=1) | members).items():
        raw = value if isinstance(value, bytes) else json.dumps(value).encode()
        parts.append(json.dumps(name).encode() + b":" + raw)
    return b"{" + b",".join(parts) + b"}"


def without(name: str) -> bytes:
    fix = make_fix(boot="b1", seq=1)
    del fix[name]
    return json.dumps(fix).encode()


def later(**time: float) -> str:
    return (datetime.now(UTC) + timedelta(**time)).isoformat()


BAD_FIXES: dict[str, tuple[bytes, str]] = {
    "01 not JSON": (b"fix", "not_json"),
    "02 truncated": (fix_text()[:-5], "not_json"),
    "03 empty": (b"", "empty"),
    "04 null": (b"null", "wrong_shape"),
    "04 a number": (b"7", "wrong_shape"),
    "04 an array": (b"[]", "wrong_shape"),
    "05 no latitude": (without("lat_deg"), "missing_field"),
    "05 no instant": (without("fix_at"), "missing_field"),
    "05 boot without seq": (without("seq"), "missing_field"),
    "06 a string for a number": (fix_text(lat_deg=b'"43.7"'), "wrong_type"),
    "06 a string for seq": (fix_text(seq=b'"1"'), "wrong_type"),
    "06 null for an optional number": (fix_text(speed_mps=b"null"), "wrong_type"),
    "07 a bool for a number": (fix_text(lat_deg=b"true"), "wrong_type"),
    "07 a bool for the instant": (fix_text(fix_at=b"true"), "wrong_type"),
    "08 NaN": (fix_text(lat_deg=b"NaN"), "not_finite"),
    "08 Infinity": (fix_text(lat_deg=b"Infinity"), "not_finite"),
    "08 -Infinity": (fix_text(lat_deg=b"-Infinity"), "not_finite"),
    "08 1e999": (fix_text(lat_deg=b"1e999"), "not_finite"),
    "09 duplicate keys": (fix_text()[:-1] + b',"lat_deg":1}', "duplicate_key"),
    "09 duplicate keys in an unknown member": (
        fix_text(more=b'{"a":1,"a":2}'),
        "duplicate_key",
    ),
    "11 a 5,000-digit integer": (fix_text(x=b"1" * 900)[:-1] + b"}", "number_too_long"),
    "12 deep nesting": (b"[" * 60_000, "too_deep"),
    "13 invalid UTF-8": (fix_text(boot=b'"\xff"'), "not_utf8"),
    "14 U+0000": (fix_text(note=b'"\\u0000"'), "bad_text"),
    "15 a lone surrogate": (fix_text(note=b'"\\ud800"'), "bad_text"),
    "16 compressed": (zlib.compress(fix_text()), "not_utf8"),
    "17 latitude above 90": (fix_text(lat_deg=90.0001), "latitude_out_of_range"),
    "17 latitude below -90": (fix_text(lat_deg=-91), "latitude_out_of_range"),
    "18 longitude above 180": (fix_text(lon_deg=180.0001), "longitude_out_of_range"),
    "18 longitude below -180": (fix_text(lon_deg=-181), "longitude_out_of_range"),
    "19 accuracy below 0": (fix_text(accuracy_m=-1), "accuracy_out_of_range"),
    "19 speed of 501": (fix_text(speed_mps=501), "speed_out_of_range"),
    "19 heading of 361": (fix_text(heading_deg=361), "heading_out_of_range"),
    "19 battery of 2": (fix_text(battery=2), "battery_out_of_range"),
    "20 no zone": (fix_text(fix_at="2026-01-01T12:00:00"), "no_time_zone"),
    "21 seconds for milliseconds": (fix_text(fix_at=1767268800), "seconds_for_milliseconds"),
    "22 infinity": (fix_text(fix_at="infinity"), "bad_instant"),
    "22 30 February": (fix_text(fix_at="2026-02-30T12:00:00Z"), "bad_instant"),
}


@pytest.mark.parametrize("name", BAD_FIXES)
async def test_patch_location__bad_fix__is_422_with_its_reason_and_nothing_stored(
    driver_api, database, name
):
    body, reason = BAD_FIXES[name]
    answer = await driver_api.patch(
        "/drivers/d1/location", content=body, headers=as_driver("d1") | JSON
    )
    assert problem_of(answer, 422, "malformed-fix")["reason"] == reason
    assert database.value("SELECT count(*) FROM fix_history") == 0


@pytest.mark.parametrize(
    ("time", "reason"),
    [({"seconds": 150}, "in_the_future"), ({"hours": -24.1}, "too_old")],
    ids=["23 more than 120 s ahead", "24 older than 24 h"],
)
async def test_patch_location__outside_the_window_of_time__is_422_and_nothing_stored(
    driver_api, database, time, reason
):
    answer = await driver_api.patch(
        "/drivers/d1/location",
        content=fix_text(fix_at=later(**time)),
        headers=as_driver("d1") | JSON,
    )
    assert problem_of(answer, 422, "rejected-fix")["reason"] == reason
    assert database.value("SELECT count(*) FROM fix_history") == 0


async def test_post_locations__10_a_batch_too_long__is_422(driver_api):
    body = {"fixes": [{"seq": n} for n in range(257)]}
    answer = await driver_api.post("/drivers/d1/locations", json=body, headers=as_driver("d1"))
    assert problem_of(answer, 422, "malformed-fix")["reason"] == "too_many_fixes"


async def test_post_locations__each_bad_fix_in_a_batch__spoils_only_itself(driver_api, database):
    good = json.dumps(make_fix(boot="b2", seq=1)).encode()
    in_itself = {
        name: body
        for name, (body, _) in BAD_FIXES.items()
        if int(name[:2]) in (5, 6, 7, 9, 14, 15, 17, 18, 19, 20, 21, 22)
    }
    for n, (name, bad) in enumerate(in_itself.items()):
        answer = await driver_api.post(
            "/drivers/d1/locations",
            content=b'{"fixes":[' + bad + b"," + good.replace(b'"b2"', f'"g{n}"'.encode()) + b"]}",
            headers=as_driver("d1") | JSON,
        )
        assert answer.status_code == 200, name
        assert [one["outcome"] for one in answer.json()["outcomes"]] == [
            "rejected",
            "committed",
        ], name
    assert database.value("SELECT count(*) FROM fix_history") == len(in_itself)


async def test_31_another_drivers_id__is_403(driver_api, database):
    answer = await driver_api.patch(
        "/drivers/d2/location", json=make_fix(), headers=as_driver("d1")
    )
    problem_of(answer, 403, "forbidden")
    assert database.value("SELECT count(*) FROM fix_history") == 0


async def test_32_unknown_driver__is_404_for_staff_and_403_for_a_driver(driver_api, tracking_api):
    answer = await driver_api.patch("/drivers/d99/location", json=make_fix(), headers=STAFF)
    problem_of(answer, 404, "unknown-driver")
    answer = await driver_api.patch(
        "/drivers/d99/location", json=make_fix(), headers=as_driver("d1")
    )
    problem_of(answer, 403, "forbidden")
    problem_of(await tracking_api.get("/drivers/d99", headers=STAFF), 404, "unknown-driver")


async def test_33_bad_links__are_one_same_404(tracking_api):
    order = await create_order(tracking_api)
    there = f"/track/{order['order_id']}"
    found = [
        await tracking_api.get(there, headers={"Authorization": "Bearer cst_forged"}),
        await tracking_api.get(f"/track/{uuid4()}", headers=as_customer(order)),
        await tracking_api.get(there),
    ]
    for answer in found:
        problem_of(answer, 404, "bad-link")
    assert len({answer.content for answer in found}) == 1


async def test_34_too_large__is_413_and_wrong_type__is_415(driver_api, tracking_api):
    large = b'{"fixes":[' + b" " * 65_536 + b"]}"
    for client, method, path, who in (
        (driver_api, "PATCH", "/drivers/d1/location", as_driver("d1")),
        (driver_api, "POST", "/drivers/d1/locations", as_driver("d1")),
        (tracking_api, "POST", "/orders", STAFF),
        (tracking_api, "POST", f"/track/{uuid4()}/session", {}),
    ):
        answer = await client.request(method, path, content=large, headers=who | JSON)
        problem_of(answer, 413, "body-too-large")
        for media_type in ("text/plain", "application/x-www-form-urlencoded", "", "json"):
            headers = who | {"Content-Type": media_type}
            answer = await client.request(method, path, content=b"{}", headers=headers)
            problem_of(answer, 415, "unsupported-body")


async def test_34_too_large_a_head__is_431(driver_api, tracking_api):
    for client in (driver_api, tracking_api):
        answer = await client.get("/orders", headers={"X": "x" * 17_000})
        problem_of(answer, 431, "head-too-large")
        answer = await client.get("/orders?state=" + "x" * 17_000)
        problem_of(answer, 431, "head-too-large")


async def test_35_more_than_5_fixes_a_second__past_the_burst__is_429(driver_api):
    batch = {"fixes": [{"seq": n} for n in range(250)]}
    statuses = [
        (
            await driver_api.post("/drivers/d1/locations", json=batch, headers=as_driver("d1"))
        ).status_code
        for _ in range(5)
    ]
    assert statuses == [200, 200, 200, 200, 429]


@pytest.mark.parametrize("text", INJECTIONS)
async def test_injection__wherever_a_string_goes__is_a_4xx_and_harms_nothing(
    driver_api, tracking_api, database, text
):
    order = await create_order(tracking_api)
    quoted = httpx.QueryParams({"x": text})["x"]
    requests = [
        (driver_api, "GET", f"/drivers/{quoted}", {}),
        (driver_api, "POST", "/drivers/d1/on-break", {"Idempotency-Key": "a b"}),
        (driver_api, "POST", f"/drivers/d1/orders/{quoted}/decline", {}),
        (tracking_api, "GET", f"/orders/{quoted}", STAFF),
        (tracking_api, "GET", f"/drivers/{quoted}", STAFF),
        (tracking_api, "GET", f"/track/{quoted}", as_customer(order)),
    ]
    for client, method, path, headers in requests:
        answer = await client.request(method, path, headers=as_driver("d1") | headers)
        assert 400 <= answer.status_code < 500, (path, answer.status_code)
    for name in ("state", "cursor", "limit"):
        answer = await tracking_api.get("/orders", params={name: text}, headers=STAFF)
        assert answer.status_code == 422
    for body in ({"driver_id": text}, {"driver_id": [text]}, {text: 1}):
        answer = await tracking_api.post(
            f"/orders/{order['order_id']}/assign", json=body, headers=STAFF
        )
        assert answer.status_code == 422
    assert database.value("SELECT count(*) FROM orders") == 1
