"""The error hierarchy.

DoorstepError
├── SettingsError            a setting is missing or invalid; the service does not start
├── MalformedJson            a document that is not strict JSON (422)
├── MalformedCsv             a table that cannot be imported (422)
├── MalformedFix             an input that is not a fix (422, dead letter)
├── MalformedPacket          bytes that are not an MQTT control packet
├── RejectedFix              a well-formed fix that the rules refuse (422, dead letter)
├── ConflictingFix           different content under a known identity (409, dead letter)
├── IllegalTransition        a command that the state machine refuses (409)
├── IdempotencyConflict      one Idempotency-Key, two different requests (422)
├── SwappedCoordinates       a place in a service area only when swapped (422)
├── UnusablePhoto            not a JPEG, PNG or WebP image (422)
├── WrongPin                 an order's PIN is missing or wrong (409)
├── DeviceExists             this id is a driver's or source's already (409)
├── StaffExists              this name is staff already (409)
├── NameTaken                a service area has this name (409)
├── Retired                  a driver, restaurant, area or policy that was retired (409)
├── DefaultPolicy            the default policy cannot be retired (409)
├── TooManyWebhooks          there are as many webhooks as may be (409)
├── OrderOpen                personal data that an order still needs (409)
├── IdForgotten              an id of a person whose data were erased (409)
├── DriverUnavailable        the driver is off duty or has an order (409)
├── NoDriverAvailable        no driver is on duty, free and near (409)
├── StopsChanged             the driver's open orders are others (409)
├── StopBehind               a stop that is picked up cannot move behind one that is not (409)
├── OfferClosed              an offer that has ended (409)
├── OfferOpen                the order is offered to a driver already (409)
├── ExternalIdTaken          an external_id of another order (409)
├── Unauthenticated          no token, or an unknown one (401)
├── Forbidden                a valid token without this permission (403)
├── NotFound                 (404)
│   ├── UnknownDriver
│   ├── UnknownStaff
│   ├── UnknownOrder
│   ├── UnknownRestaurant
│   ├── UnknownPolicy
│   ├── UnknownServiceArea
│   ├── NoPhoto
│   ├── NoRetry
│   ├── UnknownAlert
│   ├── UnknownWebhook
│   ├── UnknownDelivery
│   ├── BadLink              any invalid customer link: the same answer for all
│   └── BadInvitation        any invitation that is not good: the same answer for all
├── TooManyRequests          (429)
│   └── PinLocked            too many wrong PINs of an order
├── OffsetLost               another consumer owns the partition; roll back and rejoin
└── Unavailable              a dependency is unavailable; the same call may succeed later (503)
    ├── TooManyConnections   of an address, or in all
    ├── StoreUnavailable
    ├── ClockStepped         the server's clock was set while it ran, and may be wrong
    ├── KafkaUnavailable
    └── DriverLocked         another transaction holds the driver's row

`retriable`: the same call may succeed later. `status` and `problem`: the HTTP status and the slug
of the problem type (RFC 9457). Data are attributes; `members()` returns those that belong in a
problem document.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

# isort: off
from doorstep.conflict_errors import (
    ConflictingFix as ConflictingFix,
    DefaultPolicy as DefaultPolicy,
    DeviceExists as DeviceExists,
    DriverUnavailable as DriverUnavailable,
    ExternalIdTaken as ExternalIdTaken,
    IdForgotten as IdForgotten,
    IllegalTransition as IllegalTransition,
    NameTaken as NameTaken,
    NoDriverAvailable as NoDriverAvailable,
    OfferClosed as OfferClosed,
    OfferOpen as OfferOpen,
    OrderOpen as OrderOpen,
    Retired as Retired,
    StaffExists as StaffExists,
    StopBehind as StopBehind,
    StopsChanged as StopsChanged,
    TooManyWebhooks as TooManyWebhooks,
    WrongPin as WrongPin,
)

# isort: on
from doorstep.error_base import DoorstepError as DoorstepError


class SettingsError(DoorstepError):
    """A setting is missing or invalid."""

    problem = "settings"


class MalformedJson(DoorstepError):
    """The document is not strict JSON. `reason` is a word such as `duplicate_key`."""

    status = 422
    problem = "malformed-json"

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class MalformedCsv(DoorstepError):
    """The table cannot be imported, and nothing of it was.

    `errors` lists each complaint, with `line`, `field`, `msg` and `reason`.
    """

    status = 422
    problem = "malformed-csv"

    def __init__(self, errors: Sequence[Mapping[str, object]]) -> None:
        self.errors = [dict(error) for error in errors]
        super().__init__("; ".join(f"{one['loc']}: {one['msg']}" for one in self.errors))

    def members(self) -> dict[str, object]:
        return {"reason": self.errors[0]["reason"], "errors": self.errors}


class MalformedFix(DoorstepError):
    """The input is not a fix.

    `reason` is one of the contract's refusal reasons (`not_json`, `latitude_out_of_range`, …).
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
    """The fix is well-formed but refused by a rule."""

    status = 422
    problem = "rejected-fix"

    def __init__(self, reason: str) -> None:
        super().__init__(f"the fix was rejected: {reason}")
        self.reason = reason

    def members(self) -> dict[str, object]:
        return {"reason": self.reason}


