"""Signatures, and the receiver of docs/how-to/webhooks.md that verifies them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from doorstep.credentials import new_webhook_secret
from webhooks.signatures import sign, signed_headers

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "webhooks.md"


@pytest.fixture(scope="module")
def accept() -> Callable[..., Any]:
    """The function that the page shows."""
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    found: Callable[..., Any] = names["accept"]
    return found


def test_sign__the_example_of_standard_webhooks__has_its_signature() -> None:
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    message_id = "msg_p5jXN8AQM9LWM0D4loKWxJek"
    found = sign(secret, message_id, 1614265330, b'{"test": 2432232314}')
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_receiver__of_the_page__takes_an_event_once(accept: Callable[..., Any]) -> None:
    secret, seen = new_webhook_secret(), set[str]()
    headers = signed_headers([secret], "msg_1", int(time.time()), b'{"type": "x"}')
    assert accept(secret, headers, b'{"type": "x"}', seen) == {"type": "x"}
    assert accept(secret, headers, b'{"type": "x"}', seen) is None


def test_receiver__while_the_secret_is_replaced__takes_both(accept: Callable[..., Any]) -> None:
    old, new = new_webhook_secret(), new_webhook_secret()
    headers = signed_headers([new, old], "msg_1", int(time.time()), b"{}")
    assert accept(old, headers, b"{}", set()) == accept(new, headers, b"{}", set()) == {}


@pytest.mark.parametrize("fault", ["body", "id", "secret", "old"])
def test_receiver__forged_or_old_message__is_refused(
    accept: Callable[..., Any], fault: str
) -> None:
    secret = new_webhook_secret()
    sent_at = int(time.time()) - (301 if fault == "old" else 0)
    headers = signed_headers([secret], "msg_1", sent_at, b"{}")
    if fault == "id":
        headers["webhook-id"] = "msg_2"
    with pytest.raises(ValueError, match=r"signature is wrong|sent again"):
        accept(
            new_webhook_secret() if fault == "secret" else secret,
            headers,
            b"[]" if fault == "body" else b"{}",
            set(),
        )
