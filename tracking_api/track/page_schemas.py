"""What only the customer of an order reads and changes, as the API returns and takes it."""

from __future__ import annotations

from base64 import urlsafe_b64decode
from typing import Annotated
from urllib.parse import urlsplit
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from doorstep.http.instants import Instant
from doorstep.public_addresses import is_public_address
from tracking_api.orders.detail_schemas import ContactRule, LongText
from tracking_api.orders.schemas import NO_NUL

MAX_ENDPOINT = 1000
P256DH_BYTES, AUTH_BYTES = 65, 16  # an uncompressed point of P-256; RFC 8291


class DoorNote(BaseModel):
    """The note for the courier, or null to clear it."""

    model_config = ConfigDict(extra="forbid")

    door_note: LongText | None


def _public_https(endpoint: str) -> str:
    parts = urlsplit(endpoint)
    if parts.scheme != "https" or not parts.hostname or parts.username is not None:
        raise ValueError("must be an https URL")
    if parts.port not in (None, 443):
        raise ValueError("must be on port 443")
    try:
        is_public = is_public_address(parts.hostname)
    except ValueError:  # a name: checked when it is resolved
        is_public = "." in parts.hostname and not parts.hostname.endswith((".local", ".localhost"))
    if not is_public:
        raise ValueError("must be a public address")
    return endpoint


def _key_of(size: int) -> AfterValidator:
    def check(text: str) -> str:
        try:
            key = urlsafe_b64decode(text + "=" * (-len(text) % 4))
        except ValueError:
            key = b""
        if len(key) != size:
            raise ValueError(f"must be {size} bytes in base64url")
        return text

    return AfterValidator(check)


class PushKeys(BaseModel):
    """The keys of a PushSubscription."""

    model_config = ConfigDict(extra="forbid")

    p256dh: Annotated[str, Field(pattern="^[A-Za-z0-9_-]{1,100}$"), _key_of(P256DH_BYTES)]
    auth: Annotated[str, Field(pattern="^[A-Za-z0-9_-]{1,40}$"), _key_of(AUTH_BYTES)]


class NewSubscription(BaseModel):
    """A browser's PushSubscription, as `toJSON()` gives it, and the language of its page."""

    model_config = ConfigDict(extra="forbid")

    endpoint: Annotated[
        str,
        Field(min_length=9, max_length=MAX_ENDPOINT, pattern="^https://", json_schema_extra=NO_NUL),
        AfterValidator(_public_https),
    ]
    expirationTime: float | None = None  # noqa: N815 - the browser's name
    keys: PushKeys
    language: Annotated[str, Field(pattern="^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$", max_length=35)]


class ShareAnswer(BaseModel):
    """A link that shows the state, the estimate and the position, and nothing else. Shown once."""

    share_link: str


class RetryLink(BaseModel):
    """The order that tries a failed one again, and its customer's link."""

    order_id: UUID
    customer_link: str


class PageAnswer(BaseModel):
    """What only the customer reads of an order.

    `courier_phone` is shown while the courier may be seen, if the contact rule allows contact;
    `may_change` until pick-up. `has_retry`: a new order tries this failed one again.
    `push_key` is null where there is no web push.
    """

    customer_name: str | None
    address: str | None
    door_note: str | None
    items: str | None
    promised_from: Instant | None
    promised_to: Instant | None
    contact_rule: ContactRule
    courier_phone: str | None
    restaurant_phone: str | None
    may_change: bool
    has_retry: bool
    shared_at: Instant | None
    push_key: str | None
