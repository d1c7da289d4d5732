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

    def request(self, url: str, _token: str, method: str = "GET", _body: Any = None) -> Any:
        path, _, query = url.partition("?")
        if method == "POST":
            if any(order_id in path for order_id in self.refused):
                raise urllib.error.HTTPError(url, 409, "Conflict", Message(), None)
            self.commands.append(path)
            return {}
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
    return cast("Stack", SimpleNamespace(addresses=addresses, paths=paths))


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
    assert sorted(apis.commands) == [
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
    assert apis.commands == []


def test_end_open_orders__ended_meanwhile__is_not_counted(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    apis = FakeApis([order("late", "at_customer", "courier-1", CUSTOMER_NAME)], [])
    apis.refused.add("late")
    serve(monkeypatch, apis)
    assert end_open_orders(stack) == 0


def test_end_open_orders__couriers_on_duty__go_off_duty(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    apis = FakeApis([], [["on_duty", "courier-1"], ["off_duty", "courier-2"], ["on_duty", "anna"]])
    serve(monkeypatch, apis)
    end_open_orders(stack)
    assert apis.commands == [f"{DRIVER}/drivers/courier-1/off-duty"]
