"""One order as the simulation knows it, between the shop that sends it and its courier."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from enum import Enum

from simulators.couriers.demand import Door, Restaurant


class Stage(Enum):
    """How far a courier is with an order when the shift starts, or goes on after a restart."""

    TO_RESTAURANT = "to_restaurant"
    AT_RESTAURANT = "at_restaurant"
    TO_CUSTOMER = "to_customer"
    ARRIVING = "arriving"
    AT_CUSTOMER = "at_customer"

    @property
    def has_food(self) -> bool:
        """Whether the courier has picked up."""
        return self in (Stage.TO_CUSTOMER, Stage.ARRIVING, Stage.AT_CUSTOMER)


class Ending(Enum):
    """What became of one courier's work on an order."""

    DELIVERED = "delivered"
    FAILED = "failed"
    DECLINED = "declined"
    TAKEN_AWAY = "taken_away"


@dataclass(slots=True)
class Job:
    """An order and what is fated for it. Instants are simulated seconds."""

    restaurant: Restaurant
    door: Door
    ready_s: float
    order_id: str = ""
    customer_token: str = ""
    ending: asyncio.Future[Ending] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def end(self, ending: Ending) -> None:
        """Tell whoever watches the order that its courier is done with it."""
        if not self.ending.done():
            self.ending.set_result(ending)
