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
    if body is None:
        return send(url, token, method)
    return send(url, token, method, json.dumps(body).encode(), "application/json")


def send(
    url: str,
    token: str,
    method: str,
    content: bytes | None = None,
    content_type: str | None = None,
    *,
    timeout_s: float = TIMEOUT_S,
) -> Any:
    """Do the same with a body of any type."""
    headers = {"Authorization": f"Bearer {token}"}
    if content_type is not None:
        headers["Content-Type"] = content_type
    request = urllib.request.Request(  # noqa: S310 - the stack's own address
        url, method=method, data=content, headers=headers
    )
    with urllib.request.urlopen(request, timeout=timeout_s) as response:  # noqa: S310
        return json.load(response)
