"""An order under way, shown as its customer sees it: a link, and a line for curl."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from ops.stack.staff_client import ask_as_staff

CHOOSE_AFTER_S = 5.0  # since there is one to show: by then all couriers have begun
CHOOSE_AMONG = 40


class DemoLinks:
    """Finds an order that is on its way to its customer, and has a long way still to go."""

    def __init__(
        self, tracking_api_url: str, staff_token: str, driver_ids: Collection[str]
    ) -> None:
        """Orders of these drivers are shown."""
        self._url = tracking_api_url
        self._token = staff_token
        self._driver_ids = driver_ids
        self._choose_at: float | None = None

    def show(self, say: Callable[[str], None], now: float) -> bool:
        """Say where to follow an order, if one is under way; whether it was said."""
        try:
            orders = self._ask("GET", "/orders?state=picked_up&limit=500")["orders"]
            ours = [one["order_id"] for one in orders if one["driver_id"] in self._driver_ids]
            if ours and self._choose_at is None:
                self._choose_at = now + CHOOSE_AFTER_S
            if not ours or self._choose_at is None or now < self._choose_at:
                return False
            order_id = max(ours[:CHOOSE_AMONG], key=self._way_left_m)
            link = self._ask("POST", f"/orders/{order_id}/link")
        except (OSError, ValueError, KeyError):
            return False  # not there yet, or gone again: tried later
        say(f"  a customer's link {link['customer_link']}")
        say(
            f"  the same by curl  curl -s -H 'Authorization: Bearer {link['customer_token']}' "
            f"{self._url}/track/{order_id}"
        )
        return True

    def _way_left_m(self, order_id: str) -> float:
        eta = self._ask("GET", f"/track/{order_id}")["eta"]
        return float(eta["distance_m"]) if eta else 0.0

    def _ask(self, method: str, path: str) -> Any:
        return ask_as_staff(self._url + path, self._token, method)
