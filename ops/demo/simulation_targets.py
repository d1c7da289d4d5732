"""The target counts of couriers, vans and tickers that staff set.

The simulators read `GET /simulations` themselves. The launcher reads it to start simulators and to
register couriers at the broker and in the database.
"""

from __future__ import annotations

from collections.abc import Mapping

from ops.api_client import request_json
from ops.stack.errors import StackError


class SimulationTargets:
    """tracking_api's target counts."""

    def __init__(self, tracking_api_url: str, staff_token: str) -> None:
        self._url = f"{tracking_api_url}/simulations"
        self._token = staff_token

    def read(self) -> Mapping[str, int]:
        """The target count of each kind that has one. Empty if tracking_api does not answer."""
        try:
            found = request_json(self._url, self._token)["simulations"]
            return {one["kind"]: one["wanted"] for one in found if one["wanted"] is not None}
        except (OSError, ValueError, KeyError):
            return {}

    def set(self, kind: str, count: int) -> None:
        """Set a kind's target count. Raises StackError."""
        try:
            request_json(f"{self._url}/{kind}", self._token, "PUT", {"count": count})
        except OSError as exc:
            raise StackError(f"cannot set the number of {kind}: {exc}") from exc
