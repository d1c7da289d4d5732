"""A customer's link to an order that is on its way, and the same as a curl command."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ops.api_client import request_json
from ops.console import Echo

CHOOSE_AFTER_S = 5.0  # after the first candidate: by then all couriers have started
MAX_CANDIDATES = 40


class DemoLinks:
    """Chooses the order with the longest remaining way to its customer."""

    def __init__(
        self, tracking_api_url: str, staff_token: str, driver_ids: Collection[str]
    ) -> None:
        """Only orders of these drivers are candidates."""
        self._url = tracking_api_url
        self._token = staff_token
        self._driver_ids = driver_ids
        self._choose_at: float | None = None

    def show(self, echo: Echo, now: float) -> bool:
        """Print the links of an order, once there is one. Returns whether it did."""
        try:
            orders = self._request("GET", "/orders?state=picked_up&limit=500")["orders"]
            candidates = [one["order_id"] for one in orders if one["driver_id"] in self._driver_ids]
            if candidates and self._choose_at is None:
                self._choose_at = now + CHOOSE_AFTER_S
            if not candidates or self._choose_at is None or now < self._choose_at:
                return False
            order_id = max(candidates[:MAX_CANDIDATES], key=self._remaining_m)
            link = self._request("POST", f"/orders/{order_id}/link")
        except (OSError, ValueError, KeyError):
            return False  # the API is starting, or the order has just ended: the caller retries
        echo(f"  a customer's page {link['customer_link']}")
        echo(
            f"  the same by curl  curl -s -H 'Authorization: Bearer {link['customer_token']}' "
            f"{self._url}/track/{order_id}"
        )
        return True

    def _remaining_m(self, order_id: str) -> float:
        eta = self._request("GET", f"/track/{order_id}")["eta"]
        return float(eta["distance_m"]) if eta else 0.0

    def _request(self, method: str, path: str) -> Any:
        return request_json(self._url + path, self._token, method)
