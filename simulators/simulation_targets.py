"""How many of a kind the staff wants: `PUT /simulations/{kind}`, followed while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from doorstep.errors import DoorstepError
from simulators.api import Api

ASK_EVERY_S = 2.0


async def first_target(api: Api, token: str, kind: str, asked: int | None, default: int) -> int:
    """How many to begin with: what the command line says, and so the wish; or the wish before."""
    if asked is not None:
        answer = await api.tracking("PUT", f"/simulations/{kind}", token, {"count": asked})
        if not answer.ok:
            raise DoorstepError(f"PUT /simulations/{kind}: {answer.status} {answer.body}")
        return asked
    wanted = await read_wish(api, token, kind)
    return default if wanted is None else wanted


async def read_wish(api: Api, token: str, kind: str) -> int | None:
    """What the staff wants; None if nobody has said. Raises DoorstepError for a refusal."""
    answer = await api.tracking("GET", "/simulations", token)
    if not answer.ok:
        raise DoorstepError(f"GET /simulations was refused: {answer.status} {answer.body}")
    found = {one["kind"]: one["wanted"] for one in answer.body["simulations"]}
    wanted: int | None = found.get(kind)
    return wanted


async def follow_target(api: Api, token: str, kind: str, apply: Callable[[int], None]) -> None:
    """Ask every other second, for ever, and heed the answer."""
    while True:
        await asyncio.sleep(ASK_EVERY_S)
        wanted = await read_wish(api, token, kind)
        if wanted is not None:
            apply(wanted)
