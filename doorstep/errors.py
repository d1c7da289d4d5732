"""Every error that Doorstep raises on purpose.

DoorstepError
├── SettingsError            a setting is missing or unusable; the service does not start
├── MalformedJson            a document that is not strict JSON (422)
├── MalformedFix             an input that can't be read as a fix (422, dead letter)
├── MalformedPacket          bytes that are not an MQTT control packet
├── RejectedFix              a readable fix that the rules refuse (422, dead letter)
├── ConflictingFix           another content under a known identity (409, dead letter)
├── IllegalTransition        a command that the state machine refuses (409)
├── IdempotencyConflict      one Idempotency-Key, two different requests (409)
├── DriverUnavailable        the named driver is off duty or has an order (409)
├── NoDriverAvailable        nobody is on duty, free and near (409)
├── Unauthenticated          no token, or one nobody knows (401)
├── Forbidden                a good token for something else (403)
├── NotFound                 (404)
│   ├── UnknownDriver
│   ├── UnknownOrder
│   ├── UnknownRestaurant
│   ├── UnknownPolicy
│   └── BadLink              every bad customer link, whatever is wrong with it
├── TooManyRequests          (429)
├── OffsetLost               another consumer owns the partition: roll back and rejoin
└── Unavailable              a dependency is not there; the same call may go through later (503)
    ├── StoreUnavailable
    ├── KafkaUnavailable
    └── DriverLocked         another transaction holds the driver's row

`retriable` says whether the same call may go through later without being changed. `status` and
`problem` are what HTTP answers make of it (RFC 9457). Data stand as attributes and come out of
`members()`, the extra members of a problem document.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class DoorstepError(Exception):
    """Something went wrong in Doorstep."""

    retriable: ClassVar[bool] = False
    status: ClassVar[int] = 500
    problem: ClassVar[str] = "internal"

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip().splitlines()[0])

    @property
    def title(self) -> str:
        """The class's sentence, the same for every instance: RFC 9457's `title`."""
        return (type(self).__doc__ or "").strip().splitlines()[0].rstrip(".")

    def members(self) -> dict[str, object]:
        """The error's data, as extra members of a problem document."""
        return {}


class SettingsError(DoorstepError):
    """A setting is missing or has a value that can't be used."""

    problem = "settings"


class MalformedJson(DoorstepError):
    """The document is not strict JSON. `reason` is a word such as `duplicate_key`."""

    status = 422
    problem = "malformed-json"

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class MalformedFix(DoorstepError):
    """The input can't be read as a fix.

    `reason` is one of the contract's words (`not_json`, `latitude_out_of_range`, …).
    """

    status = 422
    problem = "malformed-fix"

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail

    def members(self) -> dict[str, object]:
        return {"reason": self.reason}


class MalformedPacket(DoorstepError):
    """The bytes are not an MQTT control packet."""


class RejectedFix(DoorstepError):
    """The fix can be read, but the rules refuse it."""

    status = 422
    problem = "rejected-fix"

    def __init__(self, reason: str) -> None:
        super().__init__(f"the fix was rejected: {reason}")
        self.reason = reason

    def members(self) -> dict[str, object]:
        return {"reason": self.reason}


class ConflictingFix(DoorstepError):
    """Another fix is already stored under the same identity."""

    status = 409
    problem = "conflicting-fix"


class IllegalTransition(DoorstepError):
    """The state machine has no such transition from where the order or driver is."""

    status = 409
    problem = "illegal-transition"

    def __init__(
        self, subject_id: str, command: str, current_state: str, allowed: Sequence[str]
    ) -> None:
        can = ", ".join(allowed) or "nothing"
        super().__init__(f"{command} is not possible from {current_state}; possible: {can}")
        self.subject_id = subject_id
        self.command = command
        self.current_state = current_state
        self.allowed = list(allowed)

    def members(self) -> dict[str, object]:
        return {"current_state": self.current_state, "allowed": self.allowed}


class IdempotencyConflict(DoorstepError):
    """This Idempotency-Key was used for another request."""

    status = 409
    problem = "idempotency-conflict"


class DriverUnavailable(DoorstepError):
    """The driver is off duty or already has an order."""

    status = 409
    problem = "driver-unavailable"


class NoDriverAvailable(DoorstepError):
    """No driver on duty is free and near."""

    status = 409
    problem = "no-driver-available"


class Unauthenticated(DoorstepError):
    """A bearer token is needed: none came, or nobody knows it."""

    status = 401
    problem = "unauthenticated"


class Forbidden(DoorstepError):
    """The token is good, but not for this."""

    status = 403
    problem = "forbidden"


class NotFound(DoorstepError):
    """There is no such thing."""

    status = 404
    problem = "not-found"


class UnknownDriver(NotFound):
    """There is no such driver."""

    problem = "unknown-driver"


class UnknownOrder(NotFound):
    """There is no such order."""

    problem = "unknown-order"


class UnknownRestaurant(NotFound):
    """There is no such restaurant."""

    problem = "unknown-restaurant"


class UnknownPolicy(NotFound):
    """There is no such policy."""

    problem = "unknown-policy"


class BadLink(NotFound):
    """This link does not lead to an order."""

    problem = "bad-link"


class TooManyRequests(DoorstepError):
    """Too many requests; slow down."""

    retriable = True
    status = 429
    problem = "too-many-requests"

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(f"too many requests; try again in {retry_after_s:.0f} s")
        self.retry_after_s = retry_after_s


class OffsetLost(DoorstepError):
    """Another consumer has moved this partition's offset."""


class Unavailable(DoorstepError):
    """A part that this needs is not there at the moment."""

    retriable = True
    status = 503
    problem = "unavailable"
    retry_after_s: ClassVar[int] = 2


class StoreUnavailable(Unavailable):
    """The database can't be reached or did not answer in time."""

    problem = "store-unavailable"


class KafkaUnavailable(Unavailable):
    """Kafka can't be reached, did not answer in time, or does not have the topic."""

    problem = "kafka-unavailable"


class DriverLocked(Unavailable):
    """Another transaction holds this driver's row."""

    problem = "driver-locked"
    retry_after_s = 1
