"""What only the customer of an order does, over a store in memory."""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from typing import Any
from uuid import UUID

import pytest

from doorstep.credentials import token_sha256
from tests.unit.tracking_api.memory_store import CUSTOMER, ORDER_ID, STAFF

PATH = f"/track/{ORDER_ID}"
ENDPOINT = "https://push.example.org/send/abc"


def encoded(size: int) -> str:
    return urlsafe_b64encode(bytes(size)).rstrip(b"=").decode()


def subscription(**members: Any) -> dict[str, Any]:
    keys = {"p256dh": encoded(65), "auth": encoded(16)}
    return {"endpoint": ENDPOINT, "keys": keys, "language": "it-IT", **members}


async def test_page__of_ones_own_order__has_what_only_the_customer_reads(http):
    answer = await http.get(f"{PATH}/page", headers=CUSTOMER)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert (answer.json()["address"], answer.json()["push_key"]) == ("Via Roma 1", None)


async def test_retry__of_a_failed_order__is_one_link_however_often(http, store):
    none = await http.post(f"{PATH}/retry", headers=CUSTOMER)
    assert (none.status_code, none.json()["type"].rsplit("/", 1)[-1]) == (404, "no-retry")
    store.retry_id = UUID(int=7)
    first, again = [await http.post(f"{PATH}/retry", headers=CUSTOMER) for _ in range(2)]
    assert first.json() == again.json()
    assert first.json()["order_id"] == str(store.retry_id)
    token = first.json()["customer_link"].split("#")[1]
    assert store.retry_tokens == {token_sha256(token)}


REQUESTS: list[tuple[str, str, Any]] = [
    ("GET", "page", None),
    ("PUT", "door-note", {"door_note": "x"}),
    ("POST", "cancel", None),
    ("POST", "share", None),
    ("DELETE", "share", None),
    ("POST", "retry", None),
    ("POST", "push", subscription()),
    ("DELETE", f"push?endpoint_sha256={'0' * 64}", None),
]


@pytest.mark.parametrize(("method", "what", "body"), REQUESTS)
@pytest.mark.parametrize("headers", [STAFF, {}, {"Authorization": "Bearer tok-other"}])
async def test_page_routes__any_other_token__is_the_404_of_a_bad_link(
    http, method, what, body, headers
):
    bad = await http.get(f"/track/{ORDER_ID}", headers={"Authorization": "Bearer x"})
    answer = await http.request(method, f"{PATH}/{what}", json=body, headers=headers)
    assert (answer.status_code, answer.json()) == (404, bad.json())


@pytest.mark.parametrize("origin", [None, "https://evil.example"])
async def test_page_routes__a_write_with_the_cookie_from_elsewhere__is_refused(http, store, origin):
    http.cookies.set("doorstep_track", "tok-customer")
    headers = {"Origin": origin} if origin else {}
    answer = await http.put(f"{PATH}/door-note", json={"door_note": "x"}, headers=headers)
    assert (answer.status_code, store.door_note) == (403, None)
    own = {"Origin": "https://doorstep.test"}
    answer = await http.put(f"{PATH}/door-note", json={"door_note": "x"}, headers=own)
    assert (answer.status_code, store.door_note) == (204, "x")
    assert (await http.get(f"{PATH}/page")).status_code == 200


async def test_share__by_the_customer__answers_with_a_link_that_is_stored_as_a_hash(http, store):
    answer = await http.post(f"{PATH}/share", headers=CUSTOMER)
    assert answer.status_code == 201
    address, _, token = answer.json()["share_link"].partition("#")
    assert address == f"https://doorstep.test/t/{ORDER_ID}"
    assert store.shares == [token_sha256(token)]
    assert (await http.delete(f"{PATH}/share", headers=CUSTOMER)).status_code == 204
    assert store.shares == []


async def test_cancel__by_the_customer__is_the_customers_command(http, store):
    answer = await http.post(f"{PATH}/cancel", headers=CUSTOMER)
    assert answer.status_code == 200
    assert store.commands == [(ORDER_ID, "cancel", "customer", None)]


async def test_push__subscription_of_a_browser__is_kept_until_removed(http, store):
    body = subscription(expirationTime=None)
    answer = await http.post(f"{PATH}/push", json=body, headers=CUSTOMER)
    assert answer.status_code == 204
    assert [one.language for one in store.recipients] == ["it-IT"]
    digest = hashlib.sha256(ENDPOINT.encode()).hexdigest()
    address = f"{PATH}/push?endpoint_sha256={digest}"
    assert (await http.delete(address, headers=CUSTOMER)).status_code == 204
    assert store.recipients == []


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://push.example.org/x",
        "https://127.0.0.1/x",
        "https://10.0.0.8/x",
        "https://[::1]/x",
        "https://[::ffff:127.0.0.1]/x",
        "https://169.254.169.254/latest",
        "https://localhost/x",
        "https://postgres/x",
        "https://printer.local/x",
        "https://push.example.org:8443/x",
        "https://user@push.example.org/x",
        "https://" + "a" * 1000,
    ],
)
async def test_push__endpoint_inside_the_network__is_refused(http, store, endpoint):
    body = subscription(endpoint=endpoint)
    answer = await http.post(f"{PATH}/push", json=body, headers=CUSTOMER)
    assert (answer.status_code, store.recipients) == (422, [])


@pytest.mark.parametrize("keys", [{"p256dh": encoded(64)}, {"auth": encoded(15)}, {"auth": "~"}])
async def test_push__malformed_keys__are_refused(http, store, keys):
    body = subscription()
    body["keys"] |= keys
    answer = await http.post(f"{PATH}/push", json=body, headers=CUSTOMER)
    assert (answer.status_code, store.recipients) == (422, [])
