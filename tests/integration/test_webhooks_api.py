"""Webhooks and alerts over the API, and notices as customers see them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from driver_events.notices import NoticeWorker
from driver_events.recorder import Connection
from tests.database import Database
from tests.integration.http_services import (
    CUSTOMER,
    RESTAURANT,
    SHOWN_AFTER_S,
    STAFF,
    as_driver,
    create_order,
    on_duty_at,
    problem_of,
    report,
    track,
)
from tests.integration.test_people import add_staff
from tracking_api.webhooks.schemas import WebhookEvent

URL = "https://shop.example/doorstep"


@pytest.fixture
def job(database: Database) -> Iterator[NoticeWorker]:
    """The job for notices and alerts, as driver_events runs it."""
    connection = Connection(database.url("driver_events"), "test")
    yield NoticeWorker(connection, lambda: None)
    connection.discard()


async def add_webhook(tracking_api: Any, **values: Any) -> dict[str, Any]:
    answer = await tracking_api.post("/webhooks", json={"url": URL, **values}, headers=STAFF)
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/webhooks/{answer.json()['webhook_id']}"
    hook: dict[str, Any] = answer.json()
    return hook


async def test_webhook__its_secret__is_shown_when_it_is_made_and_never_again(tracking_api):
    hook = await add_webhook(tracking_api, events=["order.late"], description="the shop")
    secret = hook.pop("secret")
    assert secret.startswith("whsec_")
    path = f"/webhooks/{hook['webhook_id']}"
    assert (await tracking_api.get("/webhooks", headers=STAFF)).json() == {"webhooks": [hook]}
    assert (await tracking_api.get(path, headers=STAFF)).json() == hook
    rotated = (await tracking_api.post(f"{path}/rotate", headers=STAFF)).json()
    assert rotated.pop("secret") not in (secret, None)
    assert rotated == hook


async def test_webhook__changed__keeps_what_is_not_given(tracking_api):
    hook = await add_webhook(tracking_api, events=["order.late"], description="the shop")
    path = f"/webhooks/{hook['webhook_id']}"

    async def change(**values: Any) -> dict[str, Any]:
        answer = await tracking_api.patch(path, json=values, headers=STAFF)
        assert answer.status_code == 200, answer.text
        changed: dict[str, Any] = answer.json()
        return changed

    off = await change(is_on=False)
    assert (off["is_on"], off["off_reason"], off["events"]) == (False, "admin", ["order.late"])
    on = await change(is_on=True, events=None, description=None)
    assert (on["is_on"], on["off_reason"], on["events"]) == (True, None, None)
    assert (on["description"], on["url"]) == ("", URL)
    assert (await tracking_api.delete(path, headers=STAFF)).status_code == 204
    problem_of(await tracking_api.get(path, headers=STAFF), 404, "unknown-webhook")


async def test_webhook__with_contact__is_allowed_to_one_address_and_audited(tracking_api, database):
    plain, hook = (
        await add_webhook(tracking_api),
        await add_webhook(tracking_api, with_contact=True),
    )
    assert (plain["with_contact"], hook["with_contact"]) == (False, True)
    path = f"/webhooks/{hook['webhook_id']}"

    async def changed(**values: Any) -> bool:
        answer = await tracking_api.patch(path, json=values, headers=STAFF)
        assert answer.status_code == 200, answer.text
        is_allowed: bool = answer.json()["with_contact"]
        return is_allowed

    assert await changed(description="sms", url=URL)
    assert not await changed(url=f"{URL}/2")
    assert await changed(url=f"{URL}/3", with_contact=True)
    assert not await changed(with_contact=False)
    read = "SELECT detail ->> 'with_contact' AS allowed FROM audit WHERE detail ? 'with_contact'"
    found = [row["allowed"] for row in database.rows(f"{read} ORDER BY audit_id")]
    assert found == ["true", "false", "true", "false"]


@pytest.mark.parametrize(
    "bad",
    [
        *({"url": "http://shop.example/"}, {"url": "https://a:b@shop.example/"}, {}),
        *({"url": "ftp://shop.example/"}, {"url": f"{URL}#x"}, {"url": "https://[::1"}),
        *({"url": URL, "events": []}, {"url": URL, "events": ["order.x"]}, {"url": "https:///x"}),
        *({"url": URL, "with_contact": None}, {"url": URL, "with_contact": "some"}),
        *({"url": URL, "secret": "mine"}, {"url": "https://a.example/ü"}),
    ],
)
async def test_webhook__that_cannot_be_sent_to__is_422(tracking_api, bad):
    answer = await tracking_api.post("/webhooks", json=bad, headers=STAFF)
    problem_of(answer, 422, "unusable-request")


async def test_webhooks__of_dispatchers__are_403(tracking_api):
    anna = await add_staff(tracking_api, "anna", "dispatcher")
    assert (await tracking_api.get("/webhooks", headers=anna)).status_code == 403
    answer = await tracking_api.post("/webhooks", json={"url": URL}, headers=anna)
    problem_of(answer, 403, "forbidden")


async def test_deliveries__listed_by_outcome__and_sent_again(tracking_api, database):
    hook = await add_webhook(tracking_api)
    order = await create_order(tracking_api, "confirm")
    path = f"/webhooks/{hook['webhook_id']}/deliveries"

    async def listed(query: str = "") -> list[dict[str, Any]]:
        answer = await tracking_api.get(f"{path}{query}", headers=STAFF)
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()["deliveries"]
        return found

    confirmed, created = await listed()
    assert (created["event_type"], created["order_id"]) == ("order.created", order["order_id"])
    assert created["due_at"] is not None
    assert confirmed["due_at"] is None  # it waits for the one before
    with database.connect("webhooks", autocommit=True) as conn:
        conn.execute("SELECT webhook_delivery__claim_v1(4, 10)")
        conn.execute(
            "SELECT webhook_delivery__report_v1(%s, 1, 200, NULL, 5)", [created["delivery_id"]]
        )
    [done] = await listed("?outcome=delivered")
    assert (done["delivery_id"], done["attempts"]) == (created["delivery_id"], 1)
    assert await listed(f"?before={created['delivery_id']}") == []
    again = await tracking_api.post(f"{path}/{done['delivery_id']}/send", headers=STAFF)
    assert again.status_code == 202
    assert len(await listed("?outcome=pending")) == 2
    unknown = await tracking_api.post(f"{path}/999/send", headers=STAFF)
    problem_of(unknown, 404, "unknown-delivery")


async def test_alerts__read_by_viewers_and_acknowledged_by_dispatchers__are_resolved_by_themselves(
    tracking_api, job
):
    past = datetime.now(UTC) - timedelta(minutes=1)
    order = await create_order(tracking_api, promised_to=past.isoformat())
    assert job.decide() is False
    vera = await add_staff(tracking_api, "vera", "viewer")
    anna = await add_staff(tracking_api, "anna", "dispatcher")
    [alert] = (await tracking_api.get("/alerts?open=true", headers=vera)).json()["alerts"]
    assert (alert["kind"], alert["order_id"]) == ("late", order["order_id"])
    path = f"/alerts/{alert['alert_id']}/acknowledge"
    problem_of(await tracking_api.post(path, headers=vera), 403, "forbidden")
    acknowledged = (await tracking_api.post(path, headers=anna)).json()
    assert acknowledged["acknowledged_by"] == "anna"
    answer = await tracking_api.post("/alerts/999/acknowledge", headers=anna)
    problem_of(answer, 404, "unknown-alert")
    await tracking_api.post(f"/orders/{order['order_id']}/cancel", headers=STAFF)
    job.decide()
    assert (await tracking_api.get("/alerts?open=true", headers=vera)).json() == {"alerts": []}
    [ended] = (await tracking_api.get("/alerts", headers=vera)).json()["alerts"]
    assert ended["resolved_at"] is not None


async def test_track__late_and_nearby__are_what_customer_and_staff_see(
    driver_api, tracking_api, job
):
    await on_duty_at(driver_api, "d1", RESTAURANT)
    past = datetime.now(UTC) - timedelta(minutes=1)
    order = await create_order(tracking_api, "confirm", promised_to=past.isoformat())
    path = f"/orders/{order['order_id']}/assign"
    await tracking_api.post(path, json={"driver_id": "d1"}, headers=STAFF)
    before = await track(tracking_api, order)
    assert (before["late_by_s"], before["nearby_at"]) == (None, None)
    await asyncio.sleep(SHOWN_AFTER_S)
    await driver_api.post(
        f"/drivers/d1/orders/{order['order_id']}/picked-up", headers=as_driver("d1")
    )
    await report(driver_api, "d1", CUSTOMER)
    job.decide()
    seen = await track(tracking_api, order)
    assert seen["late_by_s"] >= 60
    assert seen["nearby_at"] is not None
    assert seen["order_seq"] == len(seen["events"]) + 2
    by_staff = (await tracking_api.get(f"/track/{order['order_id']}", headers=STAFF)).json()
    assert (by_staff["nearby_at"], by_staff["order_seq"]) == (
        seen["nearby_at"],
        seen["order_seq"],
    )


async def test_body__as_the_database_writes_it__is_the_one_of_the_document(tracking_api, database):
    hook = await add_webhook(tracking_api)
    order = await create_order(tracking_api, external_id="shop-7")
    read = "SELECT webhook_delivery__body(%s, 1, 'order.created')"
    body = database.value(read, order["order_id"])
    event = WebhookEvent.model_validate_json(body)
    assert json.loads(event.model_dump_json(exclude_unset=True)) == json.loads(body)
    assert (event.data.external_id, event.data.reason) == ("shop-7", None)
    assert hook["is_on"]
