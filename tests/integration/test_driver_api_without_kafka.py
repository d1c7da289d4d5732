"""Both APIs in the whole stack, with Kafka and while it is frozen."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from doorstep.credentials import driver_token, read_fleet_key
from ops.stack.stack import Stack
from tests.integration.http_services import SHOWN_AFTER_S, make_fix

PLACE = (11.2558, 43.7731)


@pytest.fixture
def staff(stack: Stack) -> Iterator[httpx.Client]:
    """tracking_api, as staff."""
    settings = stack.client_environment()
    token = Path(settings["STAFF_TOKEN_FILE"]).read_text().strip()
    with _client(settings["TRACKING_API_URL"], token) as client:
        yield client


@pytest.fixture
def phone(stack: Stack) -> Iterator[httpx.Client]:
    """driver_api, as driver api-1."""
    stack.add_drivers(["api-1"])
    settings = stack.client_environment()
    token = driver_token(read_fleet_key(Path(settings["FLEET_KEY_FILE"])), "api-1")
    with _client(f"{settings['DRIVER_API_URL']}/drivers/api-1", token) as client:
        yield client


@pytest.fixture
def frozen_kafka(stack: Stack) -> Iterator[None]:
    """Kafka accepts connections and never answers."""
    [pid] = [process.pid for process in stack.status() if process.name == "kafka"]
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_order__from_creation_to_delivery__works_over_both_apis(staff, phone):
    _deliver(staff, phone)


def test_order__while_kafka_is_frozen__is_delivered(staff, phone, frozen_kafka):
    _deliver(staff, phone)


def _deliver(staff: httpx.Client, phone: httpx.Client) -> None:
    restaurant = staff.get("/restaurants").json()["restaurants"][0]
    assert phone.post("/on-duty").status_code == 200
    assert phone.patch("/location", json=make_fix(PLACE)).json()["outcome"] == "committed"
    new = {
        "restaurant_id": restaurant["restaurant_id"],
        "destination": {"lon_deg": PLACE[0], "lat_deg": PLACE[1]},
    }
    order = staff.post("/orders", json=new).json()
    order_id = order["order_id"]
    assert staff.post(f"/orders/{order_id}/confirm").status_code == 200
    answer = staff.post(f"/orders/{order_id}/assign", json={"driver_id": "api-1"})
    assert answer.status_code == 200, answer.text
    customer = {"Authorization": f"Bearer {order['customer_token']}"}
    time.sleep(SHOWN_AFTER_S)
    for n in range(30):
        place = (PLACE[0], PLACE[1] + n * 1e-4)
        answer = phone.patch("/location", json=make_fix(place))
        assert answer.status_code == 200
        seen = staff.get(f"/track/{order_id}", headers=customer)
        assert seen.status_code == 200
        assert seen.json()["position"]["geometry"]["coordinates"] == list(place)
    for command in ("picked-up", "delivered"):
        assert phone.post(f"/orders/{order_id}/{command}").status_code == 200
    phone.patch("/location", json=make_fix(PLACE))
    seen = staff.get(f"/track/{order_id}", headers=customer).json()
    assert (seen["state"], seen["position"]) == ("delivered", None)


def _client(base_url: str, token: str) -> httpx.Client:
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.Client(base_url=base_url, headers=headers, timeout=15)
