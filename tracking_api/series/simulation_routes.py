"""How many couriers, cities and tickers the simulators run, for staff."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends

from doorstep.http.openapi import json_request, problems
from doorstep.http.request_body import json_body
from tracking_api.context import AppContext, Context, Staff
from tracking_api.series.queries import SimulationKind
from tracking_api.series.schemas import Simulation, SimulationCount, Simulations

router = APIRouter(prefix="/simulations", tags=["series"])


@router.get("", summary="How many of each kind are to run", responses=problems(401, 403))
async def get_simulations(_: Staff, context: Context) -> Simulations:
    """The simulators poll this every two seconds."""
    return await _simulations(context)


@router.put(
    "/{kind}",
    summary="Set how many of a kind are to run",
    responses=problems(401, 403, 413, 415),
    openapi_extra=json_request(SimulationCount, {"more": {"count": 120}, "none": {"count": 0}}),
)
async def set_simulation(
    kind: SimulationKind,
    _: Staff,
    context: Context,
    target: Annotated[SimulationCount, Depends(json_body(SimulationCount))],
) -> Simulations:
    """Running simulators add or remove some within two seconds; the others continue."""
    await context.stores.series.set_simulation(kind, target.count)
    return await _simulations(context)


async def _simulations(context: AppContext) -> Simulations:
    found = await context.stores.series.read_simulations()
    return Simulations(simulations=[Simulation(**one._asdict()) for one in found])
