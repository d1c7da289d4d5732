"""An order under way, shown as its customer sees it: a link, and a line for curl."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Collection
from typing import Any

TIMEOUT_S = 3.0


class Showcase:
    """Finds an order that is on its way to its customer."""

    def __init__(
        self, tracking_api_url: str, staff_token: str, driver_ids: Collection[str]
    ) -> None:
        """Orders of these drivers are shown."""
        self._url = tracking_api_url
        self._token = staff_token
        self._driver_ids = driver_ids

    def show(self, say: Callable[[str], None]) -> bool:
        """Say where to follow an order, if one is under way; whether there was one."""
        try:
            orders = self._ask("GET", "/orders?state=picked_up&limit=50")["orders"]
            ours = [one["order_id"] for one in orders if one["driver_id"] in self._driver_ids]
            if not ours:
                return False
            order_id = ours[0]
            link = self._ask("POST", f"/orders/{order_id}/link")
        except (OSError, ValueError, KeyError):
            return False  # not there yet, or gone again: tried later
        say(f"  a customer's link {link['customer_link']}")
        say(
            f"  the same by curl  curl -s -H 'Authorization: Bearer {link['customer_token']}' "
            f"{self._url}/track/{order_id}"
        )
        return True

    def _ask(self, method: str, path: str) -> Any:
        request = urllib.request.Request(  # noqa: S310 - the stack's own address
            self._url + path, method=method, headers={"Authorization": f"Bearer {self._token}"}
        )
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
            return json.load(answer)
