"""What a stack's Prometheus answers."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from typing import Any

from ops.stack.stack import Stack


def samples(stack: Stack, promql: str) -> list[tuple[dict[str, str], float]]:
    """The labels and the present value of each series of a query."""
    address = f"http://{stack.addresses.prometheus}/api/v1/query?"
    with urllib.request.urlopen(address + urllib.parse.urlencode({"query": promql})) as response:
        found: list[dict[str, Any]] = json.load(response)["data"]["result"]
    return [(one["metric"], float(one["value"][1])) for one in found]


def query(stack: Stack, promql: str) -> list[float]:
    """The present values of a query."""
    return [value for _, value in samples(stack, promql)]
