"""Errors of requests that the present state refuses (409). Import them from `doorstep.errors`."""

from __future__ import annotations

from collections.abc import Sequence

from doorstep.error_base import DoorstepError


class ConflictingFix(DoorstepError):
    """A different fix is already stored under this identity."""

    status = 409
    problem = "conflicting-fix"


class IllegalTransition(DoorstepError):
    """The state machine has no such transition from the current state."""

    status = 409
    problem = "illegal-transition"

    def __init__(
        self, subject_id: str, command: str, current_state: str, allowed: Sequence[str]
    ) -> None:
        commands = ", ".join(allowed) or "none"
        super().__init__(
            f"{command} is not allowed in the state {current_state}; allowed: {commands}"
        )
        self.subject_id = subject_id
        self.command = command
        self.current_state = current_state
        self.allowed = list(allowed)

    def members(self) -> dict[str, object]:
        return {"current_state": self.current_state, "allowed": self.allowed}


class WrongPin(DoorstepError):
    """This order is delivered against its customer's PIN."""

    status = 409
    problem = "wrong-pin"

    def __init__(self, reason: str, tries_left: int) -> None:
        text = "the PIN is missing" if reason == "missing" else "the PIN is wrong"
        super().__init__(f"{text}; tries left: {tries_left}")
        self.reason = reason
        self.tries_left = tries_left

    def members(self) -> dict[str, object]:
        return {"reason": self.reason, "tries_left": self.tries_left}


class DeviceExists(DoorstepError):
    """This id is a driver's or source's already: rotate it, or remove it first."""

    status = 409
    problem = "device-exists"


class StaffExists(DoorstepError):
    """This name is staff already: rotate or revoke it."""

    status = 409
    problem = "staff-exists"


class NameTaken(DoorstepError):
    """A service area of this name exists: change it."""

    status = 409
    problem = "name-taken"


class Retired(DoorstepError):
    """This was retired."""

    status = 409
    problem = "retired"


class DefaultPolicy(DoorstepError):
    """The default policy cannot be retired: choose another default first."""

    status = 409
    problem = "default-policy"


class TooManyWebhooks(DoorstepError):
    """There are 100 webhooks already."""

    status = 409
    problem = "too-many-webhooks"


class OrderOpen(DoorstepError):
    """An order still needs these data."""

    status = 409
    problem = "order-open"


class IdForgotten(DoorstepError):
    """This id was a person's whose data were erased: take another one."""

    status = 409
    problem = "id-forgotten"


class DriverUnavailable(DoorstepError):
    """The driver is off duty, or has this order or as many as a driver may have."""

    status = 409
    problem = "driver-unavailable"


class NoDriverAvailable(DoorstepError):
    """No free driver on duty is near."""

    status = 409
    problem = "no-driver-available"


class OfferClosed(DoorstepError):
    """The offer has ended."""

    status = 409
    problem = "offer-closed"


class OfferOpen(DoorstepError):
    """The order is offered to a driver already."""

    status = 409
    problem = "offer-open"


class StopsChanged(DoorstepError):
    """These are not the driver's open orders, each once."""

    status = 409
    problem = "stops-changed"


class StopBehind(DoorstepError):
    """An order that is picked up would come after one that is not."""

    status = 409
    problem = "stop-behind"


class ExternalIdTaken(DoorstepError):
    """Another order has this external_id."""

    status = 409
    problem = "external-id-taken"
