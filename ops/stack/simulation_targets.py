"""How many couriers, vans and tickers the staff wants: what the launcher must do about it.

The simulators follow `PUT /simulations/{kind}` by themselves. But a courier needs an account at
the broker and in the database, which only the launcher can make, and a simulator must run.
"""

from __future__ import annotations

from collections.abc import Mapping

from ops.stack.paths import StackError
from ops.stack.staff_client import ask_as_staff


class SimulationTargets:
    """What tracking_api knows of them."""

    def __init__(self, tracking_api_url: str, staff_token: str) -> None:
        self._url = f"{tracking_api_url}/simulations"
        self._token = staff_token

    def read(self) -> Mapping[str, int]:
        """How many of each kind are wanted; nothing of a kind, or at all, where nobody says."""
        try:
            found = ask_as_staff(self._url, self._token)["simulations"]
            return {one["kind"]: one["wanted"] for one in found if one["wanted"] is not None}
        except (OSError, ValueError, KeyError):
            return {}  # away: asked again later

    def set(self, kind: str, count: int) -> None:
        """Want so many. Raises StackError."""
        try:
            ask_as_staff(f"{self._url}/{kind}", self._token, "PUT", {"count": count})
        except OSError as exc:
            raise StackError(f"tracking_api does not take how many {kind}: {exc}") from exc
