"""The target count of a kind of simulation, which staff sets: `PUT /simulations/{kind}`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from doorstep.errors import DoorstepError
from simulators.api import Api

POLL_S = 2.0


async def first_target(api: Api, token: str, kind: str, requested: int | None, default: int) -> int:
    """Return the count to start with: `requested`, which becomes the target, or else the target."""
    if requested is not None:
        answer = await api.tracking("PUT", f"/simulations/{kind}", token, {"count": requested})
        if not answer.ok:
            raise DoorstepError(f"PUT /simulations/{kind}: {answer.status} {answer.body}")
        return requested
    target = await read_target(api, token, kind)
    return default if target is None else target


async def read_target(api: Api, token: str, kind: str) -> int | None:
    """Read the target; None if it was never set. Raises DoorstepError if the API refuses."""
    answer = await api.tracking("GET", "/simulations", token)
    if not answer.ok:
        raise DoorstepError(f"GET /simulations was refused: {answer.status} {answer.body}")
    targets = {one["kind"]: one["wanted"] for one in answer.body["simulations"]}
    target: int | None = targets.get(kind)
    return target


async def follow_target(api: Api, token: str, kind: str, apply: Callable[[int], None]) -> None:
    """Apply the target every two seconds, forever."""
    while True:
        await asyncio.sleep(POLL_S)
        target = await read_target(api, token, kind)
        if target is not None:
            apply(target)
