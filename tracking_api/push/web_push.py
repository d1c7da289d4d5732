"""Web push (RFC 8030, 8291, 8292): encrypted for the browser, signed with the stack's VAPID key."""

from __future__ import annotations

import asyncio
import hashlib
import json
from base64 import urlsafe_b64encode
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from doorstep.telemetry import get_logger
from tracking_api.push.notifier import Notification, Outcome
from tracking_api.push.texts import title_of

if TYPE_CHECKING:
    import requests

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
TIMEOUT_S = 10.0
TTL_S = {"nearby": 300, "delivered": 3600}  # a phone that comes back later gets no old news
GONE = (404, 410)


class VapidKey:
    """The key that signs requests to push services, derived from a secret of the stack."""

    def __init__(self, secret: str) -> None:
        digest = hashlib.sha256(b"doorstep web push " + secret.encode()).digest()
        scalar = int.from_bytes(digest) % (P256_ORDER - 1) + 1
        self.private = ec.derive_private_key(scalar, ec.SECP256R1())

    @property
    def public(self) -> str:
        """The public key as browsers take it (`applicationServerKey`)."""
        point = self.private.public_key().public_bytes(
            Encoding.X962, PublicFormat.UncompressedPoint
        )
        return urlsafe_b64encode(point).rstrip(b"=").decode()


class WebPushNotifier:
    """Sends notifications to browsers' push services."""

    def __init__(
        self,
        key: VapidKey,
        contact: str,
        new_session: Callable[[], requests.Session] | None = None,
    ) -> None:
        """`contact` is a mailto: or https: URL, by which a push service reaches the operator.

        Without `new_session`, sends to public addresses only.
        """
        self._key = key
        self._contact = contact
        self._new_session = new_session

    async def send(self, notification: Notification) -> Outcome:
        """Send in a thread."""
        return await asyncio.to_thread(partial(self._send, notification))

    def _send(self, notification: Notification) -> Outcome:
        # Imported here: they take 11 MiB, and many processes send nothing.
        import requests
        from py_vapid import Vapid02
        from pywebpush import WebPushException, webpush

        from tracking_api.push.guarded_session import guarded_session

        recipient, kind = notification.recipient, notification.kind
        payload = {
            "title": title_of(kind, recipient.language),
            "tag": str(notification.order_id),
            "url": f"/t/{notification.order_id}",
            "language": recipient.language,
        }
        try:
            with (self._new_session or guarded_session)() as session:
                webpush(
                    {
                        "endpoint": recipient.endpoint,
                        "keys": {"p256dh": recipient.p256dh, "auth": recipient.auth},
                    },
                    json.dumps(payload),
                    vapid_private_key=Vapid02(private_key=self._key.private),
                    vapid_claims={"sub": self._contact},
                    ttl=TTL_S[kind],
                    headers={"Urgency": "high"},
                    timeout=TIMEOUT_S,
                    requests_session=session,
                )
        except WebPushException as exc:
            status = exc.response.status_code if exc.response is not None else None
            return "gone" if status in GONE else "failed"
        except (requests.RequestException, ValueError) as exc:
            get_logger().info("push_failed", reason=type(exc).__name__)
            return "failed"
        return "sent"
