"""One object in memory as the store of every domain."""

from __future__ import annotations

from typing import Any

from tracking_api.stores import Stores


def stores_of(store: Any) -> Stores:
    """Return Stores that call the methods of `store`, as far as it has them."""
    return Stores(
        tokens=store,
        orders=store,
        track=store,
        drivers=store,
        fleet=store,
        dispatch=store,
        history=store,
        series=store,
        is_available=store.is_available,
    )
