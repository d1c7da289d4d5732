"""Large answers are built in a thread beside the event loop, one at a time.

Python runs one thread at a time, so several such threads would leave the loop little: with one, the
loop waits at most for the switch interval (SWITCH_S) whenever it has something to do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

SWITCH_S = 0.001  # a fifth of Python's own; a request takes the loop about five times
SMALL_FIXES = 1000  # up to about 2 ms: a thread would cost more than it saves the others

_worker = ThreadPoolExecutor(1, "large answers")


async def off_the_loop(fixes: int, build: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `build` for this many fixes: many in the thread, after those of others."""
    if fixes <= SMALL_FIXES:
        return build(*args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(_worker, lambda: build(*args, **kwargs))