class IdempotencyConflict(DoorstepError):
    """This Idempotency-Key was used for a different request."""

    status = 422
    problem = "idempotency-conflict"


class SwappedCoordinates(DoorstepError):
    """Longitude and latitude are swapped: only so the place lies in a service area."""

    status = 422
    problem = "swapped-coordinates"

    def members(self) -> dict[str, object]:
        return {"reason": "swapped_coordinates"}


class UnusablePhoto(DoorstepError):
    """The photo is not a JPEG, PNG or WebP image."""

    status = 422
    problem = "unusable-photo"


class Unauthenticated(DoorstepError):
    """A valid bearer token is required."""

    status = 401
    problem = "unauthenticated"


class Forbidden(DoorstepError):
    """The token does not permit this."""

    status = 403
    problem = "forbidden"


class NotFound(DoorstepError):
    """The resource does not exist."""

    status = 404
    problem = "not-found"


class UnknownDriver(NotFound):
    """The driver does not exist."""

    problem = "unknown-driver"


class UnknownStaff(NotFound):
    """No staff has this name."""

    problem = "unknown-staff"


class UnknownOrder(NotFound):
    """The order does not exist."""

    problem = "unknown-order"


class UnknownRestaurant(NotFound):
    """The restaurant does not exist."""

    problem = "unknown-restaurant"


class UnknownPolicy(NotFound):
    """The policy does not exist."""

    problem = "unknown-policy"


class UnknownServiceArea(NotFound):
    """No service area has this name."""

    problem = "unknown-service-area"


class NoPhoto(NotFound):
    """The order has no photo."""

    problem = "no-photo"


class NoRetry(NotFound):
    """The order has no further attempt that this link leads to."""

    problem = "no-retry"


class UnknownAlert(NotFound):
    """The alert does not exist."""

    problem = "unknown-alert"


class UnknownWebhook(NotFound):
    """The webhook does not exist."""

    problem = "unknown-webhook"


class UnknownDelivery(NotFound):
    """The webhook has no such delivery."""

    problem = "unknown-delivery"


class BadLink(NotFound):
    """This link is not valid."""

    problem = "bad-link"


class BadInvitation(NotFound):
    """This invitation is not valid: it was used, replaced, or is older than a day."""

    problem = "bad-invitation"


class TooManyRequests(DoorstepError):
    """Too many requests."""

    retriable = True
    status = 429
    problem = "too-many-requests"

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(f"too many requests; retry after {retry_after_s:.0f} s")
        self.retry_after_s = retry_after_s


class PinLocked(TooManyRequests):
    """Too many wrong PINs were given for this order."""

    problem = "pin-locked"


class OffsetLost(DoorstepError):
    """Another consumer has advanced this partition's offset."""


class Unavailable(DoorstepError):
    """A dependency is unavailable."""

    retriable = True
    status = 503
    problem = "unavailable"
    retry_after_s: ClassVar[int] = 2


class TooManyConnections(Unavailable):
    """Too many connections wait for an answer."""


class StoreUnavailable(Unavailable):
    """The database is unreachable or did not answer in time."""

    problem = "store-unavailable"


class ClockStepped(Unavailable):
    """The server's clock was set by more than a minute, and may be wrong."""

    problem = "clock-stepped"
    retry_after_s = 5


class KafkaUnavailable(Unavailable):
    """Kafka is unreachable, did not answer in time, or has no such topic."""

    problem = "kafka-unavailable"


class DriverLocked(Unavailable):
    """Another transaction holds the lock on this driver's row."""

    problem = "driver-locked"
    retry_after_s = 1
