"""The customer in a message, for a receiver that sends SMS."""

from __future__ import annotations

import json

import pytest

from doorstep.notification_texts import TITLES
from webhooks.contact import contact_of, with_contact

PHONE = "+39 055 123"
BODY = json.dumps({"type": "order.failed", "data": {"order_id": "o", "reason": "other"}})


@pytest.mark.parametrize(
    ("language", "shown", "of"),
    [("it-IT", "it-IT", "it"), (None, "en", "en"), ("sv", "sv", "en")],
)
def test_message__to_a_customer__has_number_and_text_in_the_language(
    language: str | None, shown: str, of: str
) -> None:
    message = json.loads(with_contact(BODY, contact_of("order.failed", PHONE, language)))
    assert message["data"].pop("contact") == {
        "phone": PHONE,
        "language": shown,
        "text": TITLES[of]["failed"],
    }
    assert message == json.loads(BODY)


@pytest.mark.parametrize(
    ("event_type", "phone"), [("order.failed", None), ("order.late", PHONE), ("late", PHONE)]
)
def test_message__without_a_number_or_of_another_event__is_unchanged(
    event_type: str, phone: str | None
) -> None:
    assert with_contact(BODY, contact_of(event_type, phone, "it")) == BODY


def test_contact__in_a_log__has_no_number() -> None:
    assert PHONE not in repr(contact_of("order.nearby", PHONE, "it"))
