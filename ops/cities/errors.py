"""The errors of `./run city`. Each message says what to do next."""

from __future__ import annotations

from doorstep.errors import DoorstepError


class CityError(DoorstepError):
    """The city cannot be made, found or removed."""
