"""Requests to the stack's own APIs."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping
from typing import Any

TIMEOUT_S = 3.0


def request_json(
    url: str, token: str, method: str = "GET", body: Mapping[str, Any] | None = None
) -> Any:
    """Send a request with a bearer token and return the response's JSON.

    Raises OSError (HTTP errors included) and ValueError.
    """
    headers = {"Authorization": f"Bearer {token}"}
    if body is not None:
        headers["Content-Type"] = "application/json"
    request = urllib.request.Request(  # noqa: S310 - the stack's own address
        url,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers=headers,
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310
        return json.load(response)
