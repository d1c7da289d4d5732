"""Ends what a demo leaves open: orders without an end, and couriers on duty.

Uses the public APIs only: staff cancels an order before pick-up and fails it afterwards, and each
courier goes off duty. Orders of real customers and drivers are not touched.
"""

from __future__ import annotations

import urllib.error
import urllib.parse
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from doorstep.credentials import driver_token
from ops.demo.api_client import request_json
from ops.demo.couriers import PREFIX
from ops.stack.stack import Stack
from simulators.couriers import CUSTOMER_NAME

BEFORE_PICK_UP = ("created", "confirmed", "assigned", "at_restaurant")
AFTER_PICK_UP = ("picked_up", "arriving", "at_customer")
PAGE_SIZE = 500
PARALLEL_REQUESTS = 8
REASON = {"reason": "the demo has ended"}


def end_open_orders(stack: Stack) -> int:
    """End every open order of a simulated customer or courier, and return how many.

    Then takes the simulated couriers off duty. Raises OSError and ValueError if an API does not
    answer.
    """
    tracking_api_url, driver_api_url = (
        stack.addresses.tracking_api_url,
        stack.addresses.driver_api_url,
    )
    staff_token, fleet_key = stack.paths.staff_token(), stack.paths.fleet_key()

    def end_order(order: Mapping[str, Any]) -> bool:
        command = "fail" if order["state"] in AFTER_PICK_UP else "cancel"
        url = f"{tracking_api_url}/orders/{order['order_id']}/{command}"
        return _accepted(url, staff_token, REASON if command == "cancel" else None)

    def go_off_duty(driver_id: str) -> bool:
        url = f"{driver_api_url}/drivers/{driver_id}/off-duty"
        return _accepted(url, driver_token(fleet_key, driver_id))

    with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
        orders = [one for one in open_orders(tracking_api_url, staff_token) if is_simulated(one)]
        ended = sum(pool.map(end_order, orders))
        list(pool.map(go_off_duty, _couriers_on_duty(tracking_api_url, staff_token)))
    return ended


def is_simulated(order: Mapping[str, Any]) -> bool:
    """Whether an order belongs to a simulated customer, or to a simulated courier."""
    driver_id: str = order["driver_id"] or ""
    return order["customer_name"] == CUSTOMER_NAME or driver_id.startswith(PREFIX)


def open_orders(tracking_api_url: str, token: str) -> Iterator[Mapping[str, Any]]:
    """Read the open orders of all. Raises OSError and ValueError."""
    query: list[tuple[str, str]] = [("limit", str(PAGE_SIZE))]
    query += [("state", state) for state in (*BEFORE_PICK_UP, *AFTER_PICK_UP)]
    cursor: str | None = None
    while True:
        page_query = query + ([("cursor", cursor)] if cursor else [])
        page = request_json(
            f"{tracking_api_url}/orders?{urllib.parse.urlencode(page_query)}", token
        )
        yield from page["orders"]
        cursor = page["next_cursor"]
        if cursor is None:
            return


def _couriers_on_duty(tracking_api_url: str, token: str) -> list[str]:
    table = request_json(f"{tracking_api_url}/drivers/positions", token)
    driver_id, duty = (table["columns"].index(name) for name in ("driver_id", "duty"))
    return [
        row[driver_id]
        for row in table["drivers"]
        if row[driver_id].startswith(PREFIX) and row[duty] != "off_duty"
    ]


def _accepted(url: str, token: str, body: Mapping[str, Any] | None = None) -> bool:
    """Send a command. False if the API refuses it: the order has ended meanwhile."""
    try:
        request_json(url, token, "POST", body)
    except urllib.error.HTTPError as exc:
        exc.close()
        if exc.code >= 500:
            raise
        return False
    return True
