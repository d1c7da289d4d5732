"""How many couriers, vans and tickers the staff wants: what the launcher must do about it.

The simulators follow `PUT /simulations/{kind}` by themselves. But a courier needs an account at
the broker and in the database, which only the launcher can make, and a simulator must run.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping
from typing import Any

from doorstep.stack.home import StackError

TIMEOUT_S = 3.0


class Wishes:
    """What tracking_api knows of them."""

    def __init__(self, tracking_api_url: str, staff_token: str) -> None:
        self._url = f"{tracking_api_url}/simulations"
        self._token = staff_token

    def read(self) -> Mapping[str, int]:
        """How many of each kind are wanted; nothing of a kind, or at all, where nobody says."""
        try:
            found = self._ask("GET", self._url)["simulations"]
            return {one["kind"]: one["wanted"] for one in found if one["wanted"] is not None}
        except (OSError, ValueError, KeyError):
            return {}  # away: asked again later

    def set(self, kind: str, count: int) -> None:
        """Want so many. Raises StackError."""
        try:
            self._ask("PUT", f"{self._url}/{kind}", {"count": count})
        except OSError as exc:
            raise StackError(f"tracking_api does not take how many {kind}: {exc}") from exc

    def _ask(self, method: str, url: str, body: Mapping[str, Any] | None = None) -> Any:
        request = urllib.request.Request(  # noqa: S310 - the stack's own address
            url,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {self._token}",
                "Content-Type": "application/json",
            },
        )
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
            return json.load(answer)
