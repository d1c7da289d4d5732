"""How a driver's orders end. The seam is `driver_api.queries.Store`."""

from __future__ import annotations

import pytest

from doorstep.errors import PinLocked, WrongPin
from doorstep.http.photo_body import MAX_PHOTO_BYTES
from tests.unit.driver_api.memory_store import ORDER_ID, RETURNING_ID, problem_of

PATH = f"/drivers/d1/orders/{ORDER_ID}"
JPEG = b"\xff\xd8\xff\xda\x00\x04ab pixels\xff\xd9"


async def test_delivered__with_pin_and_note__passes_them_on(http, store):
    body = {"pin": "4711", "note": "at the gate"}
    for prefix in ("", "/drive"):
        answer = await http.post(f"{prefix}{PATH}/delivered", json=body)
        assert answer.status_code == 200
    assert (await http.post(f"{PATH}/delivered")).status_code == 200
    assert store.deliveries == [("4711", "at the gate")] * 2 + [(None, None)]
    for bad in ({"pin": "47a1"}, {"pin": 4711}, {"pin": ""}, {"note": "x" * 501}, {"x": 1}):
        problem_of(await http.post(f"{PATH}/delivered", json=bad), 422, "unusable-request")


async def test_delivered__wrong_pin__says_why_and_how_many_tries_are_left(http, store):
    store.wrong_pin = WrongPin("wrong", 3)
    document = problem_of(await http.post(f"{PATH}/delivered", json={"pin": "1"}), 409, "wrong-pin")
    assert (document["reason"], document["tries_left"]) == ("wrong", 3)
    assert document["detail"] == "the PIN is wrong; tries left: 3"


async def test_delivered__after_too_many_wrong_pins__says_until_when(http, store):
    store.wrong_pin = PinLocked(431)
    answer = await http.post(f"{PATH}/delivered", json={"pin": "4711"})
    problem_of(answer, 429, "pin-locked")
    assert answer.headers["Retry-After"] == "431"


async def test_photo__larger_than_a_json_body__is_stored_without_what_follows_its_end(http, store):
    photo = JPEG[:-2] + bytes(100 * 1024) + JPEG[-2:]
    answer = await http.post(
        f"{PATH}/photo", content=photo + b"a video", headers={"Content-Type": "image/jpeg"}
    )
    assert (answer.status_code, answer.json()["bytes"]) == (200, len(photo))
    assert store.photos == [("image/jpeg", photo)]


@pytest.mark.parametrize("prefix", ["", "/drive"])
async def test_photo__over_512_kib__is_413(http, store, prefix):
    photo = JPEG[:-2] + bytes(MAX_PHOTO_BYTES) + JPEG[-2:]
    answer = await http.post(
        f"{prefix}{PATH}/photo", content=photo, headers={"Content-Type": "image/jpeg"}
    )
    problem_of(answer, 413, "body-too-large")
    assert store.photos == []


@pytest.mark.parametrize("token", ["tok-d2", "tok-staff"])
async def test_photo__of_anyone_else__is_403_before_the_body_is_read(http, store, token):
    headers = {"Content-Type": "image/jpeg", "Authorization": f"Bearer {token}"}
    problem_of(await http.post(f"{PATH}/photo", content=JPEG, headers=headers), 403, "forbidden")


async def test_get_driver__order_with_a_pin_and_one_to_return__says_so(http):
    body = (await http.get("/drivers/d1")).json()
    assert body["order"]["has_pin"] is True
    [leg] = body["returns"]
    assert (leg["order_id"], leg["restaurant"]["name"]) == (str(RETURNING_ID), "Da Mario")
    assert body["next_steps"] == ["retry", "return"]


async def test_returned__own_order__has_its_instants(http):
    answer = await http.post(f"{PATH}/returned")
    assert answer.json() == {
        "order_id": str(ORDER_ID),
        "driver_id": "d1",
        "started_at": "2026-01-01T12:00:00.000Z",
        "ended_at": "2026-01-01T12:00:00.000Z",
    }
