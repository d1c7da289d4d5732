"""What a demo ends: a dict of orders and drivers replaces both APIs."""

from __future__ import annotations

import urllib.error
import urllib.parse
from email.message import Message
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ops.demo import open_orders
from ops.demo.open_orders import end_open_orders
from ops.stack.stack import Stack
from simulators.couriers import CUSTOMER_NAME

TRACKING, DRIVER = "http://tracking", "http://driver"


class FakeApis:
    """Serves one order per page, and refuses commands for `refused` orders."""

    def __init__(self, orders: list[dict[str, Any]], drivers: list[list[str]]) -> None:
        self.orders = orders
        self.drivers = drivers
        self.commands: list[str] = []
        self.refused: set[str] = set()
        self.late_orders: list[dict[str, Any]] = []  # that appear with the next command
        self.failures = 0  # of the next requests
        self.returns: list[dict[str, str]] | None = None  # None: this API has none

    def request(self, url: str, _token: str, method: str = "GET", _body: Any = None) -> Any:
        path, _, query = url.partition("?")
        if self.failures:
            self.failures -= 1
            raise TimeoutError
        if method == "POST":
            if any(order_id in path for order_id in self.refused):
                raise urllib.error.HTTPError(url, 409, "Conflict", Message(), None)
            self.commands.append(path)
            self.orders = [one for one in self.orders if f"/{one['order_id']}/" not in path]
            self.orders += self.late_orders
            self.late_orders = []
            return {}
        if path == f"{TRACKING}/returns":
            if self.returns is None:
                raise urllib.error.HTTPError(url, 404, "Not Found", Message(), None)
            return {"returns": self.returns}
        if path == f"{TRACKING}/drivers/positions":
            return {"columns": ["duty", "driver_id"], "drivers": self.drivers}
        parameters = urllib.parse.parse_qs(query)
        states = parameters["state"]
        found = [one for one in self.orders if one["state"] in states]
        at = int(parameters.get("cursor", ["0"])[0])
        following = str(at + 1) if at + 1 < len(found) else None
        return {"orders": found[at : at + 1], "next_cursor": following}


def order(order_id: str, state: str, driver_id: str | None, customer: str | None) -> dict[str, Any]:
    return {
        "order_id": order_id,
        "state": state,
        "driver_id": driver_id,
        "customer_name": customer,
    }


@pytest.fixture
def stack() -> Stack:
    addresses = SimpleNamespace(tracking_api_url=TRACKING, driver_api_url=DRIVER)
    paths = SimpleNamespace(staff_token=lambda: "stf", fleet_key=lambda: bytes(32))
    ids = ("courier-1", "courier-2", "courier-3", "city-0001", "anna")
    devices = [SimpleNamespace(device_id=one, state="active") for one in ids]
    found = SimpleNamespace(addresses=addresses, paths=paths, devices=lambda _kind: devices)
    return cast("Stack", found)


def serve(patch: pytest.MonkeyPatch, apis: FakeApis) -> None:
    patch.setattr(open_orders, "request_json", apis.request)


def test_end_open_orders__simulated_ones__are_cancelled_before_and_failed_after_pick_up(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    apis = FakeApis(
        [
            order("waiting", "created", None, CUSTOMER_NAME),
            order("assigned", "assigned", "courier-1", None),
            order("on-board", "picked_up", "courier-2", CUSTOMER_NAME),
            order("delivered", "delivered", "courier-2", CUSTOMER_NAME),
        ],
        [],
    )
    serve(monkeypatch, apis)
    assert end_open_orders(stack) == 3
    assert sorted(one for one in apis.commands if "/orders/" in one) == [
        f"{TRACKING}/orders/assigned/cancel",
        f"{TRACKING}/orders/on-board/fail",
        f"{TRACKING}/orders/waiting/cancel",
    ]


def test_end_open_orders__real_orders_and_drivers__are_not_touched(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    apis = FakeApis(
        [order("of-anna", "picked_up", "anna", "Bruno"), order("new", "created", None, None)],
        [["available", "anna"]],
    )
    serve(monkeypatch, apis)
    assert end_open_orders(stack) == 0
    assert not [one for one in apis.commands if "/orders/" in one or "anna" in one]


def test_end_open_orders__ended_meanwhile__is_not_counted(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    apis = FakeApis([order("late", "at_customer", "courier-1", CUSTOMER_NAME)], [])
    apis.refused.add("late")
    serve(monkeypatch, apis)
    assert end_open_orders(stack) == 0


def test_end_open_orders__simulated_drivers__go_off_duty_unless_they_are(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    apis = FakeApis([], [["on_duty", "courier-1"], ["off_duty", "courier-2"], ["on_duty", "anna"]])
    serve(monkeypatch, apis)
    end_open_orders(stack)
    gone = [f"{DRIVER}/drivers/{one}/off-duty" for one in ("city-0001", "courier-1", "courier-3")]
    assert sorted(apis.commands) == gone  # courier-3 has no position yet


def test_end_open_orders__order_that_comes_late__is_ended_as_well(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    apis = FakeApis([order("first", "created", None, CUSTOMER_NAME)], [])
    apis.late_orders = [order("late", "created", None, CUSTOMER_NAME)]
    serve(monkeypatch, apis)
    assert end_open_orders(stack) == 2
    assert apis.orders == []


def test_end_open_orders__api_that_does_not_answer__is_requested_again(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_orders, "RETRY_S", 0)
    apis = FakeApis([order("first", "created", None, CUSTOMER_NAME)], [])
    apis.failures = 2
    serve(monkeypatch, apis)
    assert end_open_orders(stack) == 1
    monkeypatch.setattr(open_orders, "END_WITHIN_S", 0)
    apis.failures = 1_000_000
    with pytest.raises(TimeoutError):
        end_open_orders(stack)


def test_end_open_orders__ways_back_of_simulated_couriers__end_as_well(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    apis = FakeApis([], [])
    apis.returns = [
        {"order_id": "back", "driver_id": "courier-1"},
        {"order_id": "of-anna", "driver_id": "anna"},
    ]
    serve(monkeypatch, apis)
    end_open_orders(stack)
    assert [one for one in apis.commands if "returned" in one] == [
        f"{TRACKING}/orders/back/returned"
    ]
