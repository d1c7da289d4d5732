"""Asking the stack's own tracking_api as staff."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping
from typing import Any

TIMEOUT_S = 3.0


def ask_as_staff(
    url: str, staff_token: str, method: str = "GET", body: Mapping[str, Any] | None = None
) -> Any:
    """Send a request, and give the answer's JSON. Raises OSError, ValueError."""
    headers = {"Authorization": f"Bearer {staff_token}"}
    if body is not None:
        headers["Content-Type"] = "application/json"
    request = urllib.request.Request(  # noqa: S310 - the stack's own address
        url,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers=headers,
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
        return json.load(answer)
