"""An order under way, shown as its customer sees it: a link, and a line for curl."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from typing import Any

TIMEOUT_S = 3.0


class Showcase:
    """Finds an order that is on its way to its customer."""

    def __init__(self, tracking_api_url: str, staff_token: str) -> None:
        self._url = tracking_api_url
        self._token = staff_token

    def show(self, say: Callable[[str], None]) -> bool:
        """Say where to follow an order, if one is under way; whether there was one."""
        try:
            orders = self._ask("GET", "/orders?state=picked_up&limit=1")["orders"]
            if not orders:
                return False
            order_id = orders[0]["order_id"]
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
