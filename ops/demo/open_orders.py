"""Ends what a demo leaves open: orders without an end, and drivers on duty.

Uses the public APIs only: staff cancels an order before pick-up and fails it afterwards, and each
driver goes off duty. Orders of real customers and drivers are not touched.
"""

from __future__ import annotations

import re
import time
import urllib.error
import urllib.parse
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any

from doorstep.credentials import driver_token
from doorstep.provision import CITIES
from ops.api_client import request_json
from ops.demo.couriers import PREFIX
from ops.stack.stack import Stack
from simulators.couriers import CUSTOMER_NAME

BEFORE_PICK_UP = ("created", "confirmed", "assigned", "at_restaurant")
AFTER_PICK_UP = ("picked_up", "arriving", "at_customer")
PAGE_SIZE = 500
PARALLEL_REQUESTS = 8
CANCELLATION = {"reason": "the demo has ended"}
FAILURE = {"reason": "other", "note": "the demo has ended"}
SIMULATED_ID = re.compile(f"({re.escape(PREFIX)}|{re.escape(CITIES[0])})[0-9]+")
END_WITHIN_S = 20.0
RETRY_S = 0.5


def end_open_orders(stack: Stack) -> int:
    """End every open order of a simulated customer or courier, and return how many.

    Then ends their ways back, and takes the simulated drivers off duty. Repeated until no order is
    open, because a courier's last request may still arrive. Raises OSError and ValueError if an
    API does not answer for END_WITHIN_S.
    """
    ended, deadline = 0, time.monotonic() + END_WITHIN_S
    while True:
        try:
            found = _end_once(stack)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(RETRY_S)
            continue
        ended += found
        if found == 0 or time.monotonic() > deadline:
            _end_returns(stack)
            _end_duty(stack)
            return ended


def _end_once(stack: Stack) -> int:
    url, token = stack.addresses.tracking_api_url, stack.paths.staff_token()

    def end_order(order: Mapping[str, Any]) -> bool:
        if order["state"] in AFTER_PICK_UP:
            return _accepted(f"{url}/orders/{order['order_id']}/fail", token, FAILURE)
        return _accepted(f"{url}/orders/{order['order_id']}/cancel", token, CANCELLATION)

    with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
        orders = [one for one in open_orders(url, token) if is_simulated(one)]
        return sum(pool.map(end_order, orders))


def _end_returns(stack: Stack) -> None:
    """End the ways back to restaurants of simulated couriers."""
    url, token = stack.addresses.tracking_api_url, stack.paths.staff_token()
    try:
        found = request_json(f"{url}/returns?limit={PAGE_SIZE}", token)["returns"]
    except urllib.error.HTTPError as exc:
        exc.close()
        if exc.code != HTTPStatus.NOT_FOUND:  # the API has none
            raise
        return
    for one in found:
        if SIMULATED_ID.fullmatch(one["driver_id"]):
            _accepted(f"{url}/orders/{one['order_id']}/returned", token)


def _end_duty(stack: Stack) -> None:
    """Take the simulated drivers off duty, those without a position included."""
    url, fleet_key = stack.addresses.driver_api_url, stack.paths.fleet_key()
    resting = _off_duty(stack.addresses.tracking_api_url, stack.paths.staff_token())

    def go_off_duty(driver_id: str) -> bool:
        return _accepted(f"{url}/drivers/{driver_id}/off-duty", driver_token(fleet_key, driver_id))

    with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
        list(pool.map(go_off_duty, [one for one in simulated_ids(stack) if one not in resting]))


def simulated_ids(stack: Stack) -> list[str]:
    """Return the ids of the simulated drivers that may log in."""
    return [
        one.device_id
        for one in stack.devices("driver")
        if one.state == "active" and SIMULATED_ID.fullmatch(one.device_id)
    ]


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


def _off_duty(tracking_api_url: str, token: str) -> set[str]:
    """The drivers with a position who are off duty."""
    table = request_json(f"{tracking_api_url}/drivers/positions", token)
    driver_id, duty = (table["columns"].index(name) for name in ("driver_id", "duty"))
    return {row[driver_id] for row in table["drivers"] if row[duty] == "off_duty"}


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
