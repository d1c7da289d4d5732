"""Restaurants: places where orders are picked up."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request, Response

from doorstep.administration.fields import NewRestaurant, RestaurantChange
from doorstep.http.openapi import json_request, problems
from doorstep.http.request_body import json_body
from tracking_api.administration.csv_routes import csv_routes
from tracking_api.administration.pages import Cursor, Limit, Retired, read_page
from tracking_api.administration.queries import RESTAURANT
from tracking_api.administration.schemas import RestaurantRow, Restaurants
from tracking_api.context import Admin, AppContext, Context, Staff

router = APIRouter(prefix="/restaurants", tags=["administration"])
tables = csv_routes(
    RESTAURANT,
    "administration",
    "name,address,lat_deg,lon_deg,opening_hours,preparation_s\n"
    'Da Mario,Via Roma 1,43.77,11.25,"mon-fri 11:30-15:00; fri,sat 18:00-02:00",900\n',
)

RestaurantId = Annotated[int, Path(ge=-(2**31), lt=2**31, examples=[1_000_000])]


@router.get("", summary="List restaurants, by id", responses=problems(401, 403))
async def list_restaurants(
    request: Request,
    response: Response,
    _: Staff,
    context: Context,
    limit: Limit = 5_000,
    cursor: Cursor = None,
    retired: Retired = False,
) -> Restaurants:
    """One page; `Link: …; rel="next"` leads to the next."""
    page, next_cursor = await read_page(
        request, response, context, RESTAURANT, limit, cursor, retired
    )
    return Restaurants(restaurants=[RestaurantRow(**row) for row in page], next_cursor=next_cursor)


@router.post(
    "",
    status_code=201,
    summary="Add a restaurant",
    responses=problems(401, 403, 413, 415),
    openapi_extra=json_request(
        NewRestaurant,
        {
            "whole": {
                "name": "Da Mario",
                "address": "Via Roma 1",
                "lat_deg": 43.77,
                "lon_deg": 11.25,
                "phone": "+39 055 1234567",
                "opening_hours": [{"days": ["fri", "sat"], "from": "18:00", "to": "02:00"}],
                "preparation_s": 900,
            },
            "the least": {"name": "Kiosk", "lat_deg": 60.17, "lon_deg": 24.94},
        },
    ),
)
async def add_restaurant(
    response: Response,
    admin: Admin,
    context: Context,
    new: Annotated[NewRestaurant, Depends(json_body(NewRestaurant))],
) -> RestaurantRow:
    """Anywhere in the world. The server gives the id."""
    store = context.stores.administration
    created_id = int(await store.create_row(RESTAURANT, new.given(), admin.actor_id))
    response.headers["Location"] = f"/restaurants/{created_id}"
    return await _row(context, created_id)


@router.get("/{restaurant_id}", summary="One restaurant", responses=problems(401, 403, 404))
async def get_restaurant(restaurant_id: RestaurantId, _: Staff, context: Context) -> RestaurantRow:
    """A retired one too."""
    return await _row(context, restaurant_id)


@router.patch(
    "/{restaurant_id}",
    summary="Change a restaurant",
    responses=problems(401, 403, 404, 409, 413, 415),
    openapi_extra=json_request(
        RestaurantChange, {"moved": {"address": "Via Nuova 2", "lat_deg": 43.78, "lon_deg": 11.26}}
    ),
)
async def change_restaurant(
    restaurant_id: RestaurantId,
    admin: Admin,
    context: Context,
    change: Annotated[RestaurantChange, Depends(json_body(RestaurantChange))],
) -> RestaurantRow:
    """Only the given fields change. Assigned orders keep the former place."""
    store = context.stores.administration
    await store.change_row(RESTAURANT, restaurant_id, change.given(), admin.actor_id)
    return await _row(context, restaurant_id)


@router.post(
    "/{restaurant_id}/retire", summary="Retire a restaurant", responses=problems(401, 403, 404)
)
async def retire_restaurant(
    restaurant_id: RestaurantId, admin: Admin, context: Context
) -> RestaurantRow:
    """It takes no new orders. Open ones go on."""
    await context.stores.administration.retire_row(RESTAURANT, restaurant_id, admin.actor_id)
    return await _row(context, restaurant_id)


async def _row(context: AppContext, restaurant_id: int) -> RestaurantRow:
    return RestaurantRow(**await context.stores.administration.read_row(RESTAURANT, restaurant_id))
