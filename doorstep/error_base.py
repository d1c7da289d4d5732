"""The root of the error hierarchy, which `doorstep.errors` draws."""

from __future__ import annotations

from typing import ClassVar


class DoorstepError(Exception):
    """An error of Doorstep."""

    retriable: ClassVar[bool] = False
    status: ClassVar[int] = 500
    problem: ClassVar[str] = "internal"

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip().splitlines()[0])

    @property
    def title(self) -> str:
        """The first sentence of the class's docstring: RFC 9457's `title`."""
        return (type(self).__doc__ or "").strip().splitlines()[0].rstrip(".")

    def members(self) -> dict[str, object]:
        """The error's data as members of a problem document."""
        return {}
