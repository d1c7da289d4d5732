"""The customer to tell, for a receiver that sends SMS or e-mail. It is kept and logged nowhere."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from doorstep.notification_texts import DEFAULT_LANGUAGE, Told, title_of

TOLD_OF: dict[str, Told] = {
    "order.nearby": "nearby",
    "order.delivered": "delivered",
    "order.failed": "failed",
}


@dataclass(frozen=True, slots=True)
class Contact:
    """A customer's phone number, and what to tell."""

    told: Told
    language: str
    phone: str = field(repr=False)


def contact_of(event_type: str, phone: str | None, language: str | None) -> Contact | None:
    """Return the customer of a delivery that has a phone number."""
    told = TOLD_OF.get(event_type)
    if phone is None or told is None:
        return None
    return Contact(told, language or DEFAULT_LANGUAGE, phone)


def with_contact(body: str, contact: Contact | None) -> str:
    """Add the customer to the body of an event."""
    if contact is None:
        return body
    event = json.loads(body)
    event["data"]["contact"] = {
        "phone": contact.phone,
        "language": contact.language,
        "text": title_of(contact.told, contact.language),
    }
    return json.dumps(event, ensure_ascii=False)
