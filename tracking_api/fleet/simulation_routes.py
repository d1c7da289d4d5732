"""How many couriers, cities and tickers the simulators run, for staff."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends

from doorstep.http.openapi import json_request, problems
from doorstep.http.request_body import json_body
from tracking_api.context import Context, Staff
from tracking_api.series.queries import Kind, SimulationCount, Simulations

router = APIRouter(prefix="/simulations", tags=["series"])


@router.get("", summary="How many of each kind are wanted", responses=problems(401, 403))
async def get_simulations(_: Staff, parts: Context) -> Simulations:
    """What the simulators ask every other second."""
    return Simulations(simulations=await parts.store.read_simulations())


@router.put(
    "/{kind}",
    summary="Set how many of a kind are wanted",
    responses=problems(401, 403, 413, 415),
    openapi_extra=json_request(SimulationCount, {"more": {"count": 120}, "none": {"count": 0}}),
)
async def set_simulation(
    kind: Kind,
    _: Staff,
    parts: Context,
    wanted: Annotated[SimulationCount, Depends(json_body(SimulationCount))],
) -> Simulations:
    """Simulators that run add some, or let some go, within two seconds; the others stay."""
    await parts.store.set_simulation(kind, wanted.count)
    return Simulations(simulations=await parts.store.read_simulations())
