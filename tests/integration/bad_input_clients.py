"""Clients of the running services, for bad input over HTTP."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from doorstep.credentials import driver_token
from doorstep.provision import owner_connection
from ops.stack.stack import Stack

JSON = {"Content-Type": "application/json"}


def driver_of(name: str) -> str:
    return f"http-{name}"[:64]


@dataclass
class Services:
    """Clients of both services. `guesser` has another address, with its own count of bad links."""

    stack: Stack
    drivers: httpx.Client
    tracking: httpx.Client
    guesser: httpx.Client
    staff: dict[str, str]

    def token(self, driver_id: str) -> dict[str, str]:
        token = driver_token(self.stack.paths.fleet_key(), driver_id)
        return {"Authorization": f"Bearer {token}"}

    def patch(self, driver_id: str, body: bytes) -> httpx.Response:
        """PATCH one fix as its driver."""
        headers = self.token(driver_id) | JSON
        return self.drivers.patch(f"/drivers/{driver_id}/location", content=body, headers=headers)

    def post(self, driver_id: str, parts: list[bytes]) -> httpx.Response:
        """POST several fixes."""
        body = b'{"fixes":[' + b",".join(parts) + b"]}"
        headers = self.token(driver_id) | JSON
        return self.drivers.post(f"/drivers/{driver_id}/locations", content=body, headers=headers)

    def stored(self, driver_id: str) -> list[int]:
        """Return a driver's seqs in the history."""
        return [
            row[0]
            for row in self.rows(
                "SELECT seq FROM doorstep.fix_history WHERE driver_id = %s ORDER BY seq", driver_id
            )
        ]

    def rows(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        with owner_connection(self.stack.database_admin_url) as conn:
            cursor = conn.execute(statement, parameters)  # type: ignore[arg-type]
            return cursor.fetchall() if cursor.description else []

    def order(self, *commands: str, **members: object) -> dict[str, Any]:
        """Create an order and apply staff commands."""
        new = {"restaurant_id": 7, "destination": {"lon_deg": 11.2486, "lat_deg": 43.7711}}
        answer = self.tracking.post("/orders", json=new | members, headers=self.staff)
        assert answer.status_code == 201, answer.text
        order: dict[str, Any] = answer.json()
        for command in commands:
            self.command(order, command)
        return order

    def command(self, order: dict[str, Any], command: str, **body: object) -> None:
        """Apply one staff command."""
        path = f"/orders/{order['order_id']}/{command}"
        answer = self.tracking.post(path, json=body, headers=self.staff)
        assert answer.status_code == 200, answer.text


@contextmanager
def open_services(stack: Stack, names: Sequence[str]) -> Iterator[Services]:
    """Register the drivers of these names, and open the clients."""
    stack.add_drivers([driver_of(name) for name in names])
    with ExitStack() as clients:
        drivers = clients.enter_context(
            httpx.Client(base_url=stack.addresses.driver_api_url, timeout=30)
        )
        tracking, guesser = (
            clients.enter_context(
                httpx.Client(
                    base_url=stack.addresses.tracking_api_url,
                    timeout=30,
                    transport=httpx.HTTPTransport(local_address=address),
                )
            )
            for address in ("127.0.0.1", "127.0.0.35")
        )
        staff = {"Authorization": f"Bearer {stack.paths.staff_token()}"}
        yield Services(stack, drivers, tracking, guesser, staff)
